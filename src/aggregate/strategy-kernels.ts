/** Kernels of the second module: order statistics, steps and the passes that measure. */
import type { Core } from '../core/core.ts';
import type { FoldExports, StrategyExports } from '../core/exports.ts';
import {
  type OrderPlan,
  orderArenaBytes,
  orderInto,
  planTrimmed,
  planWeightedMedian,
} from '../core/order.ts';
import { prepareStep, STEP_ARENA_BYTES, stepInto } from '../core/step.ts';
import { addInto } from '../core/updates.ts';
import { type Kernels, type Needs, type PreparedCombine, type Step, simpleCombine } from './kernels.ts';
import { measureArenaBytes, openMeasure } from './measures.ts';
import type { CombineSpec, StepSpec } from './strategies/strategy.ts';
import { trimmedInputs } from './strategies/trimmed-mean.ts';

/** The kernels of a stage. */
export function strategyKernels(needs: Needs, weightings: readonly number[]): Kernels {
  switch (needs.kind) {
    case 'measure':
      return {
        arenaBytes: measureArenaBytes(needs.measure, weightings.length),
        open: (core) => ({
          combine: null,
          measure: openMeasure(needs.measure, core, weightings),
          step: null,
        }),
      };
    case 'fold': {
      const { step } = needs;
      const combine = prepareOrder(needs.combine, weightings) ?? simpleCombine(needs.combine, weightings);
      return {
        arenaBytes: combine.arenaBytes + (step === null ? 0 : STEP_ARENA_BYTES),
        open: (core) => ({
          combine: combine.open(core),
          measure: null,
          step: step === null ? null : openStep(step.spec, core, step.rate),
        }),
      };
    }
    case 'scan':
      return { arenaBytes: 0, open: () => ({ combine: null, measure: null, step: null }) };
  }
}

/** Null for what is no order statistic. */
function prepareOrder(combine: CombineSpec, weightings: readonly number[]): PreparedCombine | null {
  const k = weightings.length;
  const prepared = (plan: (core: Core<StrategyExports>) => OrderPlan): PreparedCombine => ({
    arenaBytes: orderArenaBytes(k),
    open(ofStage) {
      const core = ofStage as Core<StrategyExports>; // openKernelCore gave the second module
      const order = plan(core);
      return {
        fold: (dtype, table, count, out, nonFinite) =>
          orderInto(core, order, dtype, table, count, out, nonFinite === 'propagate'),
      };
    },
  });
  switch (combine.kind) {
    case 'median':
      return prepared((core) => planTrimmed(core, k, (k - 1) >> 1));
    case 'weighted-median':
      return prepared((core) => planWeightedMedian(core, weightings));
    case 'trimmed-mean':
      return prepared((core) => planTrimmed(core, k, trimmedInputs(combine.trim, k)));
    default:
      return null;
  }
}

/**
 * Opens a step: from the global model to what was combined, with a state from round to round.
 *
 * @param core of the second module, with STEP_ARENA_BYTES for it
 * @param rate what the difference to the global model is multiplied by, as the rule has settled
 */
export function openStep(spec: StepSpec, core: Core<FoldExports>, rate: number): Step {
  const { kind, ...parameters } = spec;
  // At the rate 1 the average is where the step ends; by way of a difference it would be rounded.
  if (kind === 'rate' && rate === 1 && spec.differences !== true) return { take: () => true };
  const strategies = core as Core<StrategyExports>; // see above
  if (kind === 'rate' && rate === 1) {
    return {
      take: (dtype, average, model, _, count) => addInto(strategies, dtype, average, model, count),
    };
  }
  const step = prepareStep(strategies, kind, { ...parameters, scale: rate });
  return {
    take: (dtype, average, model, [first = 0, second = 0], count) =>
      stepInto(strategies, step, dtype, average, model, first, second, count),
  };
}
