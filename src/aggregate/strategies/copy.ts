import type { Strategy } from './strategy.ts';

/**
 * The rule of a conversion: the elements of the only input as they are, NaN and all. Bytes and axes in other orders have
 * been put right before a rule sees them, and the encoding puts the elements where another format wants them.
 */
export const copy: Strategy = { name: 'copy', combine: { kind: 'copy' }, supports: () => true };
