/**
 * Updates in fewer bytes: what a leaf sends instead of its weights, and what it keeps for the next round.
 *
 *     p = update − model + residual     each step rounded once to float32
 *     sent = encoded p                  residual' = p − decoded
 *
 * With the residual nothing is lost but time: what was not sent, or was rounded away, is added in the next round (Seide et
 * al., "1-Bit Stochastic Gradient Descent", 2014; Aji and Heafield, "Sparse Communication for Distributed Gradient Descent",
 * 2017; Stich et al., "Sparsified SGD with Memory", 2018). Float32 tensors are encoded, all others are kept as they are.
 */
import { readTensors } from '../formats/read.ts';
import { memoryScratch, memorySink, memorySource } from '../tensor/bytes.ts';
import type { ModelUpdate, Tensor } from '../tensor/tensor.ts';
import { inputOf } from './average.ts';
import type { EncodingForm } from './update-encoder.ts';

export interface EncodeOptions extends EncodingForm {
  /** Send the difference to this global model instead of the weights. */
  readonly differenceTo?: readonly Tensor[] | undefined;
  /** What the round before left over; absent in the first one. */
  readonly residual?: readonly Tensor[] | undefined;
}

export interface EncodedUpdate {
  /** The file. */
  readonly bytes: Uint8Array;
  /** For the next round: as the update's tensors, zeros where nothing was lost. */
  readonly residual: readonly Tensor[];
}

/**
 * Encodes an update in memory as a file that `openWeights` and aggregations read. Without `quantise` and `topK` elements
 * stay as they are. Files of any size are encoded by the job `convert` (`startJobs`).
 *
 * @throws AggregationError `non-finite` for NaN and infinity, also where two bytes cannot hold an element; those of
 *   `subtractModel`; RangeError for options that make no sense
 */
export async function encodeUpdate(update: ModelUpdate, options: EncodeOptions = {}): Promise<EncodedUpdate> {
  // Loaded when needed, as readers are (open.ts): who lives on .npy files never fetches it.
  const { UpdateEncoder } = await import('./update-encoder.ts');
  const { differenceTo, residual, ...form } = options;
  const encoder = await UpdateEncoder.open(
    {
      update: { ...inputOf({ tensors: update.tensors }, 'the update'), weighting: update.weighting },
      differenceTo: differenceTo && inputOf({ tensors: differenceTo }, 'the model'),
      residual: residual && inputOf({ tensors: residual }, 'the residual'),
    },
    form,
    memoryScratch,
  );
  const sink = memorySink(encoder.encoding.byteLength);
  let end = 0;
  const byteOffsets = update.tensors.map(({ data }) => {
    end += data.byteLength;
    return end - data.byteLength;
  });
  const rest = memorySink(end);
  await encoder.run(sink, encoder.encoding, { residual: { sink: rest, byteOffsets } });
  return {
    bytes: sink.bytes,
    residual: update.tensors.map((tensor, i) => ({
      ...tensor,
      data: rest.bytes.slice(byteOffsets[i], byteOffsets[i]! + tensor.data.byteLength),
    })),
  };
}

/**
 * Decodes an encoded update, or reads any other weight file, into memory.
 *
 * @returns the update, and whether its elements are differences to a global model
 * @throws FormatError as `readTensors`, `encoded-…` among them
 */
export async function decodeUpdate(
  bytes: Uint8Array,
): Promise<ModelUpdate & { readonly isDifference: boolean }> {
  const { weighting, tensors, layout } = await readTensors(memorySource(bytes, 'update'));
  return { weighting, tensors, isDifference: layout.isDifference === true };
}
