/**
 * Cutting an aggregation into ranges.
 *
 * A range is a span of bytes of the output file that fits one block: parts of tensors (`segments`), and between them
 * bytes that are known already (`literals`). Ranges do not depend on each other: any thread may do any of them, in any
 * order.
 *
 *     output file   | header |  tensor 0 ............................ | pickle | tensor 1 | pickle | tensor 2 ...
 *     ranges        |---------------- 0 ----|---------- 1 ----------|--------------------- 2 --------------|---
 */
import { CHUNK } from '../../assembly/abi.ts';
import type { Encoding } from '../formats/encoding.ts';

/** A run of elements of one tensor. */
interface Segment {
  readonly tensor: number;
  /** First element, in C order. */
  readonly start: number;
  readonly count: number;
  /** Position of its first byte in the range. */
  readonly at: number;
}

export interface Range {
  /** Position in the output file. */
  readonly offset: number;
  readonly byteLength: number;
  readonly segments: readonly Segment[];
  readonly literals: readonly { readonly at: number; readonly bytes: Uint8Array }[];
}

/**
 * Cuts the output into ranges of at most `blockBytes` bytes.
 *
 * @param itemSizes bytes of an element of each tensor
 * @throws RangeError when a block does not hold a single element
 */
export function planRanges(encoding: Encoding, itemSizes: readonly number[], blockBytes: number): Range[] {
  if (itemSizes.some((size) => size > blockBytes))
    throw new RangeError(`a block of ${blockBytes} bytes holds no element`);
  const ranges: Range[] = [];
  let offset = 0;
  let filled = 0;
  let segments: Segment[] = [];
  let literals: { at: number; bytes: Uint8Array }[] = [];

  const endRange = () => {
    if (filled === 0) return;
    ranges.push({ offset, byteLength: filled, segments, literals });
    offset += filled;
    filled = 0;
    segments = [];
    literals = [];
  };

  const addLiteral = (bytes: Uint8Array) => {
    for (let done = 0; done < bytes.byteLength; ) {
      if (filled === blockBytes) endRange();
      const part = bytes.subarray(done, done + blockBytes - filled);
      literals.push({ at: filled, bytes: part });
      filled += part.byteLength;
      done += part.byteLength;
    }
  };

  const addPayload = (tensor: number, byteLength: number) => {
    const size = itemSizes[tensor]!;
    const total = byteLength / size;
    for (let start = 0; start < total; ) {
      const room = Math.floor((blockBytes - filled) / size);
      const count = cut(start, total, room, Math.floor(blockBytes / size));
      if (count === 0) {
        endRange();
        continue;
      }
      segments.push({ tensor, start, count, at: filled });
      filled += count * size;
      start += count;
    }
  };

  for (const piece of piecesOf(encoding)) {
    if (piece.bytes !== undefined) addLiteral(piece.bytes);
    else addPayload(piece.tensor, piece.byteLength);
  }
  endRange();
  return ranges;
}

/**
 * How many elements from `start` on go into a range with room for `room` of `most`: all that are left, else up to the
 * border of a chunk, else (where a block is smaller than a chunk) what there is room for. 0 asks for a new range.
 */
function cut(start: number, total: number, room: number, most: number): number {
  if (total - start <= room) return total - start;
  const border = Math.floor((start + room) / CHUNK) * CHUNK;
  if (border > start) return border - start;
  return most >= CHUNK ? 0 : room;
}

type Piece =
  | { readonly offset: number; readonly bytes: Uint8Array }
  | {
      readonly offset: number;
      readonly bytes?: undefined;
      readonly tensor: number;
      readonly byteLength: number;
    };

/** Literals and payloads of a file in the order of their offsets. */
function piecesOf({ literals, payloads }: Encoding): Piece[] {
  const pieces: Piece[] = [
    ...literals,
    ...payloads.map(({ offset, byteLength }, tensor) => ({ offset, tensor, byteLength })),
  ];
  return pieces.sort((a, b) => a.offset - b.offset);
}
