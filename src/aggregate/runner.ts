/**
 * One thread's share of an aggregation: ranges, one at a time, in a small arena of its own.
 *
 *     for each range: read K blocks · combine, step · write one block        or: read K blocks · measure
 *
 * What differs between inputs (container, header lengths, byte order, memory order) ends where their blocks enter the
 * arena; a kernel sees K addresses of little-endian elements in C order.
 */
import type { Core } from '../core/core.ts';
import type { FoldExports } from '../core/exports.ts';
import type { NonFiniteElement } from '../errors.ts';
import type { Crc32 } from '../formats/crc32.ts';
import type { Encoding } from '../formats/encoding.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { DTYPES, itemSize } from '../tensor/dtypes.ts';
import { elementCount } from '../tensor/layout.ts';
import { Blocks, blocksArenaBytes, hasEncoded, type Reader } from './blocks.ts';
import { type Combine, type Measure, measureWidth, type Step } from './kernels.ts';
import type { Plan } from './plan.ts';
import { planRanges, type Range, type Ranges } from './ranges.ts';
import { kernelsFor, openKernelCore } from './stage-kernels.ts';
import { type StateSlot, stateSlots, stateTensors } from './steps.ts';
import type { CombineSpec, MeasureSpec, StepSpec } from './strategies/strategy.ts';
import type { SumRead } from './sum-checks.ts';
import type { RangeResidues } from './sum-runner.ts';

/** A report of non-finite elements names this many. */
export const REPORTED_NON_FINITE = 8;

/** Literals and places of an output, without what only its owner can do. */
export type OutputLayout = Pick<Encoding, 'byteLength' | 'literals' | 'payloads'>;

/** Combining the elements of inputs to an output. */
interface FoldStage {
  readonly kind: 'fold';
  readonly combine: CombineSpec;
  /** By input of the plan; 0 leaves one out. */
  readonly weightings: readonly number[];
  /** What becomes of what was combined, and how far it goes; null leaves it as it is. */
  readonly step: { readonly spec: StepSpec; readonly rate: number } | null;
  readonly output: OutputLayout;
  /** By slot and tensor: where the new state goes in its file, -1 for nowhere. */
  readonly state: readonly (readonly number[])[];
  /** Whether the output's format wants the CRC-32 of elements. */
  readonly checksums: boolean;
}

/** What is done with every range. Plain data. */
export type Stage =
  | FoldStage
  | { readonly kind: 'measure'; readonly measure: MeasureSpec }
  /** Looks for NaN and infinity and does nothing else. */
  | { readonly kind: 'scan' };

/** What a range gave. */
export interface RangeResult {
  /** Elements that are not finite, the first by index and leaf; the output is undefined then. */
  readonly found: readonly NonFiniteElement[];
  /** Of a pass that measures: the sums of the range's chunks in order, `width` each. */
  readonly sums?: Float64Array | undefined;
  /** Of a partial sum (`sum-runner.ts`). */
  readonly residues?: RangeResidues | undefined;
  /** By segment: what was read of each partial sum. */
  readonly reads?: readonly (readonly SumRead[])[] | undefined;
  /** Where the output wants them: the CRC-32 of the elements of each segment. */
  readonly checksums?: readonly number[] | undefined;
}

/** Where a runner puts what it makes. The bytes lie in the arena: they are there until the call (its promise) ends. */
export interface Outlets {
  /** A piece of the output. */
  write(offset: number, bytes: Uint8Array): void | Promise<void>;
  /** A piece of the state. */
  writeState(offset: number, bytes: Uint8Array): void | Promise<void>;
}

/** A stage in the arena of one core. */
interface Bench {
  readonly core: Core<FoldExports>;
  readonly ranges: Ranges;
  readonly blocks: Blocks;
  /** Ids of the inputs that count: the first readers. Behind them the global model and the state, where they are read. */
  readonly leaves: readonly string[];
  readonly readsModel: boolean;
  readonly slots: readonly StateSlot[];
  /** Bytes of the state's elements by tensor, 0 where there are none. */
  readonly stateSizes: readonly number[];
  /** By slot: room for the numbers before the first round, 0 where the state is read. */
  readonly fresh: readonly number[];
  readonly table: number;
  readonly out: number;
  readonly combine: Combine | null;
  readonly measure: Measure | null;
  readonly step: Step | null;
}

export class RangeRunner {
  readonly #plan: Plan;
  readonly #sources: readonly ByteSource[];
  readonly #crc32: Crc32 | undefined;
  readonly #itemSizes: readonly number[];
  #bench: Bench | null = null;

  /**
   * @param sources those of the plan, open on this thread; they stay the caller's
   * @param crc32 for stages that want checksums
   */
  constructor(plan: Plan, sources: readonly ByteSource[], crc32?: Crc32) {
    this.#plan = plan;
    this.#sources = sources;
    this.#crc32 = crc32;
    this.#itemSizes = plan.tensors.map((tensor) => itemSize(tensor.dtype));
  }

  /** A range of the stage that was begun. */
  rangeAt(index: number): Range {
    if (this.#bench === null) throw new RangeError('no stage was begun');
    return this.#bench.ranges.at(index);
  }

  /** Bytes read for that stage so far. */
  get bytesRead(): number {
    return this.#bench?.blocks.bytesRead ?? 0;
  }

  /** Prepares for a stage. Throws AggregationError, UnavailableError. */
  async begin(stage: Stage): Promise<void> {
    this.close();
    const { inputs, model, state } = this.#plan;
    const weightings = weightingsOf(stage, inputs.length);
    const counting = inputs.filter((_, i) => weightings[i] !== 0);
    const k = counting.length;
    const step = stage.kind === 'fold' ? stage.step : null;
    const measuresModel = stage.kind === 'measure' && stage.measure.kind === 'squared-differences';
    const readsModel = model !== null && (measuresModel || step !== null);
    const slots = step === null ? [] : stateSlots(step.spec);
    const stateSizes = this.#itemSizes.map(() => 0);
    for (const { tensor, dtype } of step === null ? [] : stateTensors(step.spec, this.#plan.tensors)) {
      stateSizes[tensor] = itemSize(dtype);
    }
    const blockBytes = stage.kind === 'fold' ? this.#plan.blockBytes : this.#plan.measureBytes;
    const readers: Reader[] = (readsModel ? [...counting, model] : counting).map((input) => ({
      input,
      itemSizes: this.#itemSizes,
      blockBytes,
    }));
    // The state of float16 and bfloat16 is twice as wide as they are.
    const stateBytes = 2 * blockBytes;
    if (slots.length > 0) {
      for (const input of state ?? []) readers.push({ input, itemSizes: stateSizes, blockBytes: stateBytes });
    }
    const ranges = planRanges(
      stage.kind === 'fold' ? stage.output : bareOutput(this.#plan),
      this.#itemSizes,
      blockBytes,
    );
    const freshBytes = state === null ? stateBytes : 0;
    const outBytes = outputBytes(stage, k, blockBytes);
    const counted = weightings.filter((weighting) => weighting !== 0);
    const kernels = await kernelsFor(stage, counted);
    const core = await openKernelCore(
      stage,
      kernels.arenaBytes +
        blocksArenaBytes(readers) +
        4 * readers.length +
        slots.length * (freshBytes + 16) +
        outBytes +
        64,
      hasEncoded(readers.map(({ input }) => input)),
    );
    try {
      this.#bench = {
        core,
        ranges,
        leaves: counting.map(({ leaf }) => leaf),
        readsModel,
        ...kernels.open(core),
        table: core.take(4 * readers.length),
        blocks: await Blocks.open(core, this.#sources, readers),
        slots,
        stateSizes,
        fresh: slots.map(() => (freshBytes === 0 ? 0 : core.take(freshBytes))),
        out: core.take(outBytes),
      };
    } catch (error) {
      core.close();
      throw error;
    }
  }

  /**
   * Carries out one range of the stage that was begun.
   *
   * @throws FileError `file-changed` and those of the sources, what the outlets throw
   */
  async run(range: Range, stage: Stage, outlets: Outlets): Promise<RangeResult> {
    const bench = this.#bench;
    if (bench === null) throw new RangeError('no stage was begun');
    const reading = bench.blocks.read(range);
    if (reading !== undefined) await reading;
    if (stage.kind === 'measure') {
      const { measureRange } = await import('./measure-range.ts');
      const fill = (s: number) =>
        this.#fillTable(bench, s, range.segments[s]!.tensor, range.segments[s]!.count);
      return {
        found: [],
        sums: measureRange({ ...bench, measure: bench.measure! }, range, this.#plan.tensors, fill),
      };
    }
    const found: NonFiniteElement[] = [];
    for (const [s, segment] of range.segments.entries()) {
      this.#fillTable(bench, s, segment.tensor, segment.count);
      // Once something was found the result is lost, and only the report is completed.
      const isFolded = stage.kind === 'fold' && found.length === 0 && this.#fold(bench, segment);
      const isDone =
        isFolded && (bench.step === null || (await this.#step(bench, s, segment, stage, outlets)));
      if (!isDone) await this.#locate(bench, segment, isFolded, found);
      if (found.length >= REPORTED_NON_FINITE) break;
    }
    if (stage.kind === 'scan' || found.length > 0) return { found };
    const bytes = bench.core.bytes(bench.out, range.byteLength);
    const checksums = stage.checksums
      ? range.segments.map(({ tensor, at, count }) =>
          this.#crc32!(bytes.subarray(at, at + count * this.#itemSizes[tensor]!)),
        )
      : undefined;
    for (const literal of range.literals) bytes.set(literal.bytes, literal.at);
    const written = outlets.write(range.offset, bytes);
    if (written !== undefined) await written;
    return { found, checksums };
  }

  /** Gives back the core. The sources stay open. */
  close(): void {
    this.#bench?.core.close();
    this.#bench = null;
  }

  /** Writes the addresses of a segment's elements to the table, those of the model behind those of the inputs. */
  #fillTable(bench: Bench, s: number, tensor: number, count: number): void {
    const { blocks, leaves, readsModel } = bench;
    const entries = leaves.length + (readsModel ? 1 : 0);
    const table = bench.core.view(bench.table, 4 * entries);
    for (let i = 0; i < entries; i++) table.setUint32(4 * i, blocks.place(i, s, tensor, count), true);
  }

  #fold(bench: Bench, { tensor, count, at }: Range['segments'][number]): boolean {
    const { code } = DTYPES[this.#plan.tensors[tensor]!.dtype];
    return bench.combine!.fold(code, bench.table, count, bench.out + at, this.#plan.nonFinite);
  }

  /** The step of a segment, in place, and its new state. False when a result is not finite and must be. */
  async #step(
    bench: Bench,
    s: number,
    { tensor, start, count, at }: Range['segments'][number],
    stage: FoldStage,
    outlets: Outlets,
  ): Promise<boolean> {
    const size = bench.stateSizes[tensor]!;
    const { core, leaves, table } = bench;
    const model = core.view(table + 4 * leaves.length, 4).getUint32(0, true);
    const byteLength = count * size;
    // Integers and bool have no state: a step leaves them as they are.
    const slots = (size === 0 ? [] : bench.slots).map(({ initial }, slot) => {
      const fresh = bench.fresh[slot]!;
      if (fresh === 0) return bench.blocks.place(leaves.length + 1 + slot, s, tensor, count);
      // In the arena: garbage of a block for each range would take more memory than all else.
      const bytes = core.bytes(fresh, byteLength);
      if (size === 4) new Float32Array(bytes.buffer, fresh, count).fill(initial);
      else new Float64Array(bytes.buffer, fresh, byteLength / 8).fill(initial);
      return fresh;
    });
    const { code } = DTYPES[this.#plan.tensors[tensor]!.dtype];
    const staysFinite = bench.step!.take(code, bench.out + at, model, slots, count);
    if (!staysFinite && this.#plan.nonFinite === 'reject') return false;
    for (const [slot, address] of slots.entries()) {
      const written = outlets.writeState(
        stage.state[slot]![tensor]! + start * size,
        core.bytes(address, byteLength),
      );
      if (written !== undefined) await written;
    }
    return true;
  }

  /**
   * Adds the non-finite elements of a segment to the report: those of the inputs, or the first one that a step made too large
   * for its dtype, or whose state it did.
   */
  async #locate(
    { core, leaves, readsModel, out, table }: Bench,
    segment: Range['segments'][number],
    isFolded: boolean,
    found: NonFiniteElement[],
  ): Promise<void> {
    const { locateNonFinite } = await import('./non-finite.ts');
    const { tensor, start, at } = segment;
    const { code } = DTYPES[this.#plan.tensors[tensor]!.dtype];
    const names = readsModel ? [...leaves, this.#plan.model!.leaf] : leaves; // it is read where there is one
    const addresses = core.view(table, 4 * names.length);
    const inputs = names.map((leaf, i) => ({ leaf, address: addresses.getUint32(4 * i, true) }));
    found.push(...locateNonFinite(core, code, inputs, segment, REPORTED_NON_FINITE - found.length));
    if (!isFolded || found.length > 0) return;
    const result = { leaf: 'the result', address: out + at };
    const [first = { tensor, index: start, leaf: result.leaf }] = locateNonFinite(
      core,
      code,
      [result],
      segment,
      1,
    );
    found.push(first);
  }
}

function weightingsOf(stage: Stage, k: number): readonly number[] {
  if (stage.kind === 'fold') return stage.weightings;
  return stage.kind === 'measure' ? stage.measure.weightings : new Array(k).fill(1);
}

/** Room for what a range gives. */
function outputBytes(stage: Stage, k: number, blockBytes: number): number {
  if (stage.kind === 'fold') return blockBytes;
  return stage.kind === 'measure' ? 8 * measureWidth(stage.measure, k) : 0;
}

/** The elements of all tensors one behind the other. */
export function bareOutput({ tensors }: Pick<Plan, 'tensors'>): OutputLayout {
  let byteLength = 0;
  const payloads = tensors.map(({ dtype, shape }) => {
    const payload = { offset: byteLength, byteLength: elementCount(shape) * itemSize(dtype) };
    byteLength += payload.byteLength;
    return payload;
  });
  return { byteLength, literals: [], payloads };
}
