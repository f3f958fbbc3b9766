/** Reading of ranges: for each input the elements of a range, side by side in the arena, as kernels want them. */
import type { Core } from '../core/core.ts';
import { swapBytes } from '../core/elements.ts';
import type { FoldExports } from '../core/exports.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { NO_SOURCE, type PlannedInput } from './plan.ts';
import type { Range } from './ranges.ts';
import { planReads } from './reads.ts';
import { changed } from './reorder.ts';

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

function strideOf({ blockBytes }: Reader): number {
  return blockBytes + (blockBytes >> SPARE_SHIFT) + STAGGER;
}

/** Bytes of the arena that `Blocks` takes. */
export function blocksArenaBytes(readers: readonly Reader[]): number {
  return readers.reduce((sum, reader) => sum + strideOf(reader) + 16, 0);
}

/** The blocks of several readers in the arena of one core. */
export class Blocks {
  /** Bytes read so far. */
  bytesRead = 0;

  readonly #core: Core<FoldExports>;
  readonly #sources: readonly ByteSource[];
  readonly #readers: readonly Reader[];
  readonly #addresses: readonly number[];
  /** By reader and segment of the range: where its elements are, 0 where there are none. */
  #places: number[][] = [];

  constructor(core: Core<FoldExports>, sources: readonly ByteSource[], readers: readonly Reader[]) {
    this.#core = core;
    this.#sources = sources;
    this.#readers = readers;
    this.#addresses = readers.map((reader) => core.take(strideOf(reader)));
  }

  /** Reads a range. The promise is there only when a source needs one. Throws FileError `file-changed` and those of sources. */
  read(range: Range): Promise<unknown> | undefined {
    const waits: Promise<unknown>[] = [];
    this.#places = this.#readers.map((reader, i) => this.#start(reader, this.#addresses[i]!, range, waits));
    return waits.length === 0 ? undefined : Promise.all(waits);
  }

  /** Address of the elements of a reader in a segment of the range, little endian from here on; 0 where it has none. */
  place(reader: number, segment: number, tensor: number, count: number): number {
    const { input, itemSizes } = this.#readers[reader]!;
    const address = this.#places[reader]![segment]!;
    const swap = input.swaps[tensor]!;
    if (swap > 1) swapBytes(this.#core, address, (count * itemSizes[tensor]!) / swap, swap);
    return address;
  }

  #start(reader: Reader, block: number, range: Range, waits: Promise<unknown>[]): number[] {
    const { input, itemSizes } = reader;
    const { segments } = range;
    const places: number[] = [];
    // Segments of one source are planned together; a reordered tensor has a source of its own.
    for (let first = 0, used = 0; first < segments.length; ) {
      const position = input.sources[segments[first]!.tensor]!;
      let end = first;
      const wants = [];
      for (; end < segments.length; end++) {
        const { tensor, start, count } = segments[end]!;
        if (input.sources[tensor] !== position) break;
        const size = itemSizes[tensor]!;
        wants.push({ offset: input.byteOffsets[tensor]! + start * size, byteLength: count * size });
      }
      if (position === NO_SOURCE) {
        for (; first < end; first++) places.push(0);
        continue;
      }
      const isWhole = first === 0 && end === segments.length;
      const plan = planReads(wants, isWhole ? reader.blockBytes >> SPARE_SHIFT : 0);
      for (const { offset, byteLength, at } of plan.reads) {
        this.#readInto(this.#sources[position]!, offset, block + used + at, byteLength, waits);
      }
      for (const place of plan.places) places.push(block + used + place);
      used += plan.reads.reduce((sum, read) => sum + read.byteLength, 0);
      first = end;
    }
    return places;
  }

  #readInto(
    source: ByteSource,
    offset: number,
    address: number,
    byteLength: number,
    waits: Promise<unknown>[],
  ): void {
    const check = (count: number) => {
      if (count !== byteLength) throw changed(source, offset + count);
      this.bytesRead += count;
    };
    const reading = source.readInto(offset, this.#core.bytes(address, byteLength));
    if (typeof reading === 'number') check(reading);
    else waits.push(reading.then(check));
  }
}
