/**
 * One thread's share of an aggregation: ranges, one at a time, in a small arena of its own.
 *
 *     for each range: read K blocks · combine (and step), or measure · write one block
 *
 * What differs between inputs (container, header lengths, byte order, memory order) ends where their blocks enter the
 * arena; a kernel sees K addresses of little-endian elements in C order.
 */
import { CHUNK } from '../../assembly/abi.ts';
import type { Core } from '../core/core.ts';
import { findNonFinite, swapBytes } from '../core/elements.ts';
import type { FoldExports } from '../core/exports.ts';
import type { NonFiniteElement } from '../errors.ts';
import type { Crc32 } from '../formats/crc32.ts';
import type { Encoding } from '../formats/encoding.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { DTYPES, itemSize } from '../tensor/dtypes.ts';
import { elementCount } from '../tensor/layout.ts';
import { type Combine, combineArenaBytes, openCombine, openKernelCore } from './kernels.ts';
import { type Measure, measureArenaBytes, measureWidth, openMeasure } from './measures.ts';
import type { Plan, PlannedInput } from './plan.ts';
import { planRanges, type Range } from './ranges.ts';
import { planReads } from './reads.ts';
import { changed } from './reorder.ts';
import type { CombineSpec, MeasureSpec } from './strategies/strategy.ts';

/** Blocks of two inputs never lie a power of two apart, where they would compete for the same lines of the cache. */
const STAGGER = 64;

/** A report of non-finite elements names this many. */
export const REPORTED_NON_FINITE = 8;

/** Literals and places of an output, without what only its owner can do. */
export type OutputLayout = Pick<Encoding, 'byteLength' | 'literals' | 'payloads'>;

/** What is done with every range. Plain data. */
export type Stage =
  | {
      readonly kind: 'fold';
      readonly combine: CombineSpec;
      /** By input of the plan; 0 leaves one out. */
      readonly weightings: readonly number[];
      readonly output: OutputLayout;
      /** Whether the output's format wants the CRC-32 of elements. */
      readonly checksums: boolean;
    }
  | { readonly kind: 'measure'; readonly measure: MeasureSpec }
  /** Looks for NaN and infinity and does nothing else. */
  | { readonly kind: 'scan' };

/** What a range gave. */
export interface RangeResult {
  /** Elements that are not finite, the first by index and leaf; the output is undefined then. */
  readonly found: readonly NonFiniteElement[];
  /** Of a pass that measures: the sums of the range's chunks in order, `width` each. */
  readonly sums?: Float64Array | undefined;
  /** Where the output wants them: the CRC-32 of the elements of each segment. */
  readonly checksums?: readonly number[] | undefined;
}

/** A stage in the arena of one core. */
interface Bench {
  readonly core: Core<FoldExports>;
  readonly ranges: readonly Range[];
  /** Positions of the inputs that count, the model behind them where it is read. */
  readonly readers: readonly PlannedInput[];
  /** How many of them are inputs. */
  readonly count: number;
  readonly blocks: readonly number[];
  readonly spare: number;
  readonly table: number;
  readonly out: number;
  readonly combine: Combine | null;
  readonly measure: Measure | null;
}

export class RangeRunner {
  /** Bytes read from the inputs so far. */
  bytesRead = 0;

  readonly #plan: Plan;
  readonly #sources: readonly ByteSource[];
  readonly #crc32: Crc32;
  readonly #itemSizes: readonly number[];
  #bench: Bench | null = null;

  /** @param sources those of the plan, open on this thread; they stay the caller's */
  constructor(plan: Plan, sources: readonly ByteSource[], crc32: Crc32) {
    this.#plan = plan;
    this.#sources = sources;
    this.#crc32 = crc32;
    this.#itemSizes = plan.tensors.map((tensor) => itemSize(tensor.dtype));
  }

  /** The ranges of the stage that was begun last. */
  get ranges(): readonly Range[] {
    return this.#bench?.ranges ?? [];
  }

  /** Prepares for a stage. @throws AggregationError, UnavailableError */
  async begin(stage: Stage): Promise<void> {
    this.close();
    const { inputs, model } = this.#plan;
    const weightings = weightingsOf(stage, inputs.length);
    const counting = inputs.filter((_, i) => weightings[i] !== 0);
    const readsModel = stage.kind === 'measure' && model !== null;
    const readers = readsModel ? [...counting, model] : counting;
    const k = counting.length;
    const blockBytes = stage.kind === 'fold' ? this.#plan.blockBytes : this.#plan.measureBytes;
    const output = stage.kind === 'fold' ? stage.output : bareOutput(this.#plan);
    const ranges = planRanges(output, this.#itemSizes, blockBytes);
    const spare = blockBytes >> 2;
    const stride = blockBytes + spare + STAGGER;
    const outBytes = outputBytes(stage, readers.length, blockBytes);
    const core = await openKernelCore(
      stage,
      kernelArenaBytes(stage, k) + 4 * readers.length + readers.length * (stride + 16) + outBytes + 128,
    );
    try {
      const counted = weightings.filter((weighting) => weighting !== 0);
      this.#bench = {
        core,
        ranges,
        readers,
        count: k,
        combine: stage.kind === 'fold' ? openCombine(stage.combine, core, counted) : null,
        measure: stage.kind === 'measure' ? openMeasure(stage.measure, core, counted) : null,
        table: core.take(4 * readers.length),
        blocks: readers.map(() => core.take(stride)),
        spare,
        out: core.take(outBytes),
      };
    } catch (error) {
      core.close();
      throw error;
    }
  }

  /**
   * Carries out one range of the stage.
   *
   * @param write gets the range's bytes of the output, which lie in the arena until it has ended
   * @throws FileError `file-changed` and those of the sources
   */
  async run(
    range: Range,
    stage: Stage,
    write: (offset: number, bytes: Uint8Array) => void | Promise<void>,
  ): Promise<RangeResult> {
    const bench = this.#bench;
    if (bench === null) throw new RangeError('no stage was begun');
    const { places, waits } = this.#startReads(bench, range);
    if (waits !== undefined) await waits;
    const found: NonFiniteElement[] = [];
    const sums: number[] = [];
    for (const [s, segment] of range.segments.entries()) {
      const { dtype } = this.#plan.tensors[segment.tensor]!;
      this.#fillTable(bench, places, s, segment.tensor, segment.count);
      if (stage.kind === 'measure') {
        this.#measure(bench, segment.tensor, segment.count, sums);
        continue;
      }
      // Once something was found the result is lost, and only the report is completed.
      const isFolded =
        stage.kind === 'fold' &&
        found.length === 0 &&
        bench.combine!.fold(
          DTYPES[dtype].code,
          bench.table,
          segment.count,
          bench.out + segment.at,
          this.#plan.nonFinite,
        );
      if (!isFolded) this.#locate(bench, places, s, segment, found);
      if (found.length >= REPORTED_NON_FINITE) break;
    }
    if (stage.kind === 'measure') return { found, sums: Float64Array.from(sums) };
    if (stage.kind === 'scan' || found.length > 0) return { found };
    const bytes = bench.core.bytes(bench.out, range.byteLength);
    const checksums = stage.checksums
      ? range.segments.map(({ tensor, at, count }) =>
          this.#crc32(bytes.subarray(at, at + count * this.#itemSizes[tensor]!)),
        )
      : undefined;
    for (const literal of range.literals) bytes.set(literal.bytes, literal.at);
    const written = write(range.offset, bytes);
    if (written !== undefined) await written;
    return { found, checksums };
  }

  /** Gives back the core. The sources stay open. */
  close(): void {
    this.#bench?.core.close();
    this.#bench = null;
  }

  /** Starts all reads of a range. `places[reader][segment]` are addresses in the arena, filled once `waits` has ended. */
  #startReads(bench: Bench, range: Range): { places: number[][]; waits: Promise<unknown> | undefined } {
    const all: number[][] = [];
    const waits: Promise<unknown>[] = [];
    const { segments } = range;
    for (const [i, reader] of bench.readers.entries()) {
      const block = bench.blocks[i]!;
      const places: number[] = [];
      // Segments of one source are planned together; a reordered tensor has a source of its own.
      for (let first = 0, used = 0; first < segments.length; ) {
        const position = reader.sources[segments[first]!.tensor]!;
        const source = this.#sources[position]!;
        let end = first;
        const wants = [];
        for (; end < segments.length; end++) {
          const { tensor, start, count } = segments[end]!;
          if (reader.sources[tensor] !== position) break;
          const size = this.#itemSizes[tensor]!;
          wants.push({ offset: reader.byteOffsets[tensor]! + start * size, byteLength: count * size });
        }
        const plan = planReads(wants, first === 0 && end === segments.length ? bench.spare : 0);
        for (const read of plan.reads) {
          const target = bench.core.bytes(block + used + read.at, read.byteLength);
          const reading = source.readInto(read.offset, target);
          const check = (count: number) => {
            if (count !== read.byteLength) throw changed(source, read.offset + count);
            this.bytesRead += count;
          };
          if (typeof reading === 'number') check(reading);
          else waits.push(reading.then(check));
        }
        for (const place of plan.places) places.push(block + used + place);
        used += plan.reads.reduce((sum, read) => sum + read.byteLength, 0);
        first = end;
      }
      all.push(places);
    }
    return { places: all, waits: waits.length === 0 ? undefined : Promise.all(waits) };
  }

  /** Writes the addresses of a segment's elements, in little-endian order from here on, to the table. */
  #fillTable(
    bench: Bench,
    places: readonly number[][],
    position: number,
    tensor: number,
    count: number,
  ): void {
    const table = bench.core.view(bench.table, 4 * bench.readers.length);
    for (const [i, reader] of bench.readers.entries()) {
      const address = places[i]![position]!;
      const swap = reader.swaps[tensor]!;
      if (swap > 1) swapBytes(bench.core, address, (count * this.#itemSizes[tensor]!) / swap, swap);
      table.setUint32(4 * i, address, true);
    }
  }

  /** Measures a segment chunk by chunk: chunks have sums of their own, whatever the ranges are. */
  #measure(bench: Bench, tensor: number, count: number, sums: number[]): void {
    const size = this.#itemSizes[tensor]!;
    const code = DTYPES[this.#plan.tensors[tensor]!.dtype].code;
    const table = bench.core.view(bench.table, 4 * bench.readers.length);
    const { measure, readers } = bench;
    const model = readers.length > bench.count ? 4 * bench.count : -1;
    for (let start = 0; start < count; start += CHUNK) {
      if (start > 0) {
        for (let i = 0; i < readers.length; i++) {
          table.setUint32(4 * i, table.getUint32(4 * i, true) + CHUNK * size, true);
        }
      }
      const address = model < 0 ? 0 : table.getUint32(model, true);
      measure!.measure(code, bench.table, Math.min(CHUNK, count - start), address, bench.out);
      const view = bench.core.view(bench.out, 8 * measure!.width);
      for (let i = 0; i < measure!.width; i++) sums.push(view.getFloat64(8 * i, true));
    }
  }

  /** Adds the non-finite elements of a segment to the report, ordered by index and leaf. */
  #locate(
    bench: Bench,
    places: readonly number[][],
    position: number,
    segment: Range['segments'][number],
    found: NonFiniteElement[],
  ): void {
    const { code } = DTYPES[this.#plan.tensors[segment.tensor]!.dtype];
    const here: NonFiniteElement[] = [];
    for (const [i, { leaf }] of bench.readers.entries()) {
      const address = places[i]![position]!;
      let index = findNonFinite(bench.core, code, address, segment.count, 0);
      for (let n = 0; index >= 0 && n < REPORTED_NON_FINITE; n++) {
        here.push({ tensor: segment.tensor, index: segment.start + index, leaf });
        index = findNonFinite(bench.core, code, address, segment.count, index + 1);
      }
    }
    here.sort((a, b) => a.index - b.index); // stable: leaves stay in canonical order
    found.push(...here.slice(0, REPORTED_NON_FINITE - found.length));
  }
}

function weightingsOf(stage: Stage, k: number): readonly number[] {
  if (stage.kind === 'fold') return stage.weightings;
  return stage.kind === 'measure' ? stage.measure.weightings : new Array(k).fill(1);
}

function kernelArenaBytes(stage: Stage, k: number): number {
  if (stage.kind === 'fold') return combineArenaBytes(stage.combine, k);
  return stage.kind === 'measure' ? measureArenaBytes(stage.measure, k) : 0;
}

/** Room for what a range gives. */
function outputBytes(stage: Stage, k: number, blockBytes: number): number {
  if (stage.kind === 'fold') return blockBytes;
  return stage.kind === 'measure' ? 8 * measureWidth(stage.measure, k) : 0;
}

/** The elements of all tensors one behind the other. */
export function bareOutput({ tensors }: Plan): OutputLayout {
  let byteLength = 0;
  const payloads = tensors.map(({ dtype, shape }) => {
    const payload = { offset: byteLength, byteLength: elementCount(shape) * itemSize(dtype) };
    byteLength += payload.byteLength;
    return payload;
  });
  return { byteLength, literals: [], payloads };
}
