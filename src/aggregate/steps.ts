/** Opens the steps that strategies name: from the global model to what was combined, with a state from round to round. */
import type { Core } from '../core/core.ts';
import type { FoldExports, StrategyExports } from '../core/exports.ts';
import { prepareStep, STEP_ARENA_BYTES, stateDType, stepInto } from '../core/step.ts';
import type { TensorSpec } from '../formats/encoding.ts';
import { DTYPES, dtypeOfCode } from '../tensor/dtypes.ts';
import type { StepSpec } from './strategies/strategy.ts';

/** Takes steps of blocks in the arena of one core. */
export interface Step {
  /**
   * @param dtype code of the element type
   * @param average address of what was combined; becomes the new model
   * @param model address of the global model's elements
   * @param slots addresses of the state's elements, in the order of `stateSlots`; they become those of the next round
   * @returns false when a result is NaN or infinite
   */
  take(dtype: number, average: number, model: number, slots: readonly number[], count: number): boolean;
}

/** Bytes of the arena that `openStep` takes. */
export const OPEN_STEP_ARENA_BYTES = STEP_ARENA_BYTES;

/**
 * @param core of the second module, which `openKernelCore` gives where there is a step
 * @param rate what the difference to the global model is multiplied by, as the rule has settled
 */
export function openStep(spec: StepSpec, core: Core<FoldExports>, rate: number): Step {
  const { kind, ...parameters } = spec;
  // At the rate 1 the average is where the step ends; by way of a difference it would be rounded.
  if (kind === 'rate' && rate === 1 && spec.differences !== true) return { take: () => true };
  const strategies = core as Core<StrategyExports>; // see above
  const step = prepareStep(strategies, kind, { ...parameters, scale: rate });
  return {
    take: (dtype, average, model, [first = 0, second = 0], count) =>
      stepInto(strategies, step, dtype, average, model, first, second, count),
  };
}

/** A part of a state: a number for each parameter. */
export interface StateSlot {
  readonly name: 'm' | 'v';
  /** What it is before the first round. */
  readonly initial: number;
}

/** What a step keeps from round to round. */
export function stateSlots(spec: StepSpec): readonly StateSlot[] {
  switch (spec.kind) {
    case 'rate':
      return [];
    case 'momentum':
      return [{ name: 'm', initial: 0 }];
    default:
      return [
        { name: 'm', initial: 0 },
        { name: 'v', initial: spec.tau * spec.tau },
      ];
  }
}

/** A tensor of a state. */
export interface StateTensor extends TensorSpec {
  readonly slot: StateSlot;
  /** Position of the model's tensor that it belongs to. */
  readonly tensor: number;
}

/**
 * The tensors of a state, slot by slot: `m.<name>`, `v.<name>`, by positions (`m.0`) where a tensor has no name. Tensors of
 * integers and bool have none.
 */
export function stateTensors(spec: StepSpec, tensors: readonly TensorSpec[]): readonly StateTensor[] {
  const isNamed = tensors.every(({ name }) => name !== null);
  return stateSlots(spec).flatMap((slot) =>
    tensors.flatMap(({ name, dtype, shape }, tensor) => {
      const code = stateDType(DTYPES[dtype].code);
      if (code === null) return [];
      return [
        { name: `${slot.name}.${isNamed ? name : tensor}`, dtype: dtypeOfCode(code), shape, slot, tensor },
      ];
    }),
  );
}
