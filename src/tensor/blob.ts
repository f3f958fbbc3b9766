import type { ByteSource } from './bytes.ts';

/** A Blob or File as a byte source; nothing is read before it is asked for. */
export function blobSource(blob: Blob, name = 'name' in blob ? String(blob.name) : 'blob'): ByteSource {
  return {
    name,
    byteLength: blob.size,
    async readInto(offset, target) {
      const part = await blob.slice(offset, offset + target.byteLength).arrayBuffer();
      target.set(new Uint8Array(part));
      return part.byteLength;
    },
    close() {},
  };
}
