import type { ReadOptions } from '../formats/npy.ts';
import { openWeights } from '../formats/open.ts';
import { prepareWeights, type UnpackOptions, type VerifyOptions, type Weights } from '../formats/weights.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { nodeCrc32, nodeInflate } from './inflate.ts';
import { fileScratch } from './scratch.ts';

/** Archives are unpacked into files of a folder, which lose their names at once, by what Node does fastest. */
export function unpackingIn(folder: string, signal?: VerifyOptions['signal']): UnpackOptions {
  return { scratch: fileScratch(folder), inflate: nodeInflate, crc32: nodeCrc32, signal };
}

/**
 * The weights in a file that a job has opened, ready to be read. Whatever has to be closed when the job ends is added to
 * `opened`, the file too.
 *
 * @throws FormatError as `openWeights` and `prepareWeights`; FileError
 */
export async function openPrepared(
  file: ByteSource,
  unpacking: UnpackOptions,
  opened: ByteSource[],
  options?: ReadOptions,
): Promise<Weights> {
  opened.push(file);
  return prepareOpened(await openWeights(file, options), unpacking, opened);
}

/** The same for weights whose file is among `opened` already. */
export async function prepareOpened(
  weights: Weights,
  unpacking: UnpackOptions,
  opened: ByteSource[],
): Promise<Weights> {
  const prepared = await prepareWeights(weights, unpacking);
  if (prepared.source !== weights.source) opened.push(prepared.source);
  return prepared;
}
