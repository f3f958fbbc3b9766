/**
 * Exact sums of weight files and of partial sums, in memory that does not depend on the size of the model: the coordinator.
 *
 *     updates, partial sums ─► plan ─► for each range: read blocks · sum chunk by chunk ─► a partial sum, or the mean
 *
 * Ranges are carried out by this thread and by what other lanes it is given (`sum-runner.ts`).
 */
import { AggregationError, FormatError } from '../errors.ts';
import { combineCrc32, crc32 as slowCrc32 } from '../formats/crc32.ts';
import type { Encoding, TensorSpec } from '../formats/encoding.ts';
import type { ByteSink, ByteSource, ScratchFactory } from '../tensor/bytes.ts';
import { itemSize } from '../tensor/dtypes.ts';
import { elementCount, tensorLabel } from '../tensor/layout.ts';
import { compareUtf8 } from '../tensor/text.ts';
import type { RunOptions } from './aggregation.ts';
import { openLanes } from './lanes.ts';
import { matchTensors } from './match.ts';
import { MAX_TOTAL_UNITS, type SumLeaf, totalOfLeaves, totalWeightingOf } from './partial-file.ts';
import { type PartialSum, verifyPartialSum } from './partial-reader.ts';
import { placePartialSum, writePartialHeader } from './partial-writer.ts';
import { runPass } from './passes.ts';
import { type AggregationInput, type PlannedInput, planInput, Sources } from './plan.ts';
import type { Range } from './ranges.ts';
import type { RangeResult } from './runner.ts';
import { SumChecks, type SumFile } from './sum-checks.ts';
import { cutSums, type SumPlan, type SumStage, type SumTerm } from './sum-runner.ts';
import { settleWeightings } from './weightings.ts';

/** Least bytes of a range that spans are measured by. */
const SPAN_BYTES = 4 << 20;

export interface SummationInputs {
  readonly updates: readonly AggregationInput[];
  readonly sums: readonly PartialSum[];
  /** Partial sums that are taken out again. */
  readonly without: readonly PartialSum[];
}

export interface SummationOptions {
  /** The tensors of the result in their order, as of `AggregationOptions`. */
  readonly tensors?: readonly TensorSpec[] | undefined;
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

  readonly #plan: SumPlan;
  readonly #sources: readonly ByteSource[];
  /** The partial sums in the order of their terms. */
  readonly #files: readonly SumFile[];
  readonly #scratch: readonly ByteSource[];

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
    const match = matchTensors(all, options.tensors);
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
      const terms: SumTerm[] = [];
      const files = new Map<SumTerm, SumFile>();
      for (const [i, one] of all.entries()) {
        const positions = match.sources[i]!;
        if (one.sum === null) {
          const { weighting } = one;
          const input = await planInput(one, positions, options.scratch, sources, scratch);
          terms.push({ input, weighting: weighting ?? 1, sum: null });
        } else {
          const { sum: file, sign } = one;
          const input = planSum(file, positions, sources);
          const { endsOffset, residuesOffset, residueBytes } = file;
          const sum = {
            ...{ endsOffset, residuesOffset, residueBytes, sign },
            source: sources.positionOf(file.source),
            leaves: file.leaves.length,
            chunks: positions.map((position) => file.chunks[position]!),
          };
          const term = { input, weighting: 0, sum };
          terms.push(term);
          files.set(term, { file, positions });
        }
      }
      // Leaves first, so that groups of leaves alone are folded fast; what is taken out last.
      terms.sort((a, b) => rankOf(a) - rankOf(b));
      const { nonFinite, blockBytes } = options;
      const plan = { tensors: match.tensors, terms, nonFinite, blockBytes };
      const inOrder = terms.flatMap((term) => files.get(term) ?? []);
      return new Summation(plan, leaves, total, sources.list, inOrder, scratch);
    } catch (error) {
      for (const source of scratch) await source.close();
      throw error;
    }
  }

  private constructor(
    plan: SumPlan,
    leaves: readonly SumLeaf[],
    total: bigint,
    sources: readonly ByteSource[],
    files: readonly SumFile[],
    scratch: readonly ByteSource[],
  ) {
    this.tensors = plan.tensors;
    this.leaves = leaves;
    this.total = total;
    this.totalWeighting = totalWeightingOf(total);
    this.parameters = plan.tensors.reduce((sum, { shape }) => sum + elementCount(shape), 0);
    this.#plan = plan;
    this.#sources = sources;
    this.#files = files;
    this.#scratch = scratch;
  }

  /**
   * Writes the mean. The sink is neither committed nor discarded.
   *
   * @throws AggregationError `non-finite`, `partial-range`, `partial-mismatch`; FormatError `partial-form`, `partial-crc`,
   *   `partial-residue`; FileError; the reason of `signal`
   */
  async run(sink: ByteSink, encoding: Encoding, options: Omit<RunOptions, 'state'> = {}): Promise<void> {
    const { byteLength, literals, payloads, checksums } = encoding;
    const itemSizes = this.tensors.map(({ dtype }) => itemSize(dtype));
    const seals = [...(checksums?.seeds ?? [])];
    const stage: SumStage = {
      kind: 'sum',
      total: this.total,
      output: { byteLength, literals, payloads },
      base: 0,
      checksums: checksums !== undefined,
    };
    let bytesDone = 0;
    await this.#work(sink, stage, options, async (result, range) => {
      for (const [i, checksum] of (result.checksums ?? []).entries()) {
        const { tensor, count } = range.segments[i]!;
        seals[tensor] = combineCrc32(seals[tensor]!, checksum, count * itemSizes[tensor]!);
        checksums!.seal(tensor, seals[tensor]!); // results have them where the encoding wants them
      }
      // What was sealed stands in later literals, which a lane may have written before.
      if (checksums !== undefined) {
        for (const { at, bytes } of range.literals) await sink.write(range.offset + at, bytes);
      }
      bytesDone += range.byteLength;
      options.onProgress?.({ bytesDone, bytesTotal: byteLength });
      await options.onWritten?.(range.offset + range.byteLength);
    });
  }

  /** Writes the partial sum. Sink and errors as for `run`, and AggregationError `aggregate-format`. */
  async write(
    sink: ByteSink,
    options: Pick<RunOptions, 'signal' | 'onProgress' | 'crc32' | 'openLanes'> = {},
  ): Promise<WrittenSum> {
    const { crc32 = slowCrc32 } = options;
    const places = placePartialSum(this);
    const { endsOffset, sumsOffset, residuesOffset } = places;
    const bytesTotal = residuesOffset - sumsOffset;
    const stage: SumStage = {
      kind: 'sum',
      total: null,
      output: {
        byteLength: bytesTotal,
        literals: [],
        payloads: places.payloads.map(({ offset, byteLength }) => ({
          offset: offset - sumsOffset,
          byteLength,
        })),
      },
      base: sumsOffset,
      checksums: false,
    };
    // Ends, sums and residues grow side by side: each has a checksum of its own.
    const crc = { ends: 0, sums: 0, residues: 0 };
    let chunk = 0;
    let residueBytes = 0;
    let residues = 0;
    await this.#work(sink, stage, options, async (result, range) => {
      const { bytes, ends, count, checksum } = result.residues!; // such a stage gives them
      crc.sums = combineCrc32(crc.sums, checksum, range.byteLength);
      const table = new DataView(new ArrayBuffer(8 * ends.length));
      for (const [i, end] of ends.entries()) table.setBigUint64(8 * i, BigInt(residueBytes + end), true);
      const endBytes = new Uint8Array(table.buffer);
      crc.ends = crc32(endBytes, crc.ends);
      await sink.write(endsOffset + 8 * chunk, endBytes);
      chunk += ends.length;
      if (bytes.byteLength > 0) {
        crc.residues = crc32(bytes, crc.residues);
        await sink.write(residuesOffset + residueBytes, bytes);
      }
      residueBytes += bytes.byteLength;
      residues += count;
      options.onProgress?.({ bytesDone: range.offset + range.byteLength, bytesTotal });
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

  /** Carries a stage out, on other threads too where every source can be read there. `onRange` gets ranges in order. */
  async #work(
    sink: ByteSink,
    stage: SumStage,
    options: Pick<RunOptions, 'signal' | 'crc32' | 'openLanes'>,
    onRange: (result: RangeResult, range: Range) => Promise<void>,
  ): Promise<void> {
    const { ranges, blockBytes } = cutSums(this.#plan, stage);
    const { openLanes: others, crc32 = slowCrc32, signal } = options;
    const checks = new SumChecks(this.#files);
    const host = { openLanes: others, crc32 };
    const lanes = await openLanes(this.#plan, this.#sources, { sink, state: undefined }, host);
    try {
      await runPass(lanes, {
        stage,
        count: ranges.length,
        // Residues come back with the results: spans are short, so that few wait in memory.
        rangeBytes: Math.max(SPAN_BYTES, blockBytes * this.#plan.terms.length),
        signal,
        onRange: async (result, index) => {
          const range = ranges.at(index);
          checks.add(result.reads!, range); // such stages give them
          await onRange(result, range);
          return true;
        },
        onSpan: async ({ bytesRead, blocks }, from) => {
          this.bytesRead += bytesRead;
          for (const [i, block] of (blocks ?? []).entries())
            await sink.write(stage.base + ranges.at(from + i).offset, block);
        },
      });
    } catch (error) {
      // What cannot be added up may have been damaged.
      if (error instanceof AggregationError || error instanceof FormatError) {
        for (const { file } of this.#files) await verifyPartialSum(file, { crc32, signal });
      }
      throw error;
    } finally {
      for (const lane of lanes) lane.close();
    }
    for (const source of this.#sources) source.checkUnchanged?.();
    // A run for some tensors only (`withOnlyBytes`) has not seen all of the files: the one that follows compares.
    const isWhole = stage.output.payloads.every(
      ({ byteLength }, i) => byteLength > 0 || elementCount(this.tensors[i]!.shape) === 0,
    );
    if (isWhole) await checks.compare(crc32);
  }
}

function rankOf({ sum }: SumTerm): number {
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
    sources: sources.positionOf(file.source),
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
        const what = known === undefined ? 'which is not in the sum' : 'whose weighting is another one there';
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
