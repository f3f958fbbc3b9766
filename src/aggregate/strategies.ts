import type { Core } from '../core/core.ts';
import { meanArenaBytes, meanInto, planMean, supportsMean } from '../core/mean.ts';

/** A rule that makes one element out of K elements, prepared for the weightings of one aggregation. */
export interface Fold {
  /** Nearest binary64 of the exact sum of the weightings. */
  readonly totalWeighting: number;
  /**
   * Folds `count` elements of each input.
   *
   * @param dtype code of the element type
   * @param table address of K addresses (uint32) of little-endian elements, in the order of the weightings
   * @param out address of the result, which overlaps no input
   * @returns false when NaN or infinity was met and `nonFinite` is `reject`: the result is undefined then
   */
  fold(dtype: number, table: number, count: number, out: number, nonFinite: 'reject' | 'propagate'): boolean;
}

/** An element-wise aggregation rule. */
export interface Strategy {
  readonly name: string;
  /** Whether the rule is defined for the dtype with this code. */
  supports(dtype: number): boolean;
  /** Bytes of the arena that `open` takes for k inputs. */
  arenaBytes(k: number): number;
  /** @throws AggregationError when the weightings cannot be used, `average-sum-overflow` among others */
  open(core: Core, weightings: readonly number[]): Fold;
}

/**
 * The weighted mean, FedAvg (McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
 * Data", 2017): Σ wᵢ·xᵢ / Σ wᵢ, mathematically exact and rounded once to the dtype, ties to even.
 */
const mean: Strategy = {
  name: 'mean',
  supports: supportsMean,
  arenaBytes: meanArenaBytes,
  open(core, weightings) {
    const plan = planMean(core, weightings);
    return {
      totalWeighting: plan.total,
      fold: (dtype, table, count, out, nonFinite) =>
        meanInto(core, plan, dtype, table, count, out, nonFinite === 'propagate'),
    };
  },
};

/** The aggregation rules by name. */
export const strategies = { mean } as const;
