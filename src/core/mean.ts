import {
  DTYPE_VOID16,
  MEAN_DTYPE_UNSUPPORTED,
  MEAN_NO_INPUT,
  MEAN_NON_FINITE,
  MEAN_OK,
  MEAN_WEIGHTING_INFINITE,
  MEAN_WEIGHTING_NAN,
  MEAN_WEIGHTING_NEGATIVE,
  MEAN_WEIGHTING_RANGE,
  MEAN_WEIGHTING_TOTAL,
} from '../../assembly/abi.ts';
import { AggregationError, InternalError } from '../errors.ts';
import type { Core } from './core.ts';
import type { FoldExports } from './exports.ts';

/** Bytes that `Core.take` may add for alignment. */
const SLACK = 16;

/** Weightings prepared for exact means: address of the plan in the arena of one core. */
export interface MeanPlan {
  readonly address: number;
  /** Nearest binary64 of the exact sum of the weightings. */
  readonly total: number;
}

/** Whether the mean is there for the dtype with this code: for all numbers, and for bool as 0 and 1. */
export function supportsMean(dtype: number): boolean {
  return dtype !== DTYPE_VOID16;
}

/** Bytes of the arena that `planMean` takes for k weightings. */
export function meanArenaBytes(k: number): number {
  // Written out because it is asked for before there is a core: see meanPlanBytes in assembly/mean-plan.ts.
  return 96 + 56 * k + 8 * k + 2 * SLACK;
}

/**
 * Prepares the weightings of the inputs, none of them zero. The plan stays in the arena of `core`.
 *
 * @throws AggregationError `average-nan-weight`, `average-inf-weight`, `average-negative-weight`,
 *   `average-weight-range` (outside [2^-64, 2^53]), `average-sum-overflow` (total above 2^53 - 1), `average-no-input`
 */
export function planMean(core: Core<FoldExports>, weightings: readonly number[]): MeanPlan {
  const k = weightings.length;
  const address = core.take(core.exports.meanPlanBytes(k));
  withWeightings(core, weightings, address, (given) => core.exports.meanPlan(given, k, address));
  return { address, total: core.exports.meanTotal(address) };
}

/** Hands weightings to a kernel that makes a plan of them, and turns its refusal into an error. */
export function withWeightings(
  core: Core<FoldExports>,
  weightings: readonly number[],
  plan: number,
  prepare: (address: number) => number,
): void {
  const status = core.scope(() => {
    const given = core.take(8 * weightings.length);
    const view = core.view(given, 8 * weightings.length);
    for (const [i, weighting] of weightings.entries()) view.setFloat64(8 * i, weighting, true);
    return prepare(given);
  });
  if (status !== MEAN_OK) refuse(status, weightings, core.view(plan, 4).getUint32(0, true));
}

/**
 * The exact weighted mean of `count` elements, rounded once to the dtype, ties to even.
 *
 * @param dtype code of the element type
 * @param table address of K addresses (uint32) of little-endian elements, in the order of the plan's weightings
 * @param out address of the result, which overlaps no input
 * @param propagate let NaN and infinity go into the result as IEEE 754 has it, NaN in canonical form
 * @returns false when NaN or infinity was met and `propagate` is false: the result is undefined then
 * @throws AggregationError `aggregate-dtype-unsupported`
 */
export function meanInto(
  core: Core<FoldExports>,
  plan: MeanPlan,
  dtype: number,
  table: number,
  count: number,
  out: number,
  propagate: boolean,
): boolean {
  return wasFinite(core.exports.mean(dtype, plan.address, table, count, out, propagate));
}

/** What a kernel that folds answered: false for NaN or infinity; whatever else is wrong becomes an error. */
export function wasFinite(status: number): boolean {
  if (status === MEAN_NON_FINITE) return false;
  if (status !== MEAN_OK) refuse(status, [], 0);
  return true;
}

/** Statuses that become errors; of those, the ones that blame one weighting say which. */
const REFUSALS: Readonly<Record<number, { code: string; says: (weighting: number) => string }>> = {
  [MEAN_WEIGHTING_NAN]: { code: 'average-nan-weight', says: () => 'a weighting is NaN' },
  [MEAN_WEIGHTING_INFINITE]: {
    code: 'average-inf-weight',
    says: (weighting) => `a weighting is ${weighting}, it must be finite`,
  },
  [MEAN_WEIGHTING_NEGATIVE]: {
    code: 'average-negative-weight',
    says: (weighting) => `a weighting is ${weighting}, it must not be negative`,
  },
  [MEAN_WEIGHTING_RANGE]: {
    code: 'average-weight-range',
    says: (weighting) => `a weighting is ${weighting}, it must lie within 2^-64 and 2^53`,
  },
  [MEAN_WEIGHTING_TOTAL]: {
    code: 'average-sum-overflow',
    says: () => 'the weightings add up to more than 2^53 - 1',
  },
  [MEAN_DTYPE_UNSUPPORTED]: {
    code: 'aggregate-dtype-unsupported',
    says: () => 'the rule is not there for this dtype',
  },
  [MEAN_NO_INPUT]: { code: 'average-no-input', says: () => 'there is nothing to average' },
};

function refuse(status: number, weightings: readonly number[], position: number): never {
  const refusal = REFUSALS[status];
  if (refusal === undefined) throw new InternalError('internal-status', `a fold answered ${status}`);
  throw new AggregationError(refusal.code, refusal.says(weightings[position] ?? Number.NaN));
}
