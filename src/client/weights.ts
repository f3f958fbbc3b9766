import { MAX_WEIGHTING, MIN_WEIGHTING } from '../aggregate/weightings.ts';
import { AggregationError, isCambiumError } from '../errors.ts';
import { openWeights } from '../formats/open.ts';
import { writeWeights } from '../formats/write.ts';
import { type ByteSource, memorySink } from '../tensor/bytes.ts';
import type { Layout } from '../tensor/layout.ts';
import type { ModelUpdate } from '../tensor/tensor.ts';

/**
 * Checks that a source is an update that a server can accept, as far as that can be seen without reading the elements:
 * it parses, has at least one tensor, and its weighting is above zero and within [2^-64, 2^53].
 *
 * @param readSum reads exact partial sums, which servers below others send; without, they are no weights
 * @throws FormatError when it does not parse; AggregationError `layout-empty`, `weighting-missing`, `weighting-nan`,
 *   `weighting-infinite`, `weighting-zero`, `weighting-negative`, `weighting-range`: the codes of the server
 */
export async function validateWeights(
  source: ByteSource,
  readSum?: (source: ByteSource) => Promise<Layout>,
): Promise<Layout> {
  const layout = await openWeights(source).then(
    (weights) => weights.layout,
    (error: unknown) => {
      if (readSum && isCambiumError(error) && error.code === 'weights-partial-sum') return readSum(source);
      throw error;
    },
  );
  if (layout.tensors.length === 0) {
    throw new AggregationError('layout-empty', `${source.name}: the update has no tensors`);
  }
  const fault = weightingFault(layout.weighting);
  if (fault !== undefined) throw new AggregationError(fault[0], `${source.name}: ${fault[1]}`);
  return layout;
}

function weightingFault(weighting: number | null): readonly [code: string, sentence: string] | undefined {
  if (weighting === null) {
    return ['weighting-missing', 'the file has no weighting: upload [weighting, [arrays]]'];
  }
  if (Number.isNaN(weighting)) return ['weighting-nan', 'the weighting is NaN'];
  if (!Number.isFinite(weighting)) {
    return ['weighting-infinite', `the weighting is ${weighting}, it must be finite`];
  }
  if (weighting === 0) return ['weighting-zero', 'the weighting is 0: the update would not count'];
  if (weighting < 0) return ['weighting-negative', `the weighting is ${weighting}, it must be positive`];
  if (weighting < MIN_WEIGHTING || weighting > MAX_WEIGHTING) {
    return ['weighting-range', `the weighting is ${weighting}, it must lie within 2^-64 and 2^53`];
  }
  return undefined;
}

/** Formats of updates that a generation of servers may insist on. */
export type UpdateFormat = 'npy-object' | 'npz';

/** An update as the bytes of a weight file. Throws RangeError when a tensor's bytes do not fit its shape. */
export async function encodeUpdate(
  update: ModelUpdate,
  format: UpdateFormat = 'npy-object',
): Promise<Uint8Array> {
  const fault = weightingFault(update.weighting);
  if (fault !== undefined) throw new AggregationError(fault[0], fault[1]);
  let sink = memorySink(0);
  await writeWeights((byteLength) => (sink = memorySink(byteLength)), update, { format });
  return sink.bytes;
}
