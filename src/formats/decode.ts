/**
 * Encoded elements, decoded as they are read: of any range only the bytes that say something of it come into a room in the
 * arena, and a kernel makes elements of them.
 *
 *     plain              the elements
 *     float16, bfloat16  their halves
 *     int8, int8-block   their codes, and the scales and zero points of the blocks that they belong to
 *     top-k              the pairs between two marks of the index, at most `MARKED_PAIRS` too many at either end
 *
 * A decoded element has the same bits whatever the range that it was decoded in.
 */
import type { Core } from '../core/core.ts';
import type { StrategyExports } from '../core/exports.ts';
import { dequantiseInto } from '../core/quantise.ts';
import { placeTopInto, widenInto } from '../core/updates.ts';
import { type ByteSource, startRead } from '../tensor/bytes.ts';
import type { EncodedParts } from '../tensor/layout.ts';
import { planReads, type Want } from '../tensor/reads.ts';

/** Elements of top-k for each mark of an index, which so takes a 256th of what it is an index of. */
export const MARKED_PAIRS = 128;

/** Smallest room that decoding takes. */
export const MIN_DECODE_ROOM = 4 << 10;

/** Share of a room that may be spent on bytes between neighbouring parts. */
const SPARE_SHIFT = 2;

/** What an index, and a value with it, take. */
const PAIR_BYTES = 8;

/** What a scale and a zero point take. */
const SCALE_BYTES = 5;

/** Elements of one tensor, and where they go. */
export interface Piece {
  /** How they are held; undefined for plain ones. */
  readonly parts: EncodedParts | undefined;
  /** Of plain ones: where the tensor begins, and bytes of an element. */
  readonly byteOffset: number;
  readonly itemSize: number;
  readonly start: number;
  readonly count: number;
  /** Address of the elements. */
  readonly out: number;
}

/** What can be read and decoded in one go. */
interface Fragment {
  readonly wants: readonly Want[];
  /** Decodes. @param places addresses of what was wanted */
  put(places: readonly number[]): void;
}

export class Decoder {
  /** Bytes read so far. */
  bytesRead = 0;

  readonly #core: Core<StrategyExports>;
  readonly #room: number;
  readonly #roomBytes: number;

  /** Bytes of the arena that a decoder with a room of so many bytes takes. */
  static arenaBytes(roomBytes: number): number {
    return roomBytes + (roomBytes >> SPARE_SHIFT) + 16;
  }

  /** @param roomBytes for encoded bytes, `MIN_DECODE_ROOM` at least */
  constructor(core: Core<StrategyExports>, roomBytes: number) {
    this.#core = core;
    this.#roomBytes = roomBytes;
    this.#room = core.take(roomBytes + (roomBytes >> SPARE_SHIFT));
  }

  /**
   * Decodes pieces of one file. The promise is there only when the source needs one; no other call may begin until it ends.
   *
   * @throws FileError `file-changed` and those of the source
   */
  decode(source: ByteSource, pieces: readonly Piece[]): Promise<void> | undefined {
    return this.#goOn(source, this.#batches(pieces));
  }

  #goOn(source: ByteSource, batches: Iterator<readonly Fragment[]>): Promise<void> | undefined {
    for (let next = batches.next(); next.done !== true; next = batches.next()) {
      const { value: batch } = next;
      const waits: Promise<unknown>[] = [];
      const places = this.#read(source, batch, waits);
      const put = () => {
        for (const [i, fragment] of batch.entries()) fragment.put(places[i]!);
      };
      if (waits.length > 0) {
        return Promise.all(waits).then(() => {
          put();
          return this.#goOn(source, batches);
        });
      }
      put();
    }
    return undefined;
  }

  /** Reads what fragments want, neighbours in one span. Gives for each fragment where its wants will be. */
  #read(source: ByteSource, batch: readonly Fragment[], waits: Promise<unknown>[]): number[][] {
    const wants = batch.flatMap(({ wants: own }, fragment) =>
      own.map((want, part) => ({ ...want, fragment, part })),
    );
    wants.sort((a, b) => a.offset - b.offset);
    const { reads, places } = planReads(wants, this.#roomBytes >> SPARE_SHIFT);
    for (const { offset, byteLength, at } of reads) {
      startRead(source, offset, this.#core.bytes(this.#room + at, byteLength), waits);
      this.bytesRead += byteLength;
    }
    const found: number[][] = batch.map(() => []);
    for (const [i, { fragment, part }] of wants.entries()) found[fragment]![part] = this.#room + places[i]!;
    return found;
  }

  /** Cuts pieces into what fits the room. */
  *#batches(pieces: readonly Piece[]): Generator<readonly Fragment[], void, void> {
    let batch: Fragment[] = [];
    let used = 0;
    for (const piece of pieces) {
      for (const fragment of this.#fragments(piece)) {
        const bytes = fragment.wants.reduce((sum, { byteLength }) => sum + byteLength, 0);
        if (used + bytes > this.#roomBytes) {
          yield batch;
          batch = [];
          used = 0;
        }
        batch.push(fragment);
        used += bytes;
      }
    }
    if (batch.length > 0) yield batch;
  }

  *#fragments(piece: Piece): Generator<Fragment, void, void> {
    const { parts, byteOffset, itemSize, start, count, out } = piece;
    if (parts?.encoding === 'top-k') {
      yield* this.#pairs(parts, piece);
      return;
    }
    const most = mostElements(parts, itemSize, this.#roomBytes);
    for (let at = 0; at < count; at += most) {
      const n = Math.min(most, count - at);
      yield parts === undefined
        ? this.#plain(byteOffset + (start + at) * itemSize, n * itemSize, out + at * itemSize)
        : this.#dense(parts, start + at, n, out + 4 * at);
    }
  }

  #plain(offset: number, byteLength: number, out: number): Fragment {
    return {
      wants: [{ offset, byteLength }],
      put: ([from]) => this.#core.bytes(out, byteLength).set(this.#core.bytes(from!, byteLength)),
    };
  }

  #dense({ encoding, offsets, block }: EncodedParts, start: number, n: number, out: number): Fragment {
    const core = this.#core;
    const [values, scales, zeros] = offsets as [number, number, number]; // of halves only the first
    if (encoding === 'float16' || encoding === 'bfloat16') {
      return {
        wants: [{ offset: values + 2 * start, byteLength: 2 * n }],
        put: ([from]) => widenInto(core, encoding, from!, n, out),
      };
    }
    // With one scale the range is a block of its own.
    const size = block ?? n;
    const within = block === null ? 0 : start % block;
    const first = block === null ? 0 : (start - within) / block;
    const blocks = Math.ceil((within + n) / size);
    return {
      wants: [
        { offset: values + start, byteLength: n },
        { offset: scales + 4 * first, byteLength: 4 * blocks },
        { offset: zeros + first, byteLength: blocks },
      ],
      put([codes, scales, zeros]) {
        const at = { codes: codes! - within, scales: scales!, zeros: zeros!, block: size };
        dequantiseInto(core, at, within, n, out);
      },
    };
  }

  *#pairs({ offsets, pairs, marks }: EncodedParts, { start, count, out }: Piece) {
    const core = this.#core;
    const [indices, values] = offsets as [number, number];
    core.bytes(out, 4 * count).fill(0);
    if (pairs === 0) return;
    if (marks === null) throw new RangeError('the update was not indexed: see prepareWeights');
    const most = Math.floor(this.#roomBytes / PAIR_BYTES);
    const end = Math.min(pairs, MARKED_PAIRS * marksBelow(marks, start + count));
    for (let at = MARKED_PAIRS * Math.max(0, marksBelow(marks, start + 1) - 1); at < end; at += most) {
      const k = Math.min(most, end - at);
      yield {
        wants: [
          { offset: indices + 4 * at, byteLength: 4 * k },
          { offset: values + 4 * at, byteLength: 4 * k },
        ],
        put([indices, values]: readonly number[]) {
          placeTopInto(core, indices!, values!, k, start, count, out);
        },
      };
    }
  }
}

/** Elements of a tensor whose encoded bytes fit a room. */
function mostElements(parts: EncodedParts | undefined, itemSize: number, roomBytes: number): number {
  if (parts === undefined) return Math.floor(roomBytes / itemSize);
  if (parts.encoding === 'float16' || parts.encoding === 'bfloat16') return roomBytes >> 1;
  // The range begins and ends within blocks.
  const { block } = parts;
  return block === null
    ? roomBytes - SCALE_BYTES
    : Math.floor((roomBytes - 2 * SCALE_BYTES) / (1 + SCALE_BYTES / block));
}

/** How many marks, which ascend, are below an index. */
function marksBelow(marks: Uint32Array, index: number): number {
  let low = 0;
  let high = marks.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (marks[middle]! < index) low = middle + 1;
    else high = middle;
  }
  return low;
}
