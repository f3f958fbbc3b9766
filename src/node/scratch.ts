import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';
import type { Scratch, ScratchFactory } from '../tensor/bytes.ts';
import { descriptorSource, guardFileSync, writeToDescriptor } from './files.ts';

/**
 * Scratch room in files of a folder, synchronous, for workers. A file loses its name as soon as it is open, so that
 * nothing stays behind, however the process ends.
 *
 * @throws FileError when the folder cannot be written or the disk is full
 */
export function fileScratch(folder: string): ScratchFactory {
  return (byteLength): Scratch => {
    const path = join(folder, `.cambium-scratch.${randomBytes(6).toString('hex')}`);
    const descriptor = guardFileSync(path, 'write', () => fs.openSync(path, 'wx+', 0o600));
    fs.rmSync(path);
    return {
      ...descriptorSource(descriptor, path, byteLength),
      handle: { kind: 'file', name: path, byteLength, descriptor },
      write: (offset, bytes) => writeToDescriptor(descriptor, path, offset, bytes),
      close: () => fs.closeSync(descriptor),
    };
  };
}
