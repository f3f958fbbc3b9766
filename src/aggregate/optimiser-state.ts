/**
 * The state of a server optimiser as a file: safetensors with a tensor for each slot of each float tensor of the model
 * (`m.<name>`, `v.<name>`; steps.ts; complex128, which safetensors does not have, as float64 of shape [shape, 2]) and the
 * metadata
 *
 *     cambium      "optimiser-state"
 *     version      "1"
 *     strategy     name of the rule
 *     parameters   its step as JSON
 *     layout       CRC-32 of the model's tensors (names, dtypes, shapes)
 *     round        steps that the state has seen, from 1
 *     model        SHA-256 of the model file that these steps led to, lower-case hexadecimal
 *
 * A state is of use with that very model only, so `model` is compared before a step.
 */
import { AggregationError } from '../errors.ts';
import { crc32 } from '../formats/crc32.ts';
import type { Encoding, TensorSpec } from '../formats/encoding.ts';
import { encodeSafetensors, KIND, readSafetensors } from '../formats/safetensors.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { itemSize } from '../tensor/dtypes.ts';
import { elementCount } from '../tensor/layout.ts';
import type { StateInput } from './plan.ts';
import { stateSlots, stateTensors } from './steps.ts';
import type { StepSpec } from './strategies/strategy.ts';

const STATE = 'optimiser-state';
const VERSION = '1';

/** What a state belongs to. */
export interface StateOwner {
  /** Name of the rule. */
  readonly strategy: string;
  readonly step: StepSpec;
  /** Of the model. */
  readonly tensors: readonly TensorSpec[];
}

/** A state as it is in a file. */
export interface StoredState {
  /** Steps that it has seen. */
  readonly round: number;
  /** SHA-256 of the model that it belongs to. */
  readonly model: string;
  /** Where each tensor of `stateTensors` begins. */
  readonly byteOffsets: readonly number[];
}

/** Stands for a digest that is not known yet. */
const NO_DIGEST = '0'.repeat(64);

/**
 * The file of a state but for its elements.
 *
 * @param model SHA-256 of the model that it will belong to. It is known last; without it everything stands where it will
 */
export function encodeState(owner: StateOwner, round: number, model = NO_DIGEST): Encoding {
  const tensors = stateTensors(owner.step, owner.tensors).map(storedSpec);
  return encodeSafetensors(
    { weighting: null, tensors },
    { [KIND]: STATE, version: VERSION, ...describe(owner), round: String(round), model },
  );
}

/**
 * Reads and checks the header of a state.
 *
 * @throws AggregationError `state-mismatch` when it is no state, or one of another rule, other parameters or another
 *   layout, naming the tensor; FormatError `st-…`
 */
export async function readState(source: ByteSource, owner: StateOwner): Promise<StoredState> {
  const { layout, metadata } = await readSafetensors(source);
  const refuse = (what: string, tensor?: string): never => {
    throw new AggregationError('state-mismatch', `${source.name}: ${what}`, { tensor });
  };
  if (metadata.get(KIND) !== STATE) refuse('not the state of an optimiser');
  if (metadata.get('version') !== VERSION) {
    refuse(`a state of version ${metadata.get('version')}; ${VERSION} is read`);
  }
  const expected = describe(owner);
  for (const key of ['strategy', 'parameters'] as const) {
    if (metadata.get(key) !== expected[key]) {
      refuse(`the state has ${key} ${metadata.get(key)}, the rule has ${expected[key]}`);
    }
  }
  const stored = new Map(layout.tensors.map((tensor) => [tensor.name, tensor]));
  const byteOffsets = stateTensors(owner.step, owner.tensors).map((tensor) => {
    const { name, dtype, shape } = storedSpec(tensor);
    const found = stored.get(name);
    if (found === undefined) return refuse(`the state has no ${name}`, String(name));
    if (found.dtype !== dtype || String(found.shape) !== String(shape) || found.byteOffset === null) {
      return refuse(
        `${name} is ${found.dtype} (${found.shape}), the model needs ${dtype} (${shape})`,
        String(name),
      );
    }
    return found.byteOffset;
  });
  if (stored.size !== byteOffsets.length || metadata.get('layout') !== expected.layout) {
    refuse('the state is of a model with other tensors');
  }
  const round = Number(metadata.get('round'));
  const model = metadata.get('model') ?? '';
  if (!Number.isSafeInteger(round) || round < 1 || !/^[0-9a-f]{64}$/.test(model)) {
    refuse('round or model of the metadata are not what they should be');
  }
  return { round, model, byteOffsets };
}

/** The state in a file as inputs of an aggregation, slot by slot. @param byteOffsets where each tensor of it begins */
export function stateInputs(
  { step, tensors }: StateOwner,
  source: ByteSource,
  byteOffsets: readonly number[],
): readonly StateInput[] {
  const stored = stateTensors(step, tensors).map(({ name, dtype, shape, slot, tensor }, i) => ({
    slot: slot.name,
    tensor,
    layout: {
      name,
      dtype,
      shape,
      order: 'C' as const,
      byteOrder: 'little' as const,
      byteOffset: byteOffsets[i]!, // one for each of them
      byteLength: elementCount(shape) * itemSize(dtype),
    },
  }));
  return stateSlots(step).map((slot) => ({
    source,
    tensors: tensors.map((_, t) => stored.find((one) => one.slot === slot.name && one.tensor === t)?.layout),
  }));
}

/** How a tensor of a state is written: its bytes stay what they are. */
function storedSpec({ name, dtype, shape }: TensorSpec): TensorSpec {
  return dtype === 'complex128' ? { name, dtype: 'float64', shape: [...shape, 2] } : { name, dtype, shape };
}

function describe({ strategy, step, tensors }: StateOwner) {
  const plain = JSON.stringify(tensors.map(({ name, dtype, shape }) => [name, dtype, shape]));
  return {
    strategy,
    parameters: JSON.stringify(Object.fromEntries(Object.entries(step).sort())),
    layout: crc32(new TextEncoder().encode(plain)).toString(16).padStart(8, '0'),
  };
}
