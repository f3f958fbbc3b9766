import type { Encoding, TensorSpec } from '../formats/encoding.ts';
import type { ByteSink, ByteSource } from '../tensor/bytes.ts';
import { itemSize } from '../tensor/dtypes.ts';
import { elementCount, type TensorLayout } from '../tensor/layout.ts';
import { checkTensor, type ModelUpdate, type Tensor } from '../tensor/tensor.ts';
import { Aggregation, type AggregationOptions } from './aggregation.ts';

export interface AverageOptions extends Omit<AggregationOptions, 'scratch' | 'model'> {
  /** The global model, for rules that refer to one: its tensors, or what it is read from. */
  readonly model?: Pick<ModelUpdate, 'tensors'> | AggregationOptions['model'];
  /** Ids of the updates for messages and for the canonical order; `update 0`, `update 1`, … unless given. */
  readonly leaves?: readonly string[] | undefined;
  readonly signal?: AbortSignal | undefined;
  /**
   * Takes the elements of the result, an array for each tensor; new ones where there is none. Those of an earlier result spare a
   * loop the time that fresh memory costs. They lie in no buffer of an update; after an error their contents are undefined.
   */
  readonly into?: readonly Uint8Array[] | undefined;
}

/**
 * The weighted mean (or another strategy) of updates in memory. The updates are not changed.
 *
 * Tensors match by name when every update has names, else by position. An update of weighting 0 counts for nothing;
 * where no update has a weighting, each counts 1.
 *
 * @returns the mean with the sum of the weightings
 * @throws RangeError when a tensor's bytes do not fit its shape, or `into` not the result; the errors of `Aggregation.open`
 *   and `Aggregation.run`
 */
export async function average(
  updates: readonly ModelUpdate[],
  options: AverageOptions = {},
): Promise<ModelUpdate> {
  const inputs = updates.map((update, i) => ({
    ...inputOf(update, options.leaves?.[i] ?? `update ${i}`),
    weighting: update.weighting,
  }));
  const { into, model } = options;
  const lent = new Set(updates.flatMap(({ tensors }) => tensors.map(({ data }) => data.buffer)));
  if (into?.some(({ buffer }) => lent.has(buffer)))
    throw new RangeError('into shares a buffer with an update');
  const aggregation = await Aggregation.open(inputs, {
    ...options,
    model: model && 'tensors' in model ? inputOf(model, 'the model') : model,
  });
  try {
    const encoding = bareEncoding(aggregation.tensors);
    const tensors = aggregation.tensors.map((spec, i) => {
      return { ...spec, data: into?.[i] ?? new Uint8Array(encoding.payloads[i]!.byteLength) };
    });
    for (const tensor of tensors) checkTensor(tensor);
    await aggregation.run(tensorsSink(tensors), encoding, {
      signal: options.signal,
    });
    return { weighting: aggregation.totalWeighting, tensors };
  } finally {
    await aggregation.close();
  }
}

/** An update as an input: its tensors one behind the other, without a copy. Throws RangeError when bytes do not fit a shape. */
export function inputOf(
  update: Pick<ModelUpdate, 'tensors'>,
  leaf: string,
): { leaf: string; source: ByteSource; layout: { tensors: TensorLayout[] } } {
  for (const tensor of update.tensors) checkTensor(tensor);
  const parts = update.tensors.map((tensor) => tensor.data);
  const offsets = offsetsOf(parts.map((part) => part.byteLength));
  return {
    leaf,
    source: {
      name: leaf,
      byteLength: offsets[parts.length]!,
      readInto(offset, target) {
        let done = 0;
        for (let i = findPart(offsets, offset); done < target.byteLength && i < parts.length; i++) {
          const part = parts[i]!.subarray(offset + done - offsets[i]!).subarray(0, target.byteLength - done);
          target.set(part, done);
          done += part.byteLength;
        }
        return done;
      },
      close() {},
    },
    layout: {
      tensors: update.tensors.map(({ name, dtype, shape, data }, i) => ({
        name,
        dtype,
        shape,
        order: 'C',
        byteOrder: 'little',
        byteOffset: offsets[i]!,
        byteLength: data.byteLength,
      })),
    },
  };
}

/** A file of payloads only. */
function bareEncoding(tensors: readonly TensorSpec[]): Encoding {
  const lengths = tensors.map(({ dtype, shape }) => elementCount(shape) * itemSize(dtype));
  const offsets = offsetsOf(lengths);
  return {
    byteLength: offsets[lengths.length]!,
    literals: [],
    payloads: lengths.map((byteLength, i) => ({ offset: offsets[i]!, byteLength })),
  };
}

/** The sink that belongs to `bareEncoding`. */
function tensorsSink(tensors: readonly Tensor[]): ByteSink {
  const offsets = offsetsOf(tensors.map((tensor) => tensor.data.byteLength));
  return {
    write(offset, bytes) {
      for (let done = 0, i = findPart(offsets, offset); done < bytes.byteLength; i++) {
        const room = tensors[i]!.data.subarray(offset + done - offsets[i]!);
        const part = bytes.subarray(done, done + room.byteLength);
        room.set(part);
        done += part.byteLength;
      }
    },
    commit() {},
    discard() {},
  };
}

/** Where parts begin that lie one behind the other, and where the last one ends. */
function offsetsOf(lengths: readonly number[]): number[] {
  const offsets = [0];
  for (const length of lengths) offsets.push(offsets[offsets.length - 1]! + length);
  return offsets;
}

/** The part that holds the byte at `offset`: the last one that begins at or before it. */
function findPart(offsets: readonly number[], offset: number): number {
  let low = 0;
  let high = offsets.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (offsets[middle]! <= offset) low = middle;
    else high = middle - 1;
  }
  return low;
}
