/**
 * Exact sums of weight files and of partial sums, in memory that does not depend on the size of the model: the coordinator.
 *
 *     updates, partial sums ─► plan ─► for each range: read blocks · sum chunk by chunk ─► a partial sum, or the mean
 *
 * Chunks are done in the order of the output by the thread that calls.
 */
import { CHUNK, PARTIAL_CHUNK } from '../../assembly/abi.ts';
import { type Core, openStrategies } from '../core/core.ts';
import type { StrategyExports } from '../core/exports.ts';
import {
  finishPartial,
  type PartialKind,
  type PartialRoom,
  partialArenaBytes,
  partialKind,
  prepareTotal,
  takePartialRoom,
} from '../core/partial.ts';
import { AggregationError } from '../errors.ts';
import { combineCrc32, crc32 as slowCrc32 } from '../formats/crc32.ts';
import type { Encoding, TensorSpec } from '../formats/encoding.ts';
import type { ByteSink, ByteSource, ScratchFactory } from '../tensor/bytes.ts';
import { DTYPES, itemSize } from '../tensor/dtypes.ts';
import { elementCount, tensorLabel } from '../tensor/layout.ts';
import { compareUtf8 } from '../tensor/text.ts';
import type { RunOptions } from './aggregation.ts';
import { Blocks, blocksArenaBytes, type Reader } from './blocks.ts';
import { CHUNK_SUMS_ARENA_BYTES, type ChunkSum, ChunkSums } from './chunk-sums.ts';
import { matchTensors } from './match.ts';
import {
  MAX_TOTAL_UNITS,
  type PartialSum,
  placePartialSum,
  readResidueEnds,
  residueError,
  type SumLeaf,
  totalOfLeaves,
  totalWeightingOf,
  writePartialHeader,
} from './partial-file.ts';
import { type AggregationInput, type PlannedInput, planInput, Sources } from './plan.ts';
import { planRanges, type Range, type Ranges } from './ranges.ts';
import { settleWeightings } from './weightings.ts';

/** Bytes of a block of one input, and of all blocks together, where a chunk is not more. */
const BLOCK = 256 << 10;
const ARENA = 8 << 20;

export interface SummationInputs {
  readonly updates: readonly AggregationInput[];
  readonly sums: readonly PartialSum[];
  /** Partial sums that are taken out again. */
  readonly without: readonly PartialSum[];
}

export interface SummationOptions {
  readonly nonFinite: 'reject' | 'propagate';
  /** Room for tensors in Fortran order. */
  readonly scratch: ScratchFactory;
  /** Bytes of one input's block, a chunk of the widest tensor at least; chosen unless given. */
  readonly blockBytes?: number | undefined;
}

/** What was written of a partial sum. */
export interface WrittenSum {
  readonly byteLength: number;
  /** Numbers that stand beside the first ones. */
  readonly residues: number;
}

/** An input by tensor of the output. */
interface Term {
  readonly input: PlannedInput;
  readonly weighting: number;
  /** Of a partial sum. */
  readonly sum: {
    readonly file: PartialSum;
    readonly chunks: readonly number[];
    readonly sign: 1 | -1;
  } | null;
}

/** The job in the arena of one core. */
interface Bench {
  readonly core: Core<StrategyExports>;
  readonly blocks: Blocks;
  readonly sums: ChunkSums;
  readonly room: PartialRoom;
  readonly out: number;
}

type OnChunk = (
  sum: ChunkSum,
  segment: Range['segments'][number],
  /** Within the segment, in numbers. */
  chunk: { readonly kind: PartialKind; readonly from: number; readonly n: number },
) => void | Promise<void>;

export class Summation {
  /** The output's tensors: those of the input with the first leaf. */
  readonly tensors: readonly TensorSpec[];
  /** Those that the result has, by the UTF-8 of their ids. */
  readonly leaves: readonly SumLeaf[];
  /** Sum of the weightings in units of 2^-116. */
  readonly total: bigint;
  /** Nearest binary64 of the total. */
  readonly totalWeighting: number;
  /** Elements of all tensors together. */
  readonly parameters: number;
  /** Bytes read from the inputs so far. */
  bytesRead = 0;

  readonly #terms: readonly Term[];
  readonly #sources: readonly ByteSource[];
  readonly #scratch: readonly ByteSource[];
  readonly #options: SummationOptions;

  /**
   * Checks the inputs against each other.
   *
   * @throws AggregationError `average-no-input`, `average-count`, `average-name`, `average-dtype`, `average-shape` and those
   *   of weightings, as `Aggregation.open`; `partial-leaf-duplicate` for a leaf in two inputs, `partial-leaf-unknown` for one
   *   that is taken out and not in, `partial-empty` when nothing is left; `aggregate-dtype-unsupported`
   */
  static async open(inputs: SummationInputs, options: SummationOptions): Promise<Summation> {
    const { sums, without } = inputs;
    const difference = inputs.updates.find(({ layout }) => layout.isDifference === true);
    if (difference !== undefined) {
      const { leaf } = difference;
      throw new AggregationError(
        'aggregate-difference',
        `${leaf} is a difference to a global model: partial sums are of models`,
        { leaf },
      );
    }
    const leaves = settleLeaves(inputs);
    const total = totalOfLeaves(leaves);
    if (total > MAX_TOTAL_UNITS) {
      throw new AggregationError('average-sum-overflow', 'the weightings add up to more than 2^53 - 1');
    }
    const updates = inputs.updates.filter(({ weighting }) => weighting !== 0);
    const ordered = [
      ...updates.map((update) => ({ ...update, first: update.leaf, sum: null, sign: 1 as const })),
      ...sums.map((sum) => ({ ...asInput(sum), sum, sign: 1 as const })),
    ].sort((a, b) => compareUtf8(a.first, b.first));
    const all = [...ordered, ...without.map((sum) => ({ ...asInput(sum), sum, sign: -1 as const }))];
    const match = matchTensors(all);
    for (const [i, tensor] of match.tensors.entries()) {
      if (tensor.dtype !== 'void16') continue;
      throw new AggregationError(
        'aggregate-dtype-unsupported',
        `${tensorLabel(tensor, i)} is void16, of which there are no sums`,
        { tensor: tensor.name ?? i },
      );
    }
    const sources = new Sources();
    const scratch: ByteSource[] = [];
    try {
      const terms: Term[] = [];
      for (const [i, one] of all.entries()) {
        const positions = match.sources[i]!;
        if (one.sum === null) {
          const { weighting } = one;
          const input = await planInput(one, positions, options.scratch, sources, scratch);
          terms.push({ input, weighting: weighting ?? 1, sum: null });
        } else {
          const { sum: file, sign } = one;
          const input = planSum(file, positions, sources);
          const chunks = positions.map((position) => file.chunks[position]!);
          terms.push({ input, weighting: 0, sum: { file, chunks, sign } });
        }
      }
      // Leaves first, so that groups of leaves alone are folded fast; what is taken out last.
      terms.sort((a, b) => rankOf(a) - rankOf(b));
      return new Summation(match.tensors, leaves, total, terms, sources.list, scratch, options);
    } catch (error) {
      for (const source of scratch) await source.close();
      throw error;
    }
  }

  private constructor(
    tensors: readonly TensorSpec[],
    leaves: readonly SumLeaf[],
    total: bigint,
    terms: readonly Term[],
    sources: readonly ByteSource[],
    scratch: readonly ByteSource[],
    options: SummationOptions,
  ) {
    this.tensors = tensors;
    this.leaves = leaves;
    this.total = total;
    this.totalWeighting = totalWeightingOf(total);
    this.parameters = tensors.reduce((sum, { shape }) => sum + elementCount(shape), 0);
    this.#terms = terms;
    this.#sources = sources;
    this.#scratch = scratch;
    this.#options = options;
  }

  /**
   * Writes the mean. The sink is neither committed nor discarded.
   *
   * @throws AggregationError `non-finite`, `partial-range`, `partial-mismatch`; FormatError `partial-form`,
   *   `partial-residue`; FileError; the reason of `signal`
   */
  async run(sink: ByteSink, encoding: Encoding, options: Omit<RunOptions, 'openLanes' | 'state'> = {}) {
    const { signal, onProgress, onWritten, crc32 = slowCrc32 } = options;
    const { checksums } = encoding;
    const seals = [...(checksums?.seeds ?? [])];
    const propagate = this.#options.nonFinite === 'propagate';
    const itemSizes = this.tensors.map(({ dtype }) => itemSize(dtype));
    await this.#work(itemSizes, encoding, async (bench, ranges, each) => {
      const { core, room, out } = bench;
      prepareTotal(core, room, this.total);
      for (let i = 0; i < ranges.length; i++) {
        const range = ranges.at(i);
        signal?.throwIfAborted();
        await each(range, ({ sums, block }, segment, { kind, from, n }) => {
          const { tensor, start, at } = segment;
          const size = itemSizes[tensor]! / kind.numbers;
          const refusal = finishPartial(core, room, kind, sums, block, n, out + at + from * size, propagate);
          if (refusal === undefined) return;
          const index = start + Math.floor((from + refusal.index) / kind.numbers);
          throw new AggregationError(
            refusal.code,
            `${this.#labelOf(tensor, index)}: the sum has no mean in ${this.tensors[tensor]!.dtype}`,
            { tensor, index },
          );
        });
        const bytes = core.bytes(out, range.byteLength);
        for (const { tensor, at, count } of range.segments) {
          if (checksums === undefined) break;
          const byteLength = count * itemSizes[tensor]!;
          const checksum = crc32(bytes.subarray(at, at + byteLength));
          seals[tensor] = combineCrc32(seals[tensor]!, checksum, byteLength);
          checksums.seal(tensor, seals[tensor]!);
        }
        // Checksums stand behind the elements: in this range or a later one.
        for (const literal of range.literals) bytes.set(literal.bytes, literal.at);
        await sink.write(range.offset, bytes);
        onProgress?.({ bytesDone: range.offset + range.byteLength, bytesTotal: encoding.byteLength });
        await onWritten?.(range.offset + range.byteLength);
      }
    });
  }

  /** Writes the partial sum. Sink and errors as for `run`, and AggregationError `aggregate-format`. */
  async write(
    sink: ByteSink,
    options: Pick<RunOptions, 'signal' | 'onProgress' | 'crc32'> = {},
  ): Promise<WrittenSum> {
    const { signal, onProgress, crc32 = slowCrc32 } = options;
    const places = placePartialSum(this);
    const { endsOffset, sumsOffset, residuesOffset } = places;
    const sizes = this.tensors.map(({ dtype }) => 8 * partialKind(DTYPES[dtype].code).numbers);
    const bytesTotal = residuesOffset - sumsOffset;
    const layout: Pick<Encoding, 'byteLength' | 'literals' | 'payloads'> = {
      byteLength: bytesTotal,
      literals: [],
      payloads: places.payloads.map(({ offset, byteLength }) => ({
        offset: offset - sumsOffset,
        byteLength,
      })),
    };
    // Ends, sums and residues grow side by side: each has a checksum of its own.
    const crc = { ends: 0, sums: 0, residues: 0 };
    let chunk = 0;
    let residueBytes = 0;
    let residues = 0;
    await this.#work(sizes, layout, async (bench, ranges, each) => {
      const { core, out } = bench;
      for (let i = 0; i < ranges.length; i++) {
        const range = ranges.at(i);
        signal?.throwIfAborted();
        const ends: number[] = [];
        await each(range, async ({ sums, block, blockBytes }, { at }, { from, n }) => {
          core.bytes(out + at + 8 * from, 8 * n).set(core.bytes(sums, 8 * n));
          if (blockBytes > 0) {
            const bytes = core.bytes(block, blockBytes);
            crc.residues = crc32(bytes, crc.residues);
            residues += countResidues(core.view(block, blockBytes), n);
            await sink.write(residuesOffset + residueBytes, bytes);
            residueBytes += blockBytes;
          }
          ends.push(residueBytes);
        });
        const bytes = core.bytes(out, range.byteLength);
        crc.sums = crc32(bytes, crc.sums);
        await sink.write(sumsOffset + range.offset, bytes);
        const table = new DataView(new ArrayBuffer(8 * ends.length));
        for (const [i, end] of ends.entries()) table.setBigUint64(8 * i, BigInt(end), true);
        const endBytes = new Uint8Array(table.buffer);
        crc.ends = crc32(endBytes, crc.ends);
        await sink.write(endsOffset + 8 * chunk, endBytes);
        chunk += ends.length;
        onProgress?.({ bytesDone: range.offset + range.byteLength, bytesTotal });
      }
    });
    const header = writePartialHeader(this, places, residueBytes, (seed) => {
      const ends = combineCrc32(seed, crc.ends, sumsOffset - endsOffset);
      return combineCrc32(combineCrc32(ends, crc.sums, bytesTotal), crc.residues, residueBytes);
    });
    await sink.write(0, header);
    return { byteLength: residuesOffset + residueBytes, residues };
  }

  /** Gives back the room of reordered tensors. The sources stay open: they are the caller's. */
  async close(): Promise<void> {
    for (const source of this.#scratch) await source.close();
  }

  /** Opens a core for output of elements of these sizes, and hands out its ranges and a way to sum one. */
  async #work(
    itemSizes: readonly number[],
    layout: Pick<Encoding, 'byteLength' | 'literals' | 'payloads'>,
    work: (
      bench: Bench,
      ranges: Ranges,
      each: (range: Range, onChunk: OnChunk) => Promise<void>,
    ) => Promise<void>,
  ): Promise<void> {
    const sizes = this.tensors.map(({ dtype }) => itemSize(dtype));
    const sumSizes = this.tensors.map(({ dtype }) => 8 * partialKind(DTYPES[dtype].code).numbers);
    // How much longer sums are than what is written of them.
    const stretch = Math.max(1, ...sumSizes.map((size, i) => size / itemSizes[i]!));
    const shares = this.#terms.reduce((sum, term) => sum + (term.sum === null ? 1 : stretch), 0);
    const wanted = this.#options.blockBytes ?? Math.min(BLOCK, Math.floor(ARENA / shares));
    const blockBytes = Math.max(wanted, CHUNK * Math.max(1, ...itemSizes));
    const readers = this.#terms.map(
      ({ input, sum }): Reader => ({
        input,
        itemSizes: sum === null ? sizes : sumSizes,
        blockBytes: sum === null ? blockBytes : blockBytes * stretch,
      }),
    );
    const core = await openStrategies(
      CHUNK_SUMS_ARENA_BYTES + blocksArenaBytes(readers) + partialArenaBytes(1) + blockBytes + 256,
    );
    try {
      const bench: Bench = {
        core,
        blocks: await Blocks.open(core, this.#sources, readers),
        sums: new ChunkSums(core, this.#options.nonFinite === 'propagate'),
        room: takePartialRoom(core, 1),
        out: core.take(blockBytes + 16),
      };
      const ranges = planRanges(layout, itemSizes, blockBytes);
      await work(bench, ranges, (range, onChunk) => this.#sum(bench, range, onChunk));
      this.bytesRead += bench.blocks.bytesRead;
    } finally {
      core.close();
    }
    for (const source of this.#sources) source.checkUnchanged?.();
  }

  /** Sums a range chunk by chunk. */
  async #sum({ core, blocks, sums }: Bench, range: Range, onChunk: OnChunk): Promise<void> {
    const reading = blocks.read(range);
    if (reading !== undefined) await reading;
    for (const [s, segment] of range.segments.entries()) {
      const { tensor, start, count } = segment;
      const { dtype } = this.tensors[tensor]!;
      const kind = partialKind(DTYPES[dtype].code);
      const size = itemSize(dtype) / kind.numbers;
      const numbers = count * kind.numbers;
      const first = (start * kind.numbers) / PARTIAL_CHUNK;
      const chunks = Math.ceil(numbers / PARTIAL_CHUNK);
      const values = this.#terms.map((_, i) => blocks.place(i, s, tensor, count));
      const ends = await this.#readEnds(tensor, first, chunks);
      for (let c = 0; c < chunks; c++) {
        const from = c * PARTIAL_CHUNK;
        const n = Math.min(PARTIAL_CHUNK, numbers - from);
        sums.begin(kind, n, (place) => {
          const index = start + Math.floor((from + place) / kind.numbers);
          return { tensor, index, label: this.#labelOf(tensor, index) };
        });
        for (const [i, { input, weighting, sum }] of this.#terms.entries()) {
          if (sum === null) {
            sums.addLeaf(input.leaf, values[i]! + from * size, weighting);
            continue;
          }
          const [begin, end] = [ends[i]![c]!, ends[i]![c + 1]!];
          const block = begin === end ? 0 : await this.#readBlock(core, sums, sum.file, begin, end, n);
          sums.addSum(input.leaf, values[i]! + from * 8, block, sum.file.leaves.length, sum.sign);
        }
        const result = onChunk(sums.end(), segment, { kind, from, n });
        if (result !== undefined) await result;
      }
    }
  }

  /** By input: where the residues of chunks of a tensor begin and end; nothing for updates. */
  #readEnds(tensor: number, first: number, count: number): Promise<(readonly number[])[]> {
    return Promise.all(
      this.#terms.map(({ sum }) =>
        sum === null ? [] : readResidueEnds(sum.file, sum.chunks[tensor]! + first, count),
      ),
    );
  }

  /** Reads and checks the residues of a chunk. */
  async #readBlock(
    core: Core<StrategyExports>,
    sums: ChunkSums,
    file: PartialSum,
    begin: number,
    end: number,
    n: number,
  ): Promise<number> {
    const byteLength = end - begin;
    // No block is longer: a length is a claim.
    if (byteLength > core.exports.residueRoomBytes() + 8 * PARTIAL_CHUNK + 16)
      throw residueError(file, begin);
    const address = sums.takeResidues(byteLength);
    const read = await file.source.readInto(file.residuesOffset + begin, core.bytes(address, byteLength));
    this.bytesRead += read;
    const wrong =
      read < byteLength ? read : core.exports.checkResidues(address, byteLength, n, file.leaves.length);
    if (wrong >= 0) throw residueError(file, begin + wrong);
    return address;
  }

  #labelOf(tensor: number, index: number): string {
    return `${tensorLabel(this.tensors[tensor]!, tensor)}[${index}]`;
  }
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

function rankOf({ sum }: Term): number {
  return sum === null ? 0 : sum.sign === 1 ? 1 : 2;
}

/** A partial sum as tensors are matched: with those of its leaves. */
function asInput({ source, tensors, leaves }: PartialSum) {
  const places = tensors.map((tensor) => ({
    ...tensor,
    order: 'C' as const,
    byteOrder: 'little' as const,
    byteOffset: null,
    byteLength: 0,
  }));
  return { leaf: source.name, source, layout: { tensors: places }, first: leaves[0]!.leaf };
}

function planSum(file: PartialSum, positions: readonly number[], sources: Sources): PlannedInput {
  return {
    leaf: file.source.name,
    sources: new Uint32Array(positions.length).fill(sources.positionOf(file.source)),
    byteOffsets: Float64Array.from(positions, (position) => file.byteOffsets[position]!),
    swaps: new Uint8Array(positions.length).fill(1),
  };
}

/** The leaves of the result. */
function settleLeaves({ updates, sums, without }: SummationInputs): readonly SumLeaf[] {
  const given: SumLeaf[] = [
    ...updates.map(({ leaf, weighting }) => ({ leaf, weighting })),
    ...sums.flatMap(({ leaves }) => leaves),
  ];
  if (given.length === 0) throw new AggregationError('average-no-input', 'there is nothing to add');
  settleWeightings(given);
  const leaves = new Map<string, SumLeaf>();
  for (const { leaf, weighting } of given) {
    if (leaves.has(leaf)) {
      throw new AggregationError('partial-leaf-duplicate', `${leaf} is in more than one input`, { leaf });
    }
    leaves.set(leaf, { leaf, weighting });
  }
  for (const { source, leaves: listed } of without) {
    for (const { leaf, weighting } of listed) {
      const known = leaves.get(leaf);
      if (known === undefined || known.weighting !== weighting) {
        const what = known === undefined ? 'which is not in' : 'whose weighting is another one there';
        throw new AggregationError('partial-leaf-unknown', `${source.name} has ${leaf}, ${what}`, { leaf });
      }
      leaves.delete(leaf);
    }
  }
  const left = [...leaves.values()].filter(({ weighting }) => weighting !== 0);
  if (left.length === 0) {
    throw new AggregationError('partial-empty', 'every leaf is taken out: nothing is left');
  }
  return left.sort((a, b) => compareUtf8(a.leaf, b.leaf));
}
