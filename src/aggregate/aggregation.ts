/**
 * One aggregation: K updates in, one file out, in memory that depends on neither the size of the model nor the host.
 *
 *     inputs ─► plan ─► settle: passes that measure ─► fold: for each range read K blocks · combine · write one block
 *
 * This is the coordinator. What is settled once stands in `plan.ts`, what is done with a range in `runner.ts`; ranges are
 * carried out by this thread and by what other lanes it is given (`lanes.ts`), with the same bits whoever does which.
 */
import { CHUNK } from '../../assembly/abi.ts';
import { openCore } from '../core/core.ts';
import { meanArenaBytes, planMean } from '../core/mean.ts';
import { AggregationError, type NonFiniteElement } from '../errors.ts';
import type { CombineCrc32, Crc32 } from '../formats/crc32.ts';
import type { Encoding, TensorSpec } from '../formats/encoding.ts';
import { type ByteSink, memoryScratch, type ScratchFactory } from '../tensor/bytes.ts';
import { itemSize } from '../tensor/dtypes.ts';
import { elementCount } from '../tensor/layout.ts';
import { measureWidth } from './kernels.ts';
import { type Lane, type LaneOpener, openLanes } from './lanes.ts';
import { type PassOptions, runPass } from './passes.ts';
import { type AggregationInput, type Plan, type Planned, planAggregation, type StateInput } from './plan.ts';
import type { Progress } from './progress.ts';
import { planRanges, type Ranges } from './ranges.ts';
import { bareOutput, REPORTED_NON_FINITE, type Stage } from './runner.ts';
import { type StateTensor, stateSlots, stateTensors } from './steps.ts';
import { mean } from './strategies/mean.ts';
import type { MeasureSpec, Settled, Strategy } from './strategies/strategy.ts';

export type { AggregationInput, StateInput } from './plan.ts';

export interface AggregationOptions {
  /** The rule, by default the exact weighted mean. */
  readonly strategy?: Strategy | undefined;
  /** The global model, for rules that refer to one. */
  readonly model?: Omit<AggregationInput, 'weighting'> | undefined;
  /**
   * The inputs are differences to `model`. Encoded updates say so themselves; this is for files that cannot. What the rule
   * makes of differences is added to the model: x' = x + Δ, Δ being the exact mean (or what another rule gives) rounded to
   * the dtype, and the sum rounded once more. Integers and bool are the new values, not differences. Default false.
   */
  readonly differences?: boolean | undefined;
  /**
   * The tensors of the output in their order, for inputs that name theirs in several orders: each input is paired with these by
   * name if it has names (and these do), else by position. Unless given the global model, or the first input, decides.
   */
  readonly tensors?: readonly TensorSpec[] | undefined;
  /** For rules that keep a state: that of the round before, by slot; absent before the first round. */
  readonly state?: readonly StateInput[] | undefined;
  /** What NaN and infinity in inputs do: refuse (default), or follow the rule into the result. */
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
  /** Called as ranges are done with the bytes of the output that are written. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
  /** For formats with checksums: a faster one than ours, where the host has it. */
  readonly crc32?: Crc32 | undefined;
  /** Called when all bytes of the output before `offset` are written, more often the longer the output is. */
  readonly onWritten?: ((offset: number) => void | Promise<void>) | undefined;
  /** For rules that keep a state: where it goes, and where each of `stateTensors` begins there. */
  readonly state?:
    | { readonly sink: Pick<ByteSink, 'write' | 'handle'>; readonly byteOffsets: readonly number[] }
    | undefined;
  /** Threads besides this one. They are asked for when the work begins and given back when it ends. */
  readonly openLanes?: LaneOpener | undefined;
}

/**
 * The plan of one aggregation and the means to carry it out.
 *
 *     const aggregation = await Aggregation.open(inputs, options);
 *     await aggregation.run(sink, encoding);
 *     await aggregation.close();
 */
export class Aggregation {
  /** The output's tensors: in the order of the option `tensors`, else of the global model, else of the first leaf. */
  readonly tensors: readonly TensorSpec[];
  /** Ids of the inputs that count, in canonical order. */
  readonly leaves: readonly string[];
  /** Nearest binary64 of the exact sum of the weightings. */
  readonly totalWeighting: number;
  /** Elements of all tensors together. */
  readonly parameters: number;
  /** What the rule's state is written as: by slot the tensors that have one, `m.NAME` or `m.POSITION`. */
  readonly stateTensors: readonly StateTensor[];
  /** Bytes read from the inputs so far. */
  bytesRead = 0;

  readonly #strategy: Strategy;
  readonly #plan: Plan;
  readonly #planned: Planned;
  readonly #itemSizes: readonly number[];

  /**
   * Checks the inputs against each other and prepares the work.
   *
   * @throws AggregationError when there are no inputs (`average-no-input`) or they do not fit together (`average-count`,
   *   `average-name`, `average-dtype`, `average-shape`), a weighting is out of bounds (`average-…-weight`,
   *   `average-weight-range`, `average-sum-overflow`, `average-all-zero`, `weighting-missing`), ids repeat
   *   (`average-duplicate-leaf`), the strategy cannot do a dtype (`aggregate-dtype-unsupported`), wants more inputs
   *   (`strategy-too-few-inputs`), fewer (`strategy-too-many-inputs`) or a global model (`strategy-model-missing`), its
   *   state is of another model (`state-mismatch`), differences and models are mixed (`aggregate-difference`), or the strategy
   *   is none (`strategy-unknown`)
   */
  static async open(
    inputs: readonly AggregationInput[],
    options: AggregationOptions = {},
  ): Promise<Aggregation> {
    const { strategy = mean, nonFinite = 'reject', scratch = memoryScratch, ...others } = options;
    if (typeof strategy?.supports !== 'function') {
      throw new AggregationError('strategy-unknown', 'give strategies.median or the like, not its name');
    }
    const planned = await planAggregation(inputs, { strategy, nonFinite, scratch, ...others });
    try {
      return new Aggregation(planned, await totalOf(planned.weightings));
    } catch (error) {
      for (const source of planned.scratch) await source.close();
      throw error;
    }
  }

  private constructor(planned: Planned, totalWeighting: number) {
    const { strategy } = planned;
    const { tensors, inputs } = planned.plan;
    this.tensors = tensors;
    this.leaves = inputs.map(({ leaf }) => leaf);
    this.totalWeighting = totalWeighting;
    this.parameters = tensors.reduce((sum, { shape }) => sum + elementCount(shape), 0);
    this.stateTensors = strategy.step === undefined ? [] : stateTensors(strategy.step, tensors);
    this.#strategy = strategy;
    this.#planned = planned;
    this.#plan = planned.plan;
    this.#itemSizes = tensors.map((tensor) => itemSize(tensor.dtype));
  }

  /**
   * Reads, combines and writes range by range. The sink is neither committed nor discarded.
   *
   * @param encoding the output's literals and the places of its tensors
   * @throws AggregationError `non-finite`, with the first eight elements by tensor, index and leaf, and those of the rule;
   *   FileError `file-changed` and those of sources and sink; the reason of `signal`
   */
  async run(sink: ByteSink, encoding: Encoding, options: RunOptions = {}): Promise<void> {
    if (this.stateTensors.length > 0 && options.state === undefined) {
      throw new RangeError(`"${this.#strategy.name}" keeps a state: say where it goes`);
    }
    // Loaded where it is of use: for archives.
    const checksums = encoding.checksums === undefined ? undefined : await import('../formats/crc32.ts');
    const lanes = await openLanes(
      this.#plan,
      this.#planned.sources,
      { sink, state: options.state },
      { openLanes: options.openLanes, crc32: options.crc32 ?? checksums?.crc32 },
    );
    try {
      const settled = await this.#settle(lanes, options);
      await this.#fold(lanes, sink, encoding, settled, options, checksums?.combineCrc32);
    } finally {
      for (const lane of lanes) lane.close();
    }
    for (const source of this.#planned.sources) source.checkUnchanged?.();
  }

  /** Gives back the room of reordered tensors. The sources stay open: they are the caller's. */
  async close(): Promise<void> {
    for (const source of this.#planned.scratch) await source.close();
  }

  /** Lets the rule decide weightings, with passes that measure as it asks for them. */
  async #settle(lanes: readonly Lane[], options: RunOptions): Promise<Settled> {
    const { weightings } = this.#planned;
    const steps = this.#strategy.settle?.({ leaves: this.leaves, weightings, tensors: this.tensors });
    if (steps === undefined) return { weightings };
    const isOfDifferences = this.#strategy.step?.differences === true;
    let step = steps.next();
    while (step.done !== true) {
      const { value } = step;
      // What a difference is from the model is the difference.
      const isMeasured = isOfDifferences && value.kind === 'squared-differences';
      const measure: MeasureSpec = isMeasured ? { ...value, kind: 'squared-norms' } : value;
      step = steps.next(await this.#measure(lanes, measure, options));
    }
    return step.value;
  }

  /** The sums of a pass: chunk by chunk in the order of elements, then tensor by tensor. */
  async #measure(lanes: readonly Lane[], measure: MeasureSpec, options: RunOptions): Promise<Float64Array> {
    const width = measureWidth(measure, measure.weightings.filter((weighting) => weighting !== 0).length);
    const total = new Float64Array(width);
    const ofTensor = new Float64Array(width);
    let current = -1;
    const endTensor = () => {
      for (let i = 0; i < width; i++) total[i]! += ofTensor[i]!;
      ofTensor.fill(0);
    };
    const ranges = planRanges(bareOutput(this.#plan), this.#itemSizes, this.#plan.measureBytes);
    await this.#pass(lanes, { kind: 'measure', measure }, ranges, options, ({ sums }, index) => {
      let at = 0;
      for (const { tensor, count } of ranges.at(index).segments) {
        if (tensor !== current) endTensor();
        current = tensor;
        for (let start = 0; start < count; start += CHUNK) {
          for (let i = 0; i < width; i++) ofTensor[i]! += sums![at++]!;
        }
      }
      return true;
    });
    endTensor();
    if (this.#plan.nonFinite === 'reject' && !total.every(Number.isFinite)) await this.#scan(lanes, options);
    return total;
  }

  /** Refuses inputs that are not finite. */
  async #scan(lanes: readonly Lane[], options: RunOptions): Promise<void> {
    const ranges = planRanges(bareOutput(this.#plan), this.#itemSizes, this.#plan.measureBytes);
    const found: NonFiniteElement[] = [];
    await this.#pass(lanes, { kind: 'scan' }, ranges, options, (result) => {
      found.push(...result.found);
      return found.length < REPORTED_NON_FINITE;
    });
    if (found.length > 0) await this.#refuse(found);
  }

  async #refuse(found: readonly NonFiniteElement[]): Promise<never> {
    const { nonFiniteError } = await import('./non-finite.ts');
    throw nonFiniteError(found.slice(0, REPORTED_NON_FINITE), this.tensors);
  }

  async #fold(
    lanes: readonly Lane[],
    sink: ByteSink,
    encoding: Encoding,
    { weightings, rate = 1 }: Settled,
    options: RunOptions,
    combineCrc32?: CombineCrc32,
  ): Promise<void> {
    const { step: spec } = this.#strategy;
    const { byteLength, literals, payloads, checksums } = encoding;
    const stage: Stage = {
      kind: 'fold',
      combine: this.#strategy.combine,
      weightings,
      step: spec === undefined ? null : { spec, rate },
      output: { byteLength, literals, payloads },
      state: this.#statePlaces(options.state?.byteOffsets),
      checksums: checksums !== undefined,
    };
    const ranges = planRanges(encoding, this.#itemSizes, this.#plan.blockBytes);
    const found: NonFiniteElement[] = [];
    const sums = [...(checksums?.seeds ?? [])];
    let bytesDone = 0;
    await this.#pass(
      lanes,
      stage,
      ranges,
      options,
      async (result, index) => {
        const range = ranges.at(index);
        found.push(...result.found);
        if (found.length > 0) return found.length < REPORTED_NON_FINITE;
        for (const [i, checksum] of (result.checksums ?? []).entries()) {
          const { tensor, count } = range.segments[i]!;
          sums[tensor] = combineCrc32!(sums[tensor]!, checksum, count * this.#itemSizes[tensor]!);
          checksums!.seal(tensor, sums[tensor]!); // results have them where the encoding wants them
        }
        // What was sealed stands in later literals, which a lane may have written before.
        if (checksums !== undefined) {
          for (const { at, bytes } of range.literals) await sink.write(range.offset + at, bytes);
        }
        await options.onWritten?.(range.offset + range.byteLength);
        return true;
      },
      sink,
      (index) => {
        bytesDone += ranges.at(index).byteLength;
        options.onProgress?.({ bytesDone, bytesTotal: byteLength });
      },
    );
    if (found.length > 0) await this.#refuse(found);
  }

  /** By slot and tensor: where the state's elements begin in its file, -1 for nowhere. */
  #statePlaces(byteOffsets: readonly number[] = []): number[][] {
    const { step } = this.#strategy;
    const slots = step === undefined ? [] : stateSlots(step);
    const places = slots.map(() => this.tensors.map(() => -1));
    for (const [i, { slot, tensor }] of this.stateTensors.entries()) {
      const position = slots.findIndex(({ name }) => name === slot.name);
      places[position]![tensor] = byteOffsets[i]!; // `run` wants them where there is a state
    }
    return places;
  }

  async #pass(
    lanes: readonly Lane[],
    stage: Stage,
    ranges: Ranges,
    { signal }: RunOptions,
    onRange: PassOptions['onRange'],
    sink?: ByteSink,
    onDone?: (index: number) => void,
  ): Promise<void> {
    await runPass(lanes, {
      stage,
      count: ranges.length,
      rangeBytes: this.#plan.blockBytes * this.leaves.length,
      signal,
      onRange,
      onSpan: async ({ bytesRead, blocks, results }, from) => {
        this.bytesRead += bytesRead;
        for (const [i, block] of (blocks ?? []).entries())
          await sink?.write(ranges.at(from + i).offset, block);
        // In whatever order: lanes may be far apart.
        for (const i of results.keys()) onDone?.(from + i);
      },
    });
  }
}

/** Nearest binary64 of the exact sum. Throws AggregationError `average-sum-overflow`. */
async function totalOf(weightings: readonly number[]): Promise<number> {
  const core = await openCore(meanArenaBytes(weightings.length));
  try {
    return planMean(core, weightings).total;
  } finally {
    core.close();
  }
}
