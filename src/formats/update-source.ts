import type { ByteSource } from '../tensor/bytes.ts';
import type { ModelUpdate } from '../tensor/tensor.ts';
import type { Literal } from './encoding.ts';
import { type WriteOptions, writeWeights } from './write.ts';

/**
 * The file of an update that is in memory, to be read: its elements stay where they are.
 *
 * @throws RangeError as `writeWeights`
 */
export async function updateSource(
  update: ModelUpdate,
  options: Omit<WriteOptions, 'compress'> = {},
): Promise<ByteSource> {
  // Written in order and without gaps, and every piece is a header's own or the tensor's: none is used again.
  const literals: Literal[] = [];
  const write = (offset: number, bytes: Uint8Array) => void literals.push({ offset, bytes });
  const byteLength = await writeWeights({ write, commit() {}, discard() {} }, update, options);
  return {
    name: 'update',
    byteLength,
    readInto(offset, target) {
      const end = Math.min(byteLength, offset + target.byteLength);
      // The last piece that begins at `offset` or before it.
      let low = 0;
      for (let high = literals.length; high - low > 1; ) {
        const middle = (low + high) >> 1;
        if (literals[middle]!.offset <= offset) low = middle;
        else high = middle;
      }
      for (let at = offset; at < end; low++) {
        const piece = literals[low]!;
        const part = piece.bytes.subarray(at - piece.offset, end - piece.offset);
        target.set(part, at - offset);
        at += part.byteLength;
      }
      return Math.max(0, end - offset);
    },
    close() {},
  };
}
