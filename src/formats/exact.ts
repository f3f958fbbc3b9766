import type { ByteSource } from '../tensor/bytes.ts';
import { formatError } from './format-error.ts';

/**
 * Fills `target` with the bytes from `offset` on, all of which the file had when it was opened.
 *
 * @throws FormatError with the code, at the first byte that is no longer there
 */
export async function readExactly(
  source: ByteSource,
  offset: number,
  target: Uint8Array,
  code: string,
  tensor?: number,
): Promise<void> {
  const reading = source.readInto(offset, target);
  const read = typeof reading === 'number' ? reading : await reading;
  if (read === target.byteLength) return;
  throw formatError(code, 'the file became shorter while it was read', {
    file: source.name,
    tensor,
    offset: offset + read,
  });
}
