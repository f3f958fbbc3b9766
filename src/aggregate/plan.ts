/**
 * The plan of an aggregation: what is checked and settled once, before any element is read. A plan is plain data, so that
 * each thread can work from a copy of it.
 */
import { CHUNK } from '../../assembly/abi.ts';
import { AggregationError } from '../errors.ts';
import type { TensorSpec } from '../formats/encoding.ts';
import type { ByteSource, ScratchFactory } from '../tensor/bytes.ts';
import { DTYPES, itemSize, numberSize } from '../tensor/dtypes.ts';
import { type EncodedParts, type Layout, type TensorLayout, tensorLabel } from '../tensor/layout.ts';
import { compareUtf8 } from '../tensor/text.ts';
import { matchTensors } from './match.ts';
import { needsReorder, reorderInto } from './reorder.ts';
import { stateSlots, stateTensors } from './steps.ts';
import type { Strategy } from './strategies/strategy.ts';
import { settleWeightings } from './weightings.ts';

/** Bytes of a block of one input: the measured optimum for reads straight into the core's memory. */
const BLOCK = 256 << 10;

/** All blocks together, so that hundreds of inputs take smaller blocks instead of more memory. */
const ARENA = 4 << 20;

/** Smallest block while an arena of `LARGE_ARENA` will do: below, a read costs more than what it brings. */
const MIN_BLOCK = 4 << 10;

/** All blocks of thousands of inputs together. Beyond, blocks shrink again. */
const LARGE_ARENA = 24 << 20;

/** Smallest block of all, in bytes: 64 of the widest elements. */
const LEAST_BLOCK = 1 << 10;

/** One contributor: who, how much, and where its tensors lie. */
export interface AggregationInput {
  /** Identity in messages; inputs are folded in the order of these ids (by their UTF-8 bytes). */
  readonly leaf: string;
  readonly source: ByteSource;
  /** Of differences to a global model, where `isDifference` says so. */
  readonly layout: Pick<Layout, 'tensors' | 'isDifference'>;
  /** In {0} ∪ [2^-64, 2^53]; null when the input has none. 0 leaves the input out. */
  readonly weighting: number | null;
}

/** In place of a source: there are no such elements. */
export const NO_SOURCE = -1;

/** Where the tensors of an input lie in its sources, by tensor of the output. Inputs of one layout share the arrays. */
interface Places {
  readonly byteOffsets: Float64Array;
  /** Bytes to turn around per number, 1 for none. */
  readonly swaps: Uint8Array;
  /** Of encoded updates only: by tensor how its elements are held, undefined for plain ones. */
  readonly parts?: readonly (EncodedParts | undefined)[] | undefined;
}

/** One input, as it is read. Numbers in arrays: thousands of inputs have many. */
export interface PlannedInput extends Places {
  readonly leaf: string;
  /** Position of its source among the plan's sources; where there are several, by tensor of the output (or NO_SOURCE). */
  readonly sources: number | readonly number[];
}

/** Position of the source of a tensor, or NO_SOURCE. */
export function sourceOf({ sources }: PlannedInput, tensor: number): number {
  return typeof sources === 'number' ? sources : sources[tensor]!;
}

/** One slot of a rule's state: its tensors by tensor of the model. */
export interface StateInput {
  readonly source: ByteSource;
  readonly tensors: readonly (TensorLayout | undefined)[];
}

/** Plain data. */
export interface Plan {
  /** The output's tensors. */
  readonly tensors: readonly TensorSpec[];
  /** In canonical order. */
  readonly inputs: readonly PlannedInput[];
  /** The global model, for rules that refer to it. */
  readonly model: PlannedInput | null;
  /** The rule's state by slot; null before the first round, when every slot has its initial number. */
  readonly state: readonly PlannedInput[] | null;
  readonly nonFinite: 'reject' | 'propagate';
  /** Bytes of one input's block in a fold. */
  readonly blockBytes: number;
  /** The same in a pass that measures: whole chunks. */
  readonly measureBytes: number;
}

/** A plan and what it reads from: `sources` are the plan's, `scratch` those among them that its owner closes. */
export interface Planned {
  readonly plan: Plan;
  /** What the rule is for these inputs. */
  readonly strategy: Strategy;
  readonly weightings: readonly number[];
  readonly sources: readonly ByteSource[];
  readonly scratch: readonly ByteSource[];
}

export interface PlanOptions {
  readonly strategy: Strategy;
  readonly model?: Omit<AggregationInput, 'weighting'> | undefined;
  readonly differences?: boolean | undefined;
  readonly tensors?: readonly TensorSpec[] | undefined;
  readonly state?: readonly StateInput[] | undefined;
  readonly nonFinite: 'reject' | 'propagate';
  readonly blockBytes?: number | undefined;
  readonly scratch: ScratchFactory;
}

/** Checks the inputs against each other and finds out where each tensor is read. Throws as `Aggregation.open`. */
export async function planAggregation(
  inputs: readonly AggregationInput[],
  options: PlanOptions,
): Promise<Planned> {
  const { model } = options;
  if (inputs.length === 0) throw new AggregationError('average-no-input', 'there is nothing to average');
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
  const { differences = options.strategy.step?.differences === true } = options;
  let { strategy } = options;
  if (differences || [...counting, model].some((input) => input?.layout.isDifference === true)) {
    const { settleDifferences } = await import('./difference-inputs.ts');
    strategy = settleDifferences(strategy, counting, model, differences);
  }
  checkCount(strategy, counting.length);
  const needsModel = strategy.needsModel === true;
  if (needsModel && model === undefined) {
    throw new AggregationError(
      'strategy-model-missing',
      `"${strategy.name}" refers to a global model: give one`,
    );
  }
  // The global model comes first: order and names of its tensors stay from round to round, whoever takes part.
  const matched = needsModel ? [model!, ...counting] : counting; // checked above
  const match = matchTensors(matched, options.tensors);
  const positions = match.sources;
  // The model keeps its names, which its state goes by.
  const tensors = needsModel ? withNames(match.tensors, model!, positions[0]!) : match.tensors; // checked above
  for (const [i, tensor] of tensors.entries()) {
    if (strategy.supports(DTYPES[tensor.dtype].code)) continue;
    throw new AggregationError(
      'aggregate-dtype-unsupported',
      `${tensorLabel(tensor, i)} is ${tensor.dtype}, which "${strategy.name}" cannot do`,
      { tensor: tensor.name ?? i },
    );
  }
  const widest = Math.max(1, ...tensors.map(({ dtype }) => itemSize(dtype)));
  const blockBytes = options.blockBytes ?? blockFor(matched.length);
  const sources = new Sources();
  const scratch: ByteSource[] = [];
  try {
    const planned: PlannedInput[] = [];
    for (const [i, input] of matched.entries()) {
      planned.push(await planInput(input, positions[i]!, options.scratch, sources, scratch));
    }
    const state =
      needsModel && options.state !== undefined ? planState(options.state, tensors, strategy, sources) : null;
    return {
      plan: {
        tensors,
        inputs: needsModel ? planned.slice(1) : planned,
        model: needsModel ? planned[0]! : null,
        state,
        nonFinite: options.nonFinite,
        blockBytes,
        measureBytes: Math.max(blockBytes, CHUNK * widest),
      },
      strategy,
      weightings: counting.map(({ weighting }) => weighting),
      sources: sources.list,
      scratch,
    };
  } catch (error) {
    for (const source of scratch) await source.close();
    throw error;
  }
}

function withNames(
  tensors: readonly TensorSpec[],
  { layout }: Pick<AggregationInput, 'layout'>,
  positions: readonly number[],
): readonly TensorSpec[] {
  return tensors.map((tensor, i) => ({ ...tensor, name: layout.tensors[positions[i]!]!.name }));
}

function checkCount({ name, minimumInputs = 1 }: Strategy, count: number): void {
  if (count >= minimumInputs) return;
  throw new AggregationError(
    'strategy-too-few-inputs',
    `"${name}" needs ${minimumInputs} updates with a weighting above zero, there are ${count}`,
  );
}

/** What inputs of a plan are read from: sources by position, and the places of tensors in them, each once. */
export class Sources {
  readonly list: ByteSource[] = [];
  readonly #positions = new Map<ByteSource, number>();
  readonly #places = new Map<readonly number[], Places>();

  positionOf(source: ByteSource): number {
    let position = this.#positions.get(source);
    if (position === undefined) {
      position = this.list.push(source) - 1;
      this.#positions.set(source, position);
    }
    return position;
  }

  /** @param positions by tensor of the output that of the input; one array stands for one layout (`matchTensors`) */
  placesOf(positions: readonly number[], tensors: readonly TensorLayout[]): Places {
    let places = this.#places.get(positions);
    if (places === undefined) {
      places = findPlaces(positions.map((position) => tensors[position]!)); // matched
      this.#places.set(positions, places);
    }
    return places;
  }
}

function findPlaces(tensors: readonly TensorLayout[]): Places {
  return {
    // What has to be put into C order first is alone in its scratch room; what is encoded is told by its parts.
    byteOffsets: Float64Array.from(tensors, (tensor) =>
      needsReorder(tensor) ? 0 : (tensor.byteOffset ?? 0),
    ),
    swaps: Uint8Array.from(tensors, (tensor) => (tensor.byteOrder === 'big' ? numberSize(tensor.dtype) : 1)),
    parts: tensors.some(({ parts }) => parts !== undefined) ? tensors.map(({ parts }) => parts) : undefined,
  };
}

/** Where the fold reads the tensors of an input: in its file, or in scratch room when they have to be put into C order first. */
export async function planInput(
  { leaf, source, layout }: Omit<AggregationInput, 'weighting'>,
  positions: readonly number[],
  openScratch: ScratchFactory,
  sources: Sources,
  scratch: ByteSource[],
): Promise<PlannedInput> {
  const own = sources.positionOf(source);
  const ofTensors = positions.map(() => own);
  for (const [i, position] of positions.entries()) {
    const tensor = layout.tensors[position]!;
    if (needsReorder(tensor)) {
      const room = await openScratch(tensor.byteLength);
      scratch.push(room);
      await reorderInto(source, tensor, room);
      ofTensors[i] = sources.positionOf(room);
    } else if (tensor.byteOffset === null) {
      const { parts } = tensor;
      if (parts !== undefined && (parts.encoding !== 'top-k' || parts.marks !== null)) continue;
      throw new RangeError(`${leaf}: the elements are not ready to be read: see prepareWeights`);
    }
  }
  return { leaf, sources: soleOf(ofTensors), ...sources.placesOf(positions, layout.tensors) };
}

/** The one number, where all are the same. */
function soleOf(numbers: readonly number[]): number | readonly number[] {
  const [first] = numbers;
  return first !== undefined && numbers.every((number) => number === first) ? first : numbers;
}

/**
 * Where the state lies. It was written by us: in C order, little endian, in the dtype that goes with the tensor's.
 *
 * @throws AggregationError `state-mismatch`
 */
function planState(
  state: readonly StateInput[],
  tensors: readonly TensorSpec[],
  { name, step }: Strategy,
  sources: Sources,
): PlannedInput[] {
  const slots = step === undefined ? [] : stateSlots(step);
  if (state.length !== slots.length) {
    throw new AggregationError(
      'state-mismatch',
      `"${name}" keeps ${slots.length} numbers for each element, this state has ${state.length}`,
    );
  }
  const planned = state.map(({ source }) => ({
    leaf: source.name,
    sources: tensors.map(() => NO_SOURCE),
    byteOffsets: new Float64Array(tensors.length),
    swaps: new Uint8Array(tensors.length).fill(1),
  }));
  for (const expected of step === undefined ? [] : stateTensors(step, tensors)) {
    const slot = slots.findIndex((one) => one.name === expected.slot.name);
    const { source, tensors: places } = state[slot]!;
    const place = places[expected.tensor];
    if (
      place?.dtype !== expected.dtype ||
      place.order !== 'C' ||
      place.byteOrder !== 'little' ||
      place.byteOffset === null ||
      place.shape.join() !== expected.shape.join()
    ) {
      throw new AggregationError(
        'state-mismatch',
        `${source.name} does not fit the model: it needs ${expected.name}, ${expected.dtype} of the shape (${expected.shape.join(', ')})`,
        { tensor: tensors[expected.tensor]!.name ?? expected.tensor },
      );
    }
    planned[slot]!.sources[expected.tensor] = sources.positionOf(source);
    planned[slot]!.byteOffsets[expected.tensor] = place.byteOffset;
  }
  return planned;
}

/** Bytes of a block when there are k of them. */
function blockFor(k: number): number {
  const wanted = Math.min(BLOCK, Math.floor(ARENA / k));
  const least = Math.min(MIN_BLOCK, Math.floor(LARGE_ARENA / k));
  return Math.max(LEAST_BLOCK, Math.floor(Math.max(wanted, least) / LEAST_BLOCK) * LEAST_BLOCK);
}
