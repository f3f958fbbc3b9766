import { DTYPE_VOID16, ORDER_MAX_INPUTS } from '../../assembly/abi.ts';
import { AggregationError } from '../errors.ts';
import type { Core } from './core.ts';
import type { StrategyExports } from './exports.ts';
import { wasFinite, withWeightings } from './mean.ts';

/** A median or trimmed mean of K inputs, prepared in the arena of one core. */
export interface OrderPlan {
  readonly kind: 'trimmed' | 'weighted-median';
  readonly address: number;
}

/** Whether order statistics are there for the dtype with this code: for all numbers, and for bool as 0 and 1. */
export function supportsOrder(dtype: number): boolean {
  return dtype !== DTYPE_VOID16;
}

/** Bytes of the arena that `planTrimmed` or `planWeightedMedian` takes for k inputs, or somewhat more. */
export function orderArenaBytes(k: number): number {
  // Asked for before there is a core: bounds of trimmedPlanBytes and weightedMedianPlanBytes in assembly/.
  const rounds = Math.ceil(Math.log2(k + 1));
  const network = k * rounds * (rounds + 1);
  const rows = 16_384 + 3 * 1024 + (2 * k + 3) * 64;
  const plans = 2 * (96 + 64 * (k + 2)) + 28 * k;
  return network + rows + plans + 8 * k + 512;
}

/**
 * Prepares the mean of what is left of k inputs without the `cut` least and the `cut` greatest values of each element.
 *
 * @param cut below k / 2; (k - 1) >> 1 gives the median
 * @throws AggregationError `strategy-too-many-inputs`
 */
export function planTrimmed(core: Core<StrategyExports>, k: number, cut: number): OrderPlan {
  checkCount(k);
  const address = core.take(core.exports.trimmedPlanBytes(k));
  core.exports.trimmedPlan(k, cut, address);
  return { kind: 'trimmed', address };
}

/**
 * Prepares the weighted median for the weightings of the inputs, none of them zero.
 *
 * @throws AggregationError `strategy-too-many-inputs`, and for weightings what `planMean` throws
 */
export function planWeightedMedian(core: Core<StrategyExports>, weightings: readonly number[]): OrderPlan {
  checkCount(weightings.length);
  const address = core.take(core.exports.weightedMedianPlanBytes(weightings.length));
  withWeightings(core, weightings, address, (given) =>
    core.exports.weightedMedianPlan(given, weightings.length, address),
  );
  return { kind: 'weighted-median', address };
}

/**
 * Combines `count` elements of each input by a plan.
 *
 * @param dtype code of the element type; complex elements go by component
 * @param table address of K addresses (uint32) of little-endian elements, in the order of the plan's weightings
 * @param out address of the result, which overlaps no input
 * @param propagate NaN in any input makes the element NaN, in canonical form, and infinities are values like others
 * @returns false when NaN or infinity was met and `propagate` is false: the result is undefined then
 * @throws AggregationError `aggregate-dtype-unsupported`
 */
export function orderInto(
  core: Core<StrategyExports>,
  { kind, address }: OrderPlan,
  dtype: number,
  table: number,
  count: number,
  out: number,
  propagate: boolean,
): boolean {
  const combine = kind === 'trimmed' ? core.exports.trimmed : core.exports.weightedMedian;
  return wasFinite(combine(dtype, address, table, count, out, propagate));
}

function checkCount(k: number): void {
  if (k <= ORDER_MAX_INPUTS) return;
  throw new AggregationError(
    'strategy-too-many-inputs',
    `medians and trimmed means take up to ${ORDER_MAX_INPUTS} updates, there are ${k}: aggregate in branches`,
  );
}
