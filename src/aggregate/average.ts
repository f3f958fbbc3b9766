import type { ByteSink, ByteSource } from '../tensor/bytes.ts';
import type { TensorLayout } from '../tensor/layout.ts';
import { checkTensor, type ModelUpdate, type Tensor } from '../tensor/tensor.ts';
import { Aggregation, type AggregationOptions } from './aggregation.ts';
import { bareOutput } from './runner.ts';

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
  // Updates of one layout share it, and are read by one plan.
  const layouts = new Map<string, ReturnType<typeof inputOf>['layout']>();
  const inputs = updates.map((update, i) => {
    const { layout, ...input } = inputOf(update, options.leaves?.[i] ?? `update ${i}`);
    const key = JSON.stringify(layout);
    if (!layouts.has(key)) layouts.set(key, layout);
    return { ...input, layout: layouts.get(key)!, weighting: update.weighting };
  });
  const { into, model } = options;
  const lent = new Set(updates.flatMap(({ tensors }) => tensors.map(({ data }) => data.buffer)));
  if (into?.some(({ buffer }) => lent.has(buffer)))
    throw new RangeError('into shares a buffer with an update');
  const aggregation = await Aggregation.open(inputs, {
    ...options,
    model: model && 'tensors' in model ? inputOf(model, 'the model') : model,
  });
  try {
    const encoding = bareOutput(aggregation);
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
  const { offsets, visit } = joinParts(update.tensors);
  return {
    leaf,
    source: {
      name: leaf,
      byteLength: offsets[update.tensors.length]!,
      readInto: (offset, target) => visit(offset, target.byteLength, (part, at) => target.set(part, at)),
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

/** The sink that belongs to `bareOutput`. */
function tensorsSink(tensors: readonly Tensor[]): ByteSink {
  const { visit } = joinParts(tensors);
  return {
    write(offset, bytes) {
      visit(offset, bytes.byteLength, (part, at) => part.set(bytes.subarray(at, at + part.byteLength)));
    },
    commit() {},
    discard() {},
  };
}

/** The elements of tensors, one behind the other. */
function joinParts(tensors: readonly Pick<Tensor, 'data'>[]) {
  const offsets = [0];
  for (const { data } of tensors) offsets.push(offsets[offsets.length - 1]! + data.byteLength);
  return {
    /** Where each begins, and where the last one ends. */
    offsets,
    /** Shows bytes from `offset` on part by part, with their place in what was asked for. Gives how many there were. */
    visit(offset: number, byteLength: number, show: (part: Uint8Array, at: number) => void): number {
      let done = 0;
      for (let i = findPart(offsets, offset); done < byteLength && i < tensors.length; i++) {
        const from = offset + done - offsets[i]!;
        const part = tensors[i]!.data.subarray(from, from + byteLength - done);
        show(part, done);
        done += part.byteLength;
      }
      return done;
    },
  };
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
