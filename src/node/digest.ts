import { createHash } from 'node:crypto';
import type { ByteSource } from '../tensor/bytes.ts';

/** Bytes that are hashed at a time: they stay in the processor's cache between the file and the hash. */
const HASH_BYTES = 256 << 10;

/** SHA-256 of the first `byteLength` bytes of a source, in lower-case hexadecimal. Throws what reading throws. */
export async function digestOf(source: Pick<ByteSource, 'readInto'>, byteLength: number): Promise<string> {
  const hash = createHash('sha256');
  const buffer = new Uint8Array(Math.min(HASH_BYTES, byteLength));
  for (let at = 0; at < byteLength; at += buffer.byteLength) {
    const read = await source.readInto(at, buffer.subarray(0, byteLength - at));
    hash.update(buffer.subarray(0, read));
  }
  return hash.digest('hex');
}
