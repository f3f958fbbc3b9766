/** Opens the passes that strategies ask for: kernels that measure chunks, in the arena of one core. */
import type { Core } from '../core/core.ts';
import {
  pairwiseDistancesInto,
  squaredDifferencesInto,
  squaredNormsInto,
  squaredToCentreInto,
} from '../core/distances.ts';
import type { FoldExports, StrategyExports } from '../core/exports.ts';
import { type Measure, measureWidth } from './kernels.ts';
import type { MeasureSpec } from './strategies/strategy.ts';

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
