import { supportsMean } from '../../core/mean.ts';
import type { Strategy } from './strategy.ts';

/**
 * The weighted mean, FedAvg (McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
 * Data", 2017): Σ wᵢ·xᵢ / Σ wᵢ, mathematically exact and rounded once to the dtype, ties to even.
 *
 * Every dtype but anonymous bytes; integers and bool too, rounded half to even. NaN and infinity are refused, or go into
 * the result as IEEE 754 has it, NaN in canonical form. One input comes back bit for bit.
 */
export const mean: Strategy = { name: 'mean', combine: { kind: 'mean' }, supports: supportsMean };
