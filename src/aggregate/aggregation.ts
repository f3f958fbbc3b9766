/**
 * One aggregation: K updates in, one file out, in memory that depends on neither the size of the model nor the host.
 *
 *     inputs ─► settle weightings, match tensors ─► plan ranges ─► for each range: read K blocks · fold · write one block
 *
 * Every input is read once, by position. What differs between inputs (container, header lengths, byte order, memory
 * order) ends where their blocks enter the arena; the fold sees K addresses of little-endian elements in C order.
 */
import type { Core } from '../core/core.ts';
import { findNonFinite, swapBytes } from '../core/elements.ts';
import type { FoldExports } from '../core/exports.ts';
import { meanArenaBytes, planMean } from '../core/mean.ts';
import { AggregationError, type NonFiniteElement } from '../errors.ts';
import { type Crc32, crc32 } from '../formats/crc32.ts';
import type { Encoding, TensorSpec } from '../formats/encoding.ts';
import { type ByteSink, type ByteSource, memoryScratch, type ScratchFactory } from '../tensor/bytes.ts';
import { DTYPES, itemSize } from '../tensor/dtypes.ts';
import { elementCount, type Layout, type TensorLayout, tensorLabel } from '../tensor/layout.ts';
import { compareUtf8 } from '../tensor/text.ts';
import { type Combine, combineArenaBytes, openCombine, openKernelCore } from './kernels.ts';
import { matchTensors } from './match.ts';
import { planRanges, type Range } from './ranges.ts';
import { planReads } from './reads.ts';
import { changed, needsReorder, reorderInto } from './reorder.ts';
import { mean } from './strategies/mean.ts';
import type { Strategy } from './strategies/strategy.ts';
import { settleWeightings } from './weightings.ts';

/** Bytes of a block of one input: the measured optimum for reads straight into the core's memory. */
const BLOCK = 256 << 10;

/** All blocks together, so that hundreds of inputs take smaller blocks instead of more memory. */
const ARENA = 8 << 20;

/** Smallest block: a chunk of the widest element. */
const MIN_BLOCK = 64 << 10;

/** Blocks of two inputs never lie a power of two apart, where they would compete for the same lines of the cache. */
const STAGGER = 64;

/** A report of non-finite elements names this many. */
const REPORTED_NON_FINITE = 8;

/** One contributor: who, how much, and where its tensors lie. */
export interface AggregationInput {
  /** Identity in messages; inputs are folded in the order of these ids (by their UTF-8 bytes). */
  readonly leaf: string;
  readonly source: ByteSource;
  readonly layout: Pick<Layout, 'tensors'>;
  /** In {0} ∪ [2^-64, 2^53]; null when the input has none. 0 leaves the input out. */
  readonly weighting: number | null;
}

export interface AggregationOptions {
  /** The rule, by default the exact weighted mean. */
  readonly strategy?: Strategy | undefined;
  /** What NaN and infinity in inputs do: refuse (default), or follow IEEE 754 into the result as canonical NaN. */
  readonly nonFinite?: 'reject' | 'propagate' | undefined;
  /** Bytes of one input's block; chosen by the number of inputs unless given. */
  readonly blockBytes?: number | undefined;
  /** Room for tensors in Fortran order, which are put into C order first; memory unless given. */
  readonly scratch?: ScratchFactory | undefined;
}

/** As much of an AbortSignal as work needs that looks at it between two blocks. */
export type Stop = Pick<AbortSignal, 'throwIfAborted'>;

export interface RunOptions {
  readonly signal?: Stop | undefined;
  /** Called after each range with the bytes of the output that are written. */
  readonly onProgress?:
    | ((progress: { readonly bytesDone: number; readonly bytesTotal: number }) => void)
    | undefined;
  /** For formats with checksums: a faster one than ours, where the host has it. */
  readonly crc32?: Crc32 | undefined;
  /** Called with each block of the output in the order of the file, before its memory is reused. */
  readonly onBlock?: ((bytes: Uint8Array) => void) | undefined;
}

/** A tensor of an input as the fold wants to read it. */
interface Stored {
  readonly source: ByteSource;
  readonly byteOffset: number;
  /** Bytes to turn around per number, 1 for none. */
  readonly swap: number;
}

interface Contributor {
  readonly leaf: string;
  readonly weighting: number;
  /** By tensor of the output. */
  readonly tensors: readonly Stored[];
}

/**
 * The plan of one aggregation and the means to carry it out.
 *
 *     const aggregation = await Aggregation.open(inputs, options);
 *     await aggregation.run(sink, encoding);
 *     await aggregation.close();
 */
export class Aggregation {
  /** The output's tensors, as the first input has them. */
  readonly tensors: readonly TensorSpec[];
  /** Ids of the inputs that count, in canonical order. */
  readonly leaves: readonly string[];
  /** Nearest binary64 of the exact sum of the weightings. */
  readonly totalWeighting: number;
  /** Elements of all tensors together. */
  readonly parameters: number;
  /** Bytes read from the inputs so far. */
  bytesRead = 0;

  readonly #core: Core<FoldExports>;
  readonly #fold: Combine;
  readonly #contributors: readonly Contributor[];
  readonly #scratch: readonly ByteSource[];
  readonly #nonFinite: 'reject' | 'propagate';
  readonly #blockBytes: number;
  readonly #spare: number;
  readonly #table: number;
  readonly #blocks: readonly number[];
  readonly #out: number;

  /**
   * Checks the inputs against each other and prepares the fold.
   *
   * @throws AggregationError when inputs do not fit together (`average-count`, `average-name`, `average-dtype`,
   *   `average-shape`), a weighting is out of bounds (`average-…-weight`, `average-weight-range`,
   *   `average-sum-overflow`, `average-all-zero`, `weighting-missing`), ids repeat (`average-duplicate-leaf`), or the
   *   strategy cannot do a dtype (`aggregate-dtype-unsupported`)
   */
  static async open(
    inputs: readonly AggregationInput[],
    options: AggregationOptions = {},
  ): Promise<Aggregation> {
    if (inputs.length === 0) throw new AggregationError('average-no-input', 'there is nothing to average');
    const strategy = options.strategy ?? mean;
    const weightings = settleWeightings(inputs);
    const counting = inputs
      .map((input, i) => ({ ...input, weighting: weightings[i]! }))
      .filter((input) => input.weighting !== 0)
      .sort((a, b) => compareUtf8(a.leaf, b.leaf));
    for (const [i, { leaf }] of counting.entries()) {
      if (leaf === counting[i + 1]?.leaf) {
        throw new AggregationError('average-duplicate-leaf', `${leaf} is given more than once`, { leaf });
      }
    }
    const { tensors, sources } = matchTensors(counting);
    for (const [i, tensor] of tensors.entries()) {
      if (!strategy.supports(DTYPES[tensor.dtype].code)) {
        throw new AggregationError(
          'aggregate-dtype-unsupported',
          `${tensorLabel(tensor, i)} is ${tensor.dtype}, which "${strategy.name}" cannot do yet`,
          { tensor: tensor.name ?? i },
        );
      }
    }
    const k = counting.length;
    const blockBytes = options.blockBytes ?? blockFor(k);
    const spare = blockBytes >> 2;
    const stride = blockBytes + spare + STAGGER;
    const core = await openKernelCore(
      strategy.combine,
      meanArenaBytes(k) + combineArenaBytes(strategy.combine, k) + 4 * k + (k + 1) * (stride + 16) + 64,
    );
    const scratch: ByteSource[] = [];
    try {
      const counted = counting.map((input) => input.weighting);
      const { total: totalWeighting } = planMean(core, counted);
      const fold = openCombine(strategy.combine, core, counted);
      const contributors: Contributor[] = [];
      for (const [i, input] of counting.entries()) {
        const stored: Stored[] = [];
        for (const position of sources[i]!) {
          stored.push(
            await prepare(input, input.layout.tensors[position]!, options.scratch ?? memoryScratch, scratch),
          );
        }
        contributors.push({ leaf: input.leaf, weighting: input.weighting, tensors: stored });
      }
      return new Aggregation(
        { core, fold, totalWeighting, tensors, contributors, scratch, blockBytes, spare, stride },
        options,
      );
    } catch (error) {
      for (const source of scratch) await source.close();
      core.close();
      throw error;
    }
  }

  private constructor(
    plan: {
      readonly core: Core<FoldExports>;
      readonly fold: Combine;
      readonly totalWeighting: number;
      readonly tensors: readonly TensorSpec[];
      readonly contributors: readonly Contributor[];
      readonly scratch: readonly ByteSource[];
      readonly blockBytes: number;
      readonly spare: number;
      readonly stride: number;
    },
    options: AggregationOptions,
  ) {
    this.tensors = plan.tensors;
    this.leaves = plan.contributors.map((contributor) => contributor.leaf);
    this.totalWeighting = plan.totalWeighting;
    this.parameters = plan.tensors.reduce((sum, { shape }) => sum + elementCount(shape), 0);
    this.#core = plan.core;
    this.#fold = plan.fold;
    this.#contributors = plan.contributors;
    this.#scratch = plan.scratch;
    this.#nonFinite = options.nonFinite ?? 'reject';
    this.#blockBytes = plan.blockBytes;
    this.#spare = plan.spare;
    this.#table = plan.core.take(4 * plan.contributors.length);
    this.#blocks = plan.contributors.map(() => plan.core.take(plan.stride));
    this.#out = plan.core.take(plan.blockBytes);
  }

  /**
   * Reads, folds and writes range by range. The sink is neither committed nor discarded.
   *
   * @param encoding the output's literals and the places of its tensors
   * @throws AggregationError `non-finite`, with the first eight elements by tensor, index and leaf; FileError
   *   `file-changed` and those of sources and sink; the reason of `signal`
   */
  async run(sink: ByteSink, encoding: Encoding, options: RunOptions = {}): Promise<void> {
    const itemSizes = this.tensors.map((tensor) => itemSize(tensor.dtype));
    const ranges = planRanges(encoding, itemSizes, this.#blockBytes);
    const found: NonFiniteElement[] = [];
    const checksum = options.crc32 ?? crc32;
    const sums = [...(encoding.checksums?.seeds ?? [])];
    let bytesDone = 0;
    for (const range of ranges) {
      options.signal?.throwIfAborted();
      await this.#readRange(range, itemSizes);
      this.#foldRange(range, found);
      if (found.length === 0) {
        const bytes = this.#core.bytes(this.#out, range.byteLength);
        for (const { tensor, at, count } of range.segments) {
          if (encoding.checksums === undefined) break;
          const elements = bytes.subarray(at, at + count * itemSizes[tensor]!);
          sums[tensor] = checksum(elements, sums[tensor]);
          encoding.checksums.seal(tensor, sums[tensor]);
        }
        for (const literal of range.literals) bytes.set(literal.bytes, literal.at);
        options.onBlock?.(bytes);
        const written = sink.write(range.offset, bytes);
        if (written !== undefined) await written;
      }
      bytesDone += range.byteLength;
      options.onProgress?.({ bytesDone, bytesTotal: encoding.byteLength });
      if (found.length >= REPORTED_NON_FINITE) break;
    }
    if (found.length > 0) throw nonFiniteError(found, this.tensors);
  }

  /** Gives back the core and the room of reordered tensors. The sources stay open: they are the caller's. */
  async close(): Promise<void> {
    this.#core.close();
    for (const source of this.#scratch) await source.close();
  }

  /** Places of the segments of the range that was read last: `#places[input][segment]`, addresses in the arena. */
  #places: number[][] = [];

  async #readRange(range: Range, itemSizes: readonly number[]): Promise<void> {
    this.#places = [];
    for (const [i, { tensors }] of this.#contributors.entries()) {
      const block = this.#blocks[i]!;
      const places: number[] = [];
      // Segments of one source are planned together; a reordered tensor has a source of its own.
      for (let first = 0, used = 0; first < range.segments.length; ) {
        const { source } = tensors[range.segments[first]!.tensor]!;
        let end = first;
        const wants = [];
        for (; end < range.segments.length; end++) {
          const segment = range.segments[end]!;
          const stored = tensors[segment.tensor]!;
          if (stored.source !== source) break;
          const size = itemSizes[segment.tensor]!;
          wants.push({ offset: stored.byteOffset + segment.start * size, byteLength: segment.count * size });
        }
        const plan = planReads(wants, first === 0 && end === range.segments.length ? this.#spare : 0);
        for (const read of plan.reads) {
          const target = this.#core.bytes(block + used + read.at, read.byteLength);
          const reading = source.readInto(read.offset, target);
          const count = typeof reading === 'number' ? reading : await reading;
          if (count !== read.byteLength) throw changed(source, read.offset + count);
          this.bytesRead += count;
        }
        for (const place of plan.places) places.push(block + used + place);
        used += plan.reads.reduce((sum, read) => sum + read.byteLength, 0);
        first = end;
      }
      this.#places.push(places);
    }
  }

  #foldRange(range: Range, found: NonFiniteElement[]): void {
    const k = this.#contributors.length;
    const table = this.#core.view(this.#table, 4 * k);
    for (const [s, segment] of range.segments.entries()) {
      const { dtype } = this.tensors[segment.tensor]!;
      for (let i = 0; i < k; i++) {
        const address = this.#places[i]![s]!;
        const { swap } = this.#contributors[i]!.tensors[segment.tensor]!;
        if (swap > 1) swapBytes(this.#core, address, (segment.count * itemSize(dtype)) / swap, swap);
        table.setUint32(4 * i, address, true);
      }
      // Once something was found the result is lost, and only the report is completed.
      const isFolded =
        found.length === 0 &&
        this.#fold.fold(
          DTYPES[dtype].code,
          this.#table,
          segment.count,
          this.#out + segment.at,
          this.#nonFinite,
        );
      if (!isFolded) this.#locate(segment, s, found);
      if (found.length >= REPORTED_NON_FINITE) return;
    }
  }

  /** Adds the non-finite elements of a segment to the report, ordered by index and leaf. */
  #locate(segment: Range['segments'][number], position: number, found: NonFiniteElement[]): void {
    const { code } = DTYPES[this.tensors[segment.tensor]!.dtype];
    const here: NonFiniteElement[] = [];
    for (const [i, { leaf }] of this.#contributors.entries()) {
      const address = this.#places[i]![position]!;
      let index = findNonFinite(this.#core, code, address, segment.count, 0);
      for (let n = 0; index >= 0 && n < REPORTED_NON_FINITE; n++) {
        here.push({ tensor: segment.tensor, index: segment.start + index, leaf });
        index = findNonFinite(this.#core, code, address, segment.count, index + 1);
      }
    }
    here.sort((a, b) => a.index - b.index); // stable: leaves stay in canonical order
    found.push(...here.slice(0, REPORTED_NON_FINITE - found.length));
  }
}

/** Where the fold reads a tensor: in its file, or in scratch room when it has to be put into C order first. */
async function prepare(
  input: AggregationInput,
  tensor: TensorLayout,
  openScratch: ScratchFactory,
  opened: ByteSource[],
): Promise<Stored> {
  const swap = tensor.byteOrder === 'big' ? numberSize(tensor) : 1;
  if (needsReorder(tensor)) {
    const scratch = await openScratch(tensor.byteLength);
    opened.push(scratch);
    await reorderInto(input.source, tensor, scratch);
    return { source: scratch, byteOffset: 0, swap };
  }
  if (tensor.byteOffset === null)
    throw new RangeError(`${input.leaf}: the elements are not contiguous in the file`);
  return { source: input.source, byteOffset: tensor.byteOffset, swap };
}

/** Bytes of one number: half of a complex element. */
function numberSize({ dtype }: TensorLayout): number {
  return dtype.startsWith('complex') ? itemSize(dtype) / 2 : itemSize(dtype);
}

function blockFor(k: number): number {
  return Math.max(MIN_BLOCK, Math.min(BLOCK, Math.floor(ARENA / k / MIN_BLOCK) * MIN_BLOCK));
}

function nonFiniteError(
  found: readonly NonFiniteElement[],
  tensors: readonly TensorSpec[],
): AggregationError {
  const [first] = found as [NonFiniteElement];
  const places = found.map(
    ({ tensor, index, leaf }) => `${tensorLabel(tensors[tensor]!, tensor)}[${index}] of ${leaf}`,
  );
  return new AggregationError('non-finite', `NaN or infinity in ${places.join(', ')}`, {
    ...first,
    nonFinite: found,
  });
}
