import type { UnpackOptions, VerifyOptions } from '../formats/weights.ts';
import { nodeCrc32, nodeInflate } from './inflate.ts';
import { fileScratch } from './scratch.ts';

/** Archives are unpacked into files of a folder, which lose their names at once, by what Node does fastest. */
export function unpackingIn(folder: string, signal?: VerifyOptions['signal']): UnpackOptions {
  return { scratch: fileScratch(folder), inflate: nodeInflate, crc32: nodeCrc32, signal };
}
