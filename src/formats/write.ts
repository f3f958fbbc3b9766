import type { ByteSink } from '../tensor/bytes.ts';
import { checkTensor, type ModelUpdate } from '../tensor/tensor.ts';
import { crc32 } from './crc32.ts';
import { encodeWeights } from './encode.ts';
import type { WeightsSpec } from './encoding.ts';

export interface WriteOptions {
  /** 'npy-object' unless given. 'npy' holds exactly one tensor, and no weighting. */
  readonly format?: WeightsSpec['format'] | undefined;
  /** How to store the weighting; integral numbers as int unless given. */
  readonly weightingType?: WeightsSpec['weightingType'];
}

/**
 * Writes an update that is in memory. The sink is committed, or discarded when something fails.
 *
 * `open` is told the length of the file before anything is written and gives the sink.
 *
 * @returns the length of the file in bytes
 * @throws RangeError when a tensor's bytes do not fit its shape, or the format cannot hold the update
 */
export async function writeWeights(
  open: ByteSink | ((byteLength: number) => ByteSink | Promise<ByteSink>),
  update: ModelUpdate,
  options: WriteOptions = {},
): Promise<number> {
  for (const tensor of update.tensors) checkTensor(tensor);
  const { byteLength, literals, payloads, checksums } = await encodeWeights({
    format: options.format ?? 'npy-object',
    weighting: update.weighting,
    weightingType: options.weightingType,
    tensors: update.tensors,
  });
  const sink = typeof open === 'function' ? await open(byteLength) : open;
  try {
    for (const [i, { data }] of update.tensors.entries()) {
      checksums?.seal(i, crc32(data, checksums.seeds[i]));
    }
    for (const { offset, bytes } of literals) await sink.write(offset, bytes);
    for (const [i, { offset }] of payloads.entries()) await sink.write(offset, update.tensors[i]!.data);
    await sink.commit();
  } catch (error) {
    await sink.discard();
    throw error;
  }
  return byteLength;
}
