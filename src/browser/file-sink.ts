import { FileError } from '../errors.ts';
import type { ByteSink } from '../tensor/bytes.ts';

/** Our code for what the browser says. */
const CODES: Readonly<Record<string, string>> = {
  NotFoundError: 'file-not-found',
  NotAllowedError: 'file-access',
  NoModificationAllowedError: 'file-access',
  QuotaExceededError: 'disk-full',
};

/**
 * A file that a page may write, of the origin's private file system or one that its user chose. The browser writes beside
 * it and puts what was written in its place on commit.
 *
 * @throws FileError where the browser refuses, or cannot write so
 */
export async function openHandleSink(handle: FileSystemFileHandle): Promise<ByteSink> {
  const { name } = handle;
  const guard = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (cause) {
      const code = CODES[(cause as Error | undefined)?.name ?? ''] ?? 'file-io';
      throw new FileError(code, `cannot write ${name}: ${String(cause)}`, name, { cause });
    }
  };
  const stream = await guard(() => handle.createWritable());
  return {
    write: (position, bytes) =>
      // The core's memory is not shared.
      guard(() => stream.write({ type: 'write', position, data: bytes as Uint8Array<ArrayBuffer> })),
    commit: () => guard(() => stream.close()),
    discard: () => stream.abort().catch(() => {}), // after an error or a commit there is nothing left to abort
  };
}
