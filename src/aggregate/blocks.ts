/** Reading of ranges: for each input the elements of a range, side by side in the arena, as kernels want them. */
import type { Core } from '../core/core.ts';
import { swapBytes } from '../core/elements.ts';
import type { FoldExports, StrategyExports } from '../core/exports.ts';
import { type ByteSource, startRead } from '../tensor/bytes.ts';
import { planReads, type Read } from '../tensor/reads.ts';
import type { EncodedBlocks } from './encoded-blocks.ts';
import { NO_SOURCE, type PlannedInput, sourceOf } from './plan.ts';
import type { Range } from './ranges.ts';

/** Blocks of two inputs never lie a power of two apart, where they would compete for the same lines of the cache. */
const STAGGER = 64;

/** Something whose tensors are read block by block. */
export interface Reader {
  readonly input: PlannedInput;
  /** Bytes of an element by tensor of the output: those of its dtype, more for some states. */
  readonly itemSizes: readonly number[];
  /** Bytes of its elements in a range, at most. */
  readonly blockBytes: number;
}

/** Share of a block that may be spent on bytes between neighbouring tensors. */
const SPARE_SHIFT = 2;

/** Room for encoded bytes beside a block: those of all elements in one go where they take half of it, as two bytes do. */
const MIN_ROOM = 4 << 10;

function roomOf({ blockBytes }: Reader): number {
  return Math.max(MIN_ROOM, blockBytes >> 1);
}

/** Bytes of a block that may be spent so: none where no tensor has a neighbour. */
function spareOf({ blockBytes, itemSizes }: Reader): number {
  return itemSizes.length > 1 ? blockBytes >> SPARE_SHIFT : 0;
}

function strideOf(reader: Reader): number {
  return reader.blockBytes + spareOf(reader) + STAGGER;
}

/** Bytes of the arena that `Blocks` takes. */
export function blocksArenaBytes(readers: readonly Reader[]): number {
  return readers.reduce((sum, reader) => {
    const room = reader.input.parts === undefined ? 0 : roomOf(reader);
    return sum + strideOf(reader) + 16 + room + (room >> SPARE_SHIFT) + 16;
  }, 0);
}

/** Whether an input has elements that are decoded as they are read, which needs a core of the second module. */
export function hasEncoded(inputs: readonly PlannedInput[]): boolean {
  return inputs.some(({ parts }) => parts !== undefined);
}

/** A span that is read, and where in the block it goes. */
interface SpanRead extends Read {
  /** Position of the source. */
  readonly source: number;
}

/** How a reader reads a range: the spans, and by segment where in the block its elements are, -1 where there are none. */
interface RangeReads {
  readonly reads: readonly SpanRead[];
  readonly places: readonly number[];
}

/** The blocks of several readers in the arena of one core. */
export class Blocks {
  readonly #core: Core<FoldExports>;
  readonly #sources: readonly ByteSource[];
  readonly #readers: readonly Reader[];
  readonly #addresses: readonly number[];
  /** By reader: undefined for those that have plain elements only; empty where no reader has others. */
  #encoded: readonly (EncodedBlocks | undefined)[] = [];
  #plainBytes = 0;
  /** By reader the places of the segments in its block. */
  readonly #places: (readonly number[])[];
  /** By reader a view of its block: most ranges are read into the same bytes. */
  readonly #targets: Uint8Array[] = [];
  /** By reader the bytes of its last read. */
  readonly #lengths: number[] = [];

  /** @param core of the second module where `hasEncoded` says so */
  static async open(
    core: Core<FoldExports>,
    sources: readonly ByteSource[],
    readers: readonly Reader[],
  ): Promise<Blocks> {
    const blocks = new Blocks(core, sources, readers);
    if (hasEncoded(readers.map(({ input }) => input))) {
      // Loaded when there is something to decode, as readers of formats are (formats/open.ts).
      const { openEncodedBlocks } = await import('./encoded-blocks.ts');
      const strategies = core as Core<StrategyExports>; // the caller sees to that
      blocks.#encoded = readers.map((reader) =>
        openEncodedBlocks(strategies, sources, reader, roomOf(reader)),
      );
    }
    return blocks;
  }

  private constructor(core: Core<FoldExports>, sources: readonly ByteSource[], readers: readonly Reader[]) {
    this.#core = core;
    this.#sources = sources;
    this.#readers = readers;
    this.#addresses = readers.map((reader) => core.take(strideOf(reader)));
    this.#places = readers.map(() => []);
  }

  /** Bytes read so far. */
  get bytesRead(): number {
    return this.#encoded.reduce((sum, encoded) => sum + (encoded?.bytesRead ?? 0), this.#plainBytes);
  }

  /** Reads a range. The promise is there only when a source needs one. Throws FileError `file-changed` and those of sources. */
  read(range: Range): Promise<unknown> | undefined {
    const waits: Promise<unknown>[] = [];
    // Readers of one layout share these numbers, and read alike: with thousands of them, to plan anew for each would take
    // longer than to fold.
    const plans = new Map<Float64Array, RangeReads>();
    for (const [i, reader] of this.#readers.entries()) {
      const block = this.#addresses[i]!;
      const decoded = this.#encoded[i]?.read(range, block, waits);
      if (decoded !== undefined) {
        this.#places[i] = decoded.map((address) => address - block);
        continue;
      }
      const { sources, byteOffsets } = reader.input;
      const plan = (typeof sources === 'number' && plans.get(byteOffsets)) || planRange(reader, range);
      plans.set(byteOffsets, plan);
      this.#start(i, plan, waits);
      this.#places[i] = plan.places;
    }
    return waits.length === 0 ? undefined : Promise.all(waits);
  }

  /** Address of the elements of a reader in a segment of the range, little endian from here on; 0 where it has none. */
  place(reader: number, segment: number, tensor: number, count: number): number {
    const { input, itemSizes } = this.#readers[reader]!;
    const place = this.#places[reader]![segment]!;
    if (place < 0) return 0;
    const address = this.#addresses[reader]! + place;
    const swap = input.swaps[tensor]!;
    if (swap > 1) swapBytes(this.#core, address, (count * itemSizes[tensor]!) / swap, swap);
    return address;
  }

  #start(i: number, { reads }: RangeReads, waits: Promise<unknown>[]): void {
    const { sources } = this.#readers[i]!.input;
    for (const { source, offset, byteLength, at } of reads) {
      // A plan may be that of another reader, with another source.
      const own = this.#sources[typeof sources === 'number' ? sources : source]!;
      startRead(own, offset, this.#target(i, this.#addresses[i]! + at, byteLength), waits);
      this.#plainBytes += byteLength;
    }
  }

  #target(i: number, address: number, byteLength: number): Uint8Array {
    const last = this.#targets[i];
    if (last?.byteOffset === address && last.byteLength === byteLength) return last;
    const target = this.#core.bytes(address, byteLength);
    // Only what is asked for twice is kept: of thousands of readers of many small tensors, views that are kept until the next
    // read would grow old, and fill the memory that the collector comes to last.
    if (this.#lengths[i] === byteLength) this.#targets[i] = target;
    this.#lengths[i] = byteLength;
    return target;
  }
}

function planRange(reader: Reader, { segments }: Range): RangeReads {
  const { input, itemSizes } = reader;
  const reads: SpanRead[] = [];
  const places: number[] = [];
  // Segments of one source are planned together; a reordered tensor has a source of its own.
  for (let first = 0, used = 0; first < segments.length; ) {
    const source = sourceOf(input, segments[first]!.tensor);
    let end = first;
    const wants = [];
    for (; end < segments.length; end++) {
      const { tensor, start, count } = segments[end]!;
      if (sourceOf(input, tensor) !== source) break;
      const size = itemSizes[tensor]!;
      wants.push({ offset: input.byteOffsets[tensor]! + start * size, byteLength: count * size });
    }
    if (source === NO_SOURCE) {
      for (; first < end; first++) places.push(-1);
      continue;
    }
    const isWhole = first === 0 && end === segments.length;
    const plan = planReads(wants, isWhole ? spareOf(reader) : 0);
    for (const read of plan.reads) reads.push({ ...read, at: used + read.at, source });
    for (const place of plan.places) places.push(used + place);
    used += plan.reads.reduce((sum, read) => sum + read.byteLength, 0);
    first = end;
  }
  return { reads, places };
}
