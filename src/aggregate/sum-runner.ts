/**
 * One thread's share of an exact sum: ranges, one at a time, in an arena of its own. `runner.ts` is the same for aggregations.
 *
 *     for each range: read blocks · sum chunk by chunk · the mean, or nearest binary64 and residues
 *
 * Chunks do not depend on each other, so ranges have the same bits whoever does which. Only where residues lie in the file
 * depends on all chunks before: they go back with the result, and the coordinator puts them one behind the other.
 */
import { CHUNK, PARTIAL_CHUNK, PARTIAL_RESIDUE_BYTES, PARTIAL_TOTAL_BYTES } from '../../assembly/abi.ts';
import { type Core, openStrategies } from '../core/core.ts';
import type { StrategyExports } from '../core/exports.ts';
import { finishPartial, type PartialKind, partialKind, prepareTotal } from '../core/partial.ts';
import { AggregationError } from '../errors.ts';
import type { Crc32 } from '../formats/crc32.ts';
import type { TensorSpec } from '../formats/encoding.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { DTYPES, itemSize } from '../tensor/dtypes.ts';
import { tensorLabel } from '../tensor/layout.ts';
import { Blocks, blocksArenaBytes, type Reader } from './blocks.ts';
import { type ChunkSum, ChunkSums, chunkSumsArenaBytes } from './chunk-sums.ts';
import { readResidueEnds, residueError } from './partial-reader.ts';
import type { PlannedInput } from './plan.ts';
import { planRanges, type Range, type Ranges } from './ranges.ts';
import type { Outlets, OutputLayout, RangeResult } from './runner.ts';
import type { SumRead } from './sum-checks.ts';

/** Bytes of a block of one input, and of all blocks together, where a chunk is not more. */
const BLOCK = 256 << 10;
const ARENA = 8 << 20;

/** An input by tensor of the output. */
export interface SumTerm {
  readonly input: PlannedInput;
  readonly weighting: number;
  /** Of a partial sum. */
  readonly sum: {
    /** Position of its file among the plan's sources. */
    readonly source: number;
    readonly endsOffset: number;
    readonly residuesOffset: number;
    readonly residueBytes: number;
    /** How many leaves it has. */
    readonly leaves: number;
    /** By tensor of the output: its first chunk. */
    readonly chunks: readonly number[];
    readonly sign: 1 | -1;
  } | null;
}

/** Plain data. */
export interface SumPlan {
  readonly tensors: readonly TensorSpec[];
  /** Leaves first, what is taken out last. */
  readonly terms: readonly SumTerm[];
  readonly nonFinite: 'reject' | 'propagate';
  /** Bytes of one input's block, a chunk of the widest tensor at least; chosen unless given. */
  readonly blockBytes: number | undefined;
}

/** What is made of sums. Plain data. */
export interface SumStage {
  readonly kind: 'sum';
  /** The mean under this total in units of 2^-116; null: sums, and residues with the results. */
  readonly total: bigint | null;
  readonly output: OutputLayout;
  /** Where the output begins in the sink. */
  readonly base: number;
  /** Of a mean: whether the output's format wants the CRC-32 of elements. */
  readonly checksums: boolean;
}

/** What a range of sums gave besides. */
export interface RangeResidues {
  /** Of its chunks, one behind the other. */
  readonly bytes: Uint8Array;
  /** By chunk: where its residues end in these. */
  readonly ends: readonly number[];
  /** Numbers that stand beside the first ones. */
  readonly count: number;
  /** CRC-32 of the sums. */
  readonly checksum: number;
}

/** How the ranges of a stage are cut: the same on every thread. */
interface Cut {
  /** By tensor: bytes of an element of the output. */
  readonly itemSizes: readonly number[];
  readonly blockBytes: number;
  /** How much longer sums are than what is written of them. */
  readonly stretch: number;
  readonly ranges: Ranges;
}

/** Cuts the output of a stage. */
export function cutSums({ tensors, terms, blockBytes }: SumPlan, { total, output }: SumStage): Cut {
  const sumSizes = sumSizesOf(tensors);
  const itemSizes = total === null ? sumSizes : tensors.map(({ dtype }) => itemSize(dtype));
  const stretch = Math.max(1, ...sumSizes.map((size, i) => size / itemSizes[i]!));
  const shares = terms.reduce((sum, term) => sum + (term.sum === null ? 1 : stretch), 0);
  const wanted = blockBytes ?? Math.min(BLOCK, Math.floor(ARENA / shares));
  const bytes = Math.max(wanted, CHUNK * Math.max(1, ...itemSizes));
  return { itemSizes, blockBytes: bytes, stretch, ranges: planRanges(output, itemSizes, bytes) };
}

function sumSizesOf(tensors: readonly TensorSpec[]): number[] {
  return tensors.map(({ dtype }) => 8 * partialKind(DTYPES[dtype].code).numbers);
}

/** A stage in the arena of one core. */
interface Bench {
  readonly core: Core<StrategyExports>;
  readonly cut: Cut;
  readonly blocks: Blocks;
  readonly sums: ChunkSums;
  /** Address of the prepared total, 0 where sums are written. */
  readonly total: number;
  readonly out: number;
}

type OnChunk = (
  sum: ChunkSum,
  segment: Range['segments'][number],
  /** Within the segment, in numbers. */
  chunk: { readonly kind: PartialKind; readonly from: number; readonly n: number },
) => void;

export class SumRunner {
  readonly #plan: SumPlan;
  readonly #sources: readonly ByteSource[];
  readonly #crc32: Crc32;
  #bench: Bench | null = null;
  #residueBytesRead = 0;

  /** @param sources those of the plan, open on this thread; they stay the caller's */
  constructor(plan: SumPlan, sources: readonly ByteSource[], crc32: Crc32) {
    this.#plan = plan;
    this.#sources = sources;
    this.#crc32 = crc32;
  }

  /** A range of the stage that was begun. */
  rangeAt(index: number): Range {
    if (this.#bench === null) throw new RangeError('no stage was begun');
    return this.#bench.cut.ranges.at(index);
  }

  /** Bytes read for that stage so far. */
  get bytesRead(): number {
    return (this.#bench?.blocks.bytesRead ?? 0) + this.#residueBytesRead;
  }

  /** Prepares for a stage. */
  async begin(stage: SumStage): Promise<void> {
    this.close();
    this.#residueBytesRead = 0;
    const { tensors, terms, nonFinite } = this.#plan;
    const cut = cutSums(this.#plan, stage);
    const { blockBytes, stretch } = cut;
    const sizes = tensors.map(({ dtype }) => itemSize(dtype));
    const sumSizes = sumSizesOf(tensors);
    const readers = terms.map(
      ({ input, sum }): Reader => ({
        input,
        itemSizes: sum === null ? sizes : sumSizes,
        blockBytes: sum === null ? blockBytes : blockBytes * stretch,
      }),
    );
    const inputs = {
      leaves: terms.filter(({ sum }) => sum === null).length,
      hasResidues: terms.some(({ sum }) => sum !== null && sum.residueBytes > 0),
    };
    const core = await openStrategies(
      chunkSumsArenaBytes(inputs) + blocksArenaBytes(readers) + PARTIAL_TOTAL_BYTES + blockBytes + 16,
    );
    try {
      this.#bench = {
        core,
        cut,
        blocks: await Blocks.open(core, this.#sources, readers),
        sums: new ChunkSums(core, inputs, nonFinite === 'propagate'),
        total: stage.total === null ? 0 : prepareTotal(core, stage.total),
        out: core.take(blockBytes),
      };
    } catch (error) {
      core.close();
      throw error;
    }
  }

  /**
   * Carries out one range of the stage that was begun.
   *
   * @throws AggregationError `non-finite`, `partial-range`, `partial-mismatch`; FormatError `partial-form`, `partial-residue`;
   *   FileError, what the outlets throw
   */
  async run(range: Range, stage: SumStage, outlets: Outlets): Promise<RangeResult> {
    const bench = this.#bench;
    if (bench === null) throw new RangeError('no stage was begun');
    return stage.total === null
      ? this.#write(bench, range, stage, outlets)
      : this.#finish(bench, range, stage, outlets);
  }

  /** Gives back the core. The sources stay open. */
  close(): void {
    this.#bench?.core.close();
    this.#bench = null;
  }

  /** The mean of a range. */
  async #finish(bench: Bench, range: Range, stage: SumStage, outlets: Outlets): Promise<RangeResult> {
    const { core, total, out, cut } = bench;
    const propagate = this.#plan.nonFinite === 'propagate';
    const reads = await this.#sum(
      bench,
      range,
      ({ sums, block }, { tensor, start, at }, { kind, from, n }) => {
        const size = cut.itemSizes[tensor]! / kind.numbers;
        const refusal = finishPartial(core, total, kind, sums, block, n, out + at + from * size, propagate);
        if (refusal === undefined) return;
        const index = start + Math.floor((from + refusal.index) / kind.numbers);
        throw new AggregationError(
          refusal.code,
          `${this.#labelOf(tensor, index)}: the sum has no mean in ${this.#plan.tensors[tensor]!.dtype}`,
          { tensor, index },
        );
      },
    );
    const bytes = core.bytes(out, range.byteLength);
    const checksums = stage.checksums
      ? range.segments.map(({ tensor, at, count }) =>
          this.#crc32(bytes.subarray(at, at + count * cut.itemSizes[tensor]!)),
        )
      : undefined;
    for (const literal of range.literals) bytes.set(literal.bytes, literal.at);
    const written = outlets.write(stage.base + range.offset, bytes);
    if (written !== undefined) await written;
    return { found: [], reads, checksums };
  }

  /** The sums of a range. */
  async #write(bench: Bench, range: Range, stage: SumStage, outlets: Outlets): Promise<RangeResult> {
    const { core, out } = bench;
    const parts: Uint8Array[] = [];
    const ends: number[] = [];
    let end = 0;
    let count = 0;
    const reads = await this.#sum(bench, range, ({ sums, block, blockBytes }, { at }, { from, n }) => {
      core.bytes(out + at + 8 * from, 8 * n).set(core.bytes(sums, 8 * n));
      if (blockBytes > 0) {
        count += countResidues(core.view(block, blockBytes), n);
        parts.push(core.bytes(block, blockBytes).slice());
        end += blockBytes;
      }
      ends.push(end);
    });
    const bytes = core.bytes(out, range.byteLength);
    const checksum = this.#crc32(bytes);
    const written = outlets.write(stage.base + range.offset, bytes);
    if (written !== undefined) await written;
    return { found: [], reads, residues: { bytes: joined(parts, end), ends, count, checksum } };
  }

  /** Sums a range chunk by chunk. Answers what was read of partial sums, by segment. */
  async #sum({ core, blocks, sums }: Bench, range: Range, onChunk: OnChunk): Promise<SumRead[][]> {
    const { tensors, terms } = this.#plan;
    const reading = blocks.read(range);
    if (reading !== undefined) await reading;
    const reads: SumRead[][] = [];
    for (const [s, segment] of range.segments.entries()) {
      const { tensor, start, count } = segment;
      const { dtype } = tensors[tensor]!;
      const kind = partialKind(DTYPES[dtype].code);
      const size = itemSize(dtype) / kind.numbers;
      const numbers = count * kind.numbers;
      const first = (start * kind.numbers) / PARTIAL_CHUNK;
      const chunks = Math.ceil(numbers / PARTIAL_CHUNK);
      const values = terms.map((_, i) => blocks.place(i, s, tensor, count));
      const ends = await this.#readEnds(tensor, first, chunks);
      const residues = terms.map(() => 0);
      for (let c = 0; c < chunks; c++) {
        const from = c * PARTIAL_CHUNK;
        const n = Math.min(PARTIAL_CHUNK, numbers - from);
        sums.begin(kind, n, (place) => {
          const index = start + Math.floor((from + place) / kind.numbers);
          return { tensor, index, label: this.#labelOf(tensor, index) };
        });
        for (const [i, { input, weighting, sum }] of terms.entries()) {
          if (sum === null) {
            sums.addLeaf(input.leaf, values[i]! + from * size, weighting);
            continue;
          }
          const [begin, end] = [ends[i]![c]!, ends[i]![c + 1]!];
          let block = 0;
          if (begin < end) {
            block = await this.#readBlock(core, sums, sum, begin, end, n);
            residues[i] = this.#crc32(core.bytes(block, end - begin), residues[i]);
          }
          sums.addSum(input.leaf, values[i]! + from * 8, block, sum.leaves, sum.sign);
        }
        onChunk(sums.end(), segment, { kind, from, n });
      }
      const read = [];
      for (const [i, { sum }] of terms.entries()) {
        if (sum === null) continue;
        const bytes = core.bytes(values[i]!, 8 * numbers);
        const residueBytes = ends[i]!.at(-1)! - ends[i]![0]!; // there is one more than chunks
        read.push({ sums: this.#crc32(bytes), numbers, residues: residues[i]!, residueBytes });
      }
      reads.push(read);
    }
    return reads;
  }

  /** By input: where the residues of chunks of a tensor begin and end; nothing for updates. */
  #readEnds(tensor: number, first: number, count: number): Promise<(readonly number[])[]> {
    return Promise.all(
      this.#plan.terms.map(({ sum }) => {
        if (sum === null) return [];
        const file = { ...sum, source: this.#sources[sum.source]! };
        return readResidueEnds(file, sum.chunks[tensor]! + first, count);
      }),
    );
  }

  /** Reads and checks the residues of a chunk. */
  async #readBlock(
    core: Core<StrategyExports>,
    sums: ChunkSums,
    { source: position, residuesOffset, leaves }: NonNullable<SumTerm['sum']>,
    begin: number,
    end: number,
    n: number,
  ): Promise<number> {
    const source = this.#sources[position]!;
    const byteLength = end - begin;
    // No block is longer: a length is a claim.
    if (byteLength > PARTIAL_RESIDUE_BYTES) throw residueError({ source, residuesOffset }, begin);
    const address = sums.takeResidues(byteLength);
    const read = await source.readInto(residuesOffset + begin, core.bytes(address, byteLength));
    this.#residueBytesRead += read;
    const wrong = read < byteLength ? read : core.exports.checkResidues(address, byteLength, n, leaves);
    if (wrong >= 0) throw residueError({ source, residuesOffset }, begin + wrong);
    return address;
  }

  #labelOf(tensor: number, index: number): string {
    return `${tensorLabel(this.#plan.tensors[tensor]!, tensor)}[${index}]`;
  }
}

function joined(parts: readonly Uint8Array[], byteLength: number): Uint8Array {
  const bytes = new Uint8Array(byteLength);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.byteLength;
  }
  return bytes;
}

/** Residues of a block of n numbers. */
function countResidues(block: DataView, n: number): number {
  let count = block.getUint32(0, true);
  if (block.getUint32(4, true) === 0) return count;
  for (let i = 0; i < n; i++) {
    if (block.getFloat64(8 + 8 * i, true) !== 0) count++;
  }
  return count;
}
