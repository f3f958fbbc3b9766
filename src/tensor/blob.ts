import { FileError } from '../errors.ts';
import type { ByteSource } from './bytes.ts';

/**
 * A Blob or File as a byte source; nothing is read before it is asked for. Reading throws FileError `file-changed` where the
 * browser refuses it: a File was changed or removed since it was chosen.
 */
export function blobSource(blob: Blob, name = 'name' in blob ? String(blob.name) : 'blob'): ByteSource {
  return {
    name,
    byteLength: blob.size,
    handle: { kind: 'blob', name, blob },
    async readInto(offset, target) {
      const part = await bytesOf(blob.slice(offset, offset + target.byteLength), name);
      const { byteLength } = part;
      target.set(new Uint8Array(part));
      // Gives the memory back now: a collector that sees small objects only would let hundreds of megabytes pile up.
      (part as { transfer?: (length: number) => void }).transfer?.(0);
      return byteLength;
    },
    close() {},
  };
}

async function bytesOf(blob: Blob, name: string): Promise<ArrayBuffer> {
  try {
    return await blob.arrayBuffer();
  } catch (cause) {
    throw unreadable(name, cause);
  }
}

/** For a Blob that refuses to be read: a file that was chosen and then changed or removed; hosts tell nothing else. */
export function unreadable(name: string, cause: unknown): FileError {
  return new FileError('file-changed', `${name} cannot be read any more: ${String(cause)}`, name, { cause });
}
