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

/** The ranges of an output. Only where each begins is kept: a model of 4 GB has sixteen thousand of them. */
export class Ranges {
  /** How many there are. */
  readonly length: number;
  readonly #pieces: readonly Piece[];
  readonly #itemSizes: readonly number[];
  readonly #blockBytes: number;
  /** By range: its offset, the piece that it begins in, and the byte or element of that piece. */
  readonly #begins: Float64Array;

  /** As `planRanges`. */
  constructor(pieces: readonly Piece[], itemSizes: readonly number[], blockBytes: number) {
    this.#pieces = pieces;
    this.#itemSizes = itemSizes;
    this.#blockBytes = blockBytes;
    const begins: number[] = [];
    const cursor: Cursor = { offset: 0, piece: 0, start: 0 };
    for (;;) {
      const { offset, piece, start } = cursor;
      if (this.#cut(cursor).byteLength === 0) break;
      begins.push(offset, piece, start);
    }
    this.#begins = Float64Array.from(begins);
    this.length = begins.length / 3;
  }

  /** The range at a position below `length`, made anew each time. */
  at(index: number): Range {
    const [offset, piece, start] = this.#begins.subarray(3 * index, 3 * index + 3);
    return this.#cut({ offset: offset!, piece: piece!, start: start! });
  }

  /** The range that begins at the cursor, which goes on to its end; an empty one at the end of the output. */
  #cut(cursor: Cursor): Range {
    const { offset } = cursor;
    const segments: Segment[] = [];
    const literals: { at: number; bytes: Uint8Array }[] = [];
    let filled = 0;
    for (; cursor.piece < this.#pieces.length; cursor.piece++, cursor.start = 0) {
      const piece = this.#pieces[cursor.piece]!;
      if (piece.bytes !== undefined) {
        const bytes = piece.bytes.subarray(cursor.start, cursor.start + this.#blockBytes - filled);
        if (bytes.byteLength > 0) literals.push({ at: filled, bytes });
        filled += bytes.byteLength;
        cursor.start += bytes.byteLength;
        if (cursor.start < piece.bytes.byteLength) break;
        continue;
      }
      const { tensor } = piece;
      const size = this.#itemSizes[tensor]!;
      const total = piece.byteLength / size;
      while (cursor.start < total) {
        const room = Math.floor((this.#blockBytes - filled) / size);
        const count = cut(cursor.start, total, room, Math.floor(this.#blockBytes / size));
        if (count === 0) break;
        segments.push({ tensor, start: cursor.start, count, at: filled });
        filled += count * size;
        cursor.start += count;
      }
      if (cursor.start < total) break;
    }
    cursor.offset += filled;
    return { offset, byteLength: filled, segments, literals };
  }
}

/** A place in the output: its offset, and the piece with the byte (of a literal) or element (of a payload) there. */
interface Cursor {
  offset: number;
  piece: number;
  start: number;
}

/**
 * Cuts the output into ranges of at most `blockBytes` bytes.
 *
 * @param itemSizes bytes of an element of each tensor
 * @throws RangeError when a block does not hold a single element
 */
export function planRanges(encoding: Encoding, itemSizes: readonly number[], blockBytes: number): Ranges {
  if (itemSizes.some((size) => !(size <= blockBytes)))
    throw new RangeError(`a block of ${blockBytes} bytes holds no element`);
  return new Ranges(piecesOf(encoding), itemSizes, blockBytes);
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
