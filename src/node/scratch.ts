import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';

import type { Scratch, ScratchFactory } from '../tensor/bytes.ts';
import { fileError } from './file-errors.ts';

/**
 * Scratch room in files of a folder, synchronous, for workers. A file loses its name as soon as it is open, so that
 * nothing stays behind, however the process ends.
 *
 * @throws FileError when the folder cannot be written or the disk is full
 */
export function fileScratch(folder: string): ScratchFactory {
  return (byteLength): Scratch => {
    const path = join(folder, `.cambium-scratch.${randomBytes(6).toString('hex')}`);
    const guard = <T>(work: () => T): T => {
      try {
        return work();
      } catch (error) {
        throw fileError(error, path, 'write');
      }
    };
    const descriptor = guard(() => fs.openSync(path, 'wx+', 0o600));
    fs.rmSync(path);
    return {
      name: path,
      byteLength,
      handle: { kind: 'file', name: path, byteLength, descriptor },
      readInto: (offset, target) =>
        guard(() => fs.readSync(descriptor, target, 0, target.byteLength, offset)),
      write: (offset, bytes) =>
        guard(() => {
          for (let done = 0; done < bytes.byteLength; ) {
            done += fs.writeSync(descriptor, bytes, done, bytes.byteLength - done, offset + done);
          }
        }),
      close: () => fs.closeSync(descriptor),
    };
  };
}
