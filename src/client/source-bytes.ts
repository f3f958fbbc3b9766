/** The bytes of what is uploaded, read in order; a source that has become shorter meanwhile is told by name. */
import { UnavailableError } from '../errors.ts';
import type { ByteSource } from '../tensor/bytes.ts';

/** How much of a source is read at a time: large enough that the cost of a read disappears. */
const BLOCK_BYTES = 256 << 10;

/** The bytes of a source in order. */
export async function* readBlocks(source: ByteSource): AsyncGenerator<Uint8Array, void, void> {
  for (let offset = 0; offset < source.byteLength; ) {
    const block = new Uint8Array(Math.min(BLOCK_BYTES, source.byteLength - offset));
    await readFull(source, offset, block);
    yield block;
    offset += block.byteLength;
  }
}

/**
 * Fills `target` with the bytes from `offset` on.
 *
 * @throws UnavailableError `unavailable-source` when the source has become shorter
 */
export async function readFull(source: ByteSource, offset: number, target: Uint8Array): Promise<void> {
  const read = await source.readInto(offset, target);
  if (read < target.byteLength) {
    throw new UnavailableError(
      'unavailable-source',
      `${source.name}: ${source.byteLength} bytes when opened, now it ends at ${offset + read}; was it changed?`,
    );
  }
}

/** Reads a whole source into memory. */
export async function readAll(source: ByteSource): Promise<Uint8Array> {
  const bytes = new Uint8Array(source.byteLength);
  await readFull(source, 0, bytes);
  return bytes;
}
