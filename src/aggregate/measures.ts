/** Opens the passes that strategies ask for: kernels that measure chunks, in the arena of one core. */
import type { Core } from '../core/core.ts';
import {
  pairwiseDistancesInto,
  squaredDifferencesInto,
  squaredNormsInto,
  squaredToCentreInto,
} from '../core/distances.ts';
import type { FoldExports, StrategyExports } from '../core/exports.ts';
import type { MeasureSpec } from './strategies/strategy.ts';

/** Measures chunks of inputs: the sums of what the pass asks for. */
export interface Measure {
  /** Sums of a chunk. */
  readonly width: number;
  /**
   * @param dtype code of the element type
   * @param table address of K addresses (uint32) of little-endian elements
   * @param count elements, at most a chunk
   * @param model address of the global model's elements, 0 where there is none
   * @param out address of `width` binary64 numbers
   */
  measure(dtype: number, table: number, count: number, model: number, out: number): void;
}

/** Sums of a chunk of k inputs. */
export function measureWidth({ kind }: MeasureSpec, k: number): number {
  return kind === 'pairwise-distances' ? (k * (k - 1)) / 2 : k;
}

/** Bytes of the arena that `openMeasure` takes for k inputs. */
export function measureArenaBytes({ kind }: MeasureSpec, k: number): number {
  return kind === 'squared-to-centre' ? 8 * k + 16 : 0;
}

/** Opens the kernel of a pass for the inputs with these weightings, none of them zero. */
export function openMeasure(
  spec: MeasureSpec,
  ofStage: Core<FoldExports>,
  weightings: readonly number[],
): Measure {
  const core = ofStage as Core<StrategyExports>; // openKernelCore gives this module where a stage measures
  const k = weightings.length;
  const width = measureWidth(spec, k);
  switch (spec.kind) {
    case 'squared-norms':
      return {
        width,
        measure: (dtype, table, count, _, out) => squaredNormsInto(core, dtype, table, k, count, out),
      };
    case 'squared-differences':
      return {
        width,
        measure: (dtype, table, count, model, out) =>
          squaredDifferencesInto(core, dtype, table, k, count, model, out),
      };
    case 'squared-to-centre': {
      const given = core.take(8 * k);
      const view = core.view(given, 8 * k);
      for (const [j, weighting] of weightings.entries()) view.setFloat64(8 * j, weighting, true);
      return {
        width,
        measure: (dtype, table, count, _, out) =>
          squaredToCentreInto(core, dtype, table, k, count, given, out),
      };
    }
    case 'pairwise-distances':
      return {
        width,
        measure: (dtype, table, count, _, out) => pairwiseDistancesInto(core, dtype, table, k, count, out),
      };
  }
}
