import type { ByteSink } from '../tensor/bytes.ts';
import { checkTensor, type ModelUpdate, type Tensor } from '../tensor/tensor.ts';
import { encodeWeights } from './encode.ts';
import type { Encoding, Literal, WeightsSpec } from './encoding.ts';

export interface WriteOptions {
  /** 'npy-object' unless given. 'npy' holds exactly one tensor, and no weighting. */
  readonly format?: WeightsSpec['format'] | undefined;
  /** How to store the weighting; integral numbers as int unless given. */
  readonly weightingType?: WeightsSpec['weightingType'];
  /** Put the elements of an 'npy-object' at multiples of 64 bytes, so that views of the file need no copy. */
  readonly align?: WeightsSpec['align'];
  /** Deflate the arrays of an 'npz', as numpy.savez_compressed does. Weights shrink by little. */
  readonly compress?: boolean | undefined;
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
  const { format = 'npy-object', weightingType, align, compress = false } = options;
  if (compress && format !== 'npz') throw new RangeError(`only npz can be compressed, not ${format}`);
  const { weighting } = update;
  const tensors = update.tensors.map((tensor) => ({
    ...tensor,
    onlyByte: tensor.data.byteLength === 1 ? tensor.data[0] : undefined,
  }));
  const encoding = await encodeWeights({ format, weighting, weightingType, tensors, align });
  const pieces = await piecesOf(encoding, tensors);
  const file = compress
    ? await (await import('./deflate.ts')).deflateArchive(pieces, encoding.byteLength)
    : { ...encoding, literals: pieces };
  const sink = typeof open === 'function' ? await open(file.byteLength) : open;
  try {
    for (const { offset, bytes } of file.literals) await sink.write(offset, bytes);
    await sink.commit();
  } catch (error) {
    await sink.discard();
    throw error;
  }
  return file.byteLength;
}

/** All bytes of a file. */
async function piecesOf(
  { literals, payloads, checksums }: Encoding,
  tensors: readonly Tensor[],
): Promise<Literal[]> {
  const elements = payloads.map(({ offset, byteLength }, i) => ({
    offset,
    bytes: tensors[i]!.data.subarray(0, byteLength), // nothing of a byte that is shared
  }));
  if (checksums !== undefined) {
    const { crc32 } = await import('./crc32.ts'); // of use for archives only
    for (const [i, { bytes }] of elements.entries()) checksums.seal(i, crc32(bytes, checksums.seeds[i]));
  }
  return [...literals, ...elements].sort((a, b) => a.offset - b.offset);
}
