/** What the steps of strategies keep from round to round: the slots of their state and its tensors. */
import type { TensorSpec } from '../formats/encoding.ts';
import type { DType } from '../tensor/dtypes.ts';
import type { StepSpec, Strategy } from './strategies/strategy.ts';

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

/** Whether a rule keeps a state from round to round. */
export function keepsState({ step }: Pick<Strategy, 'step'>): boolean {
  return step !== undefined && stateSlots(step).length > 0;
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
      const kept = stateDType(dtype);
      if (kept === null) return [];
      return [{ name: `${slot.name}.${isNamed ? name : tensor}`, dtype: kept, shape, slot, tensor }];
    }),
  );
}

/** In what m and v of a tensor are kept; null where steps leave the average as it is. */
export function stateDType(dtype: DType): DType | null {
  switch (dtype) {
    case 'float16':
    case 'bfloat16':
    case 'float32':
      return 'float32';
    case 'float64':
    case 'complex64':
    case 'complex128':
      return dtype;
    default:
      return null;
  }
}
