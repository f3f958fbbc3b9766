/** Opens what strategies name: kernels over blocks in the arena of one core. */
import { type Core, openCore, openStrategies } from '../core/core.ts';
import type { FoldExports, StrategyExports } from '../core/exports.ts';
import { meanArenaBytes, meanInto, planMean } from '../core/mean.ts';
import {
  type OrderPlan,
  orderArenaBytes,
  orderInto,
  planTrimmed,
  planWeightedMedian,
} from '../core/order.ts';
import { dtypeOfCode, itemSize } from '../tensor/dtypes.ts';
import type { CombineSpec } from './strategies/strategy.ts';
import { trimmedInputs } from './strategies/trimmed-mean.ts';

/** What a stage needs kernels for. */
type Needs =
  | { readonly kind: 'fold'; readonly combine: CombineSpec; readonly step: object | null }
  | { readonly kind: 'measure' }
  | { readonly kind: 'scan' };

/**
 * A core of the module that has the kernels of a stage.
 *
 * @param decodes whether elements are decoded as they are read
 */
export function openKernelCore(
  needs: Needs,
  arenaBytes: number,
  decodes = false,
): Promise<Core<FoldExports>> {
  const isSimple =
    !decodes &&
    (needs.kind === 'scan' ||
      (needs.kind === 'fold' && needs.step === null && IN_CORE.has(needs.combine.kind)));
  return isSimple ? openCore(arenaBytes) : openStrategies(arenaBytes);
}

/** What the first module can do. */
const IN_CORE: ReadonlySet<CombineSpec['kind']> = new Set(['mean', 'copy'] as const);

/** Makes one element out of K elements, prepared for the weightings of one aggregation. */
export interface Combine {
  /**
   * Combines `count` elements of each input.
   *
   * @param dtype code of the element type
   * @param table address of K addresses (uint32) of little-endian elements, in the order of the weightings
   * @param out address of the result, which overlaps no input
   * @returns false when NaN or infinity was met and `nonFinite` is `reject`: the result is undefined then
   */
  fold(dtype: number, table: number, count: number, out: number, nonFinite: 'reject' | 'propagate'): boolean;
}

/** Bytes of the arena that `openCombine` takes for k inputs. */
export function combineArenaBytes({ kind }: CombineSpec, k: number): number {
  switch (kind) {
    case 'mean':
      return meanArenaBytes(k);
    case 'median':
    case 'weighted-median':
    case 'trimmed-mean':
      return orderArenaBytes(k);
    case 'copy':
      return 0;
  }
}

/** @throws AggregationError when the weightings cannot be used, `average-sum-overflow` among others */
export function openCombine(
  combine: CombineSpec,
  core: Core<FoldExports>,
  weightings: readonly number[],
): Combine {
  const k = weightings.length;
  switch (combine.kind) {
    case 'mean': {
      const plan = planMean(core, weightings);
      return {
        fold: (dtype, table, count, out, nonFinite) =>
          meanInto(core, plan, dtype, table, count, out, nonFinite === 'propagate'),
      };
    }
    case 'median':
      return openOrder(core, (strategies) => planTrimmed(strategies, k, (k - 1) >> 1));
    case 'weighted-median':
      return openOrder(core, (strategies) => planWeightedMedian(strategies, weightings));
    case 'trimmed-mean':
      return openOrder(core, (strategies) => planTrimmed(strategies, k, trimmedInputs(combine.trim, k)));
    case 'copy':
      return {
        fold(dtype, table, count, out) {
          const from = core.view(table, 4).getUint32(0, true);
          const byteLength = count * itemSize(dtypeOfCode(dtype));
          core.bytes(out, byteLength).set(core.bytes(from, byteLength));
          return true;
        },
      };
  }
}

function openOrder(core: Core<FoldExports>, prepare: (core: Core<StrategyExports>) => OrderPlan): Combine {
  const strategies = core as Core<StrategyExports>; // openKernelCore gave the second module
  const plan = prepare(strategies);
  return {
    fold: (dtype, table, count, out, nonFinite) =>
      orderInto(strategies, plan, dtype, table, count, out, nonFinite === 'propagate'),
  };
}
