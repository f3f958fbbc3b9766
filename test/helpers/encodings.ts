import type { EncodeOptions } from '../../src/aggregate/encode-update.ts';

/** Every way to hold an update, plain first. */
export const ENCODINGS: readonly EncodeOptions[] = [
  {},
  { quantise: 'int8' },
  { quantise: 'int8-block' },
  { quantise: 'int8-block', block: 16 },
  { quantise: 'float16' },
  { quantise: 'bfloat16' },
  { topK: 0.01 },
  { topK: 0.3 },
  { topK: 1 },
];
