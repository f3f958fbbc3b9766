/**
 * Updates of any size in fewer bytes, in constant memory: piece by piece of each tensor
 *
 *     p = update − model + residual     each step rounded once to the dtype
 *     sent = encoded p                  residual' = p − decoded
 *
 * What has to be known of a whole tensor first (the scale of int8, the threshold of top-k) takes passes of its own over its
 * pieces.
 */
import { type Core, openStrategies } from '../core/core.ts';
import type { StrategyExports } from '../core/exports.ts';
import { dequantiseInto, quantiseInto, SCALE_ARENA_BYTES, ScaleSearch } from '../core/quantise.ts';
import { addInto, narrowInto, TOP_ARENA_BYTES, TopSearch, widenInto } from '../core/updates.ts';
import { AggregationError } from '../errors.ts';
import {
  ENCODED_VERSION,
  type EncodedSpec,
  encodedParts,
  isBlock,
  MAX_BLOCK,
  MIN_BLOCK,
} from '../formats/encoded.ts';
import type { Encoding, TensorSpec } from '../formats/encoding.ts';
import { ENCODED_UPDATE, encodeSafetensors, KIND } from '../formats/safetensors.ts';
import type { ByteSink, ByteSource, ScratchFactory } from '../tensor/bytes.ts';
import { DTYPES, itemSize } from '../tensor/dtypes.ts';
import { elementCount, type Quantisation, tensorLabel } from '../tensor/layout.ts';
import type { AggregationInput, RunOptions } from './aggregation.ts';
import { Blocks, blocksArenaBytes, type Reader } from './blocks.ts';
import { matchTensors } from './match.ts';
import { type PlannedInput, planInput, Sources } from './plan.ts';

/** How float32 elements are held; all others stay as they are. */
export interface EncodingForm {
  /** A scale for the tensor or for each block, or rounded to two bytes. */
  readonly quantise?: Quantisation | undefined;
  /** Instead of that, the share of elements to send, those of largest magnitude: above 0, at most 1. ⌈share · n⌉ of each tensor. */
  readonly topK?: number | undefined;
  /** Elements of a block, a power of two from 16 to 65,536, by default 256. */
  readonly block?: number | undefined;
}

/** What an update is made of. */
export interface EncoderInputs {
  readonly update: AggregationInput;
  /** Send the difference to this global model instead of the weights. */
  readonly differenceTo?: Omit<AggregationInput, 'weighting'> | undefined;
  /** What the round before left over; absent in the first one. */
  readonly residual?: Omit<AggregationInput, 'weighting'> | undefined;
}

/** Where the residual for the next round goes. */
interface ResidualPlace {
  readonly sink: Pick<ByteSink, 'write'>;
  /** Where each tensor begins. */
  readonly byteOffsets: readonly number[];
}

const DEFAULT_BLOCK = 256;

/** Elements of a piece: whole blocks of every size. */
const PIECE = MAX_BLOCK;

/** Room for scales and zero points of a piece in the smallest blocks. */
const SCALES = PIECE / MIN_BLOCK;

/** A tensor of the update, and what becomes of it. */
interface Item {
  readonly spec: EncodedSpec;
  readonly position: number;
  /** Of top-k: how many. */
  readonly k: number;
  /** Where its parts begin in the file. */
  readonly offsets: readonly number[];
}

/** The work on one tensor in the arena of one core. */
interface Bench {
  readonly core: Core<StrategyExports>;
  readonly item: Item;
  readonly sink: Pick<ByteSink, 'write'>;
  /** Room for what pieces decode to, or values of top-k; 4 bytes an element. */
  readonly out: number;
  /** Room for codes, halves or indices; 4 bytes an element. */
  readonly codes: number;
  readonly scales: number;
  readonly zeros: number;
  /** Room for what is looked for in a whole tensor. */
  readonly search: number;
  /** Makes p for every piece in turn; `work` has it at the address, and makes the rest of it there. */
  each(work: (x: number, start: number, count: number) => void | Promise<void>): Promise<void>;
  /** Takes the rest at `x` for the next round. */
  keep(x: number, start: number, count: number): Promise<void>;
}

/**
 * An update that is to be encoded.
 *
 *     const encoder = await UpdateEncoder.open(inputs, { quantise: 'int8-block' }, scratch);
 *     await encoder.run(sink, encoder.encoding, { residual });
 *     await encoder.close();
 */
export class UpdateEncoder {
  /** The file but for its elements. */
  readonly encoding: Encoding;
  /** The tensors of the update, which are those of the residual too. */
  readonly tensors: readonly TensorSpec[];
  /** Elements of all tensors together. */
  readonly parameters: number;
  /** Bytes read from the inputs so far. */
  bytesRead = 0;

  readonly #items: readonly Item[];
  readonly #inputs: readonly PlannedInput[];
  /** Whether the second of them is a model. */
  readonly #isDifference: boolean;
  readonly #sources: readonly ByteSource[];
  readonly #scratch: readonly ByteSource[];

  /**
   * @throws RangeError for a form that makes no sense; AggregationError `average-count`, `average-name`, `average-dtype`,
   *   `average-shape` when model or residual do not fit the update, `aggregate-difference` for an update that is a difference
   *   already or a model that is one
   */
  static async open(
    { update, differenceTo, residual }: EncoderInputs,
    form: EncodingForm,
    scratch: ScratchFactory,
  ): Promise<UpdateEncoder> {
    checkForm(form);
    for (const input of differenceTo === undefined ? [] : [update, differenceTo]) {
      if (input.layout.isDifference !== true) continue;
      const { leaf } = input;
      throw new AggregationError('aggregate-difference', `${leaf} is a difference already`, { leaf });
    }
    const inputs = [update, differenceTo, residual].filter((input) => input !== undefined);
    const { tensors, sources: positions } = matchTensors(inputs);
    const sources = new Sources();
    const rooms: ByteSource[] = [];
    try {
      const planned: PlannedInput[] = [];
      for (const [i, input] of inputs.entries()) {
        planned.push(await planInput(input, positions[i]!, scratch, sources, rooms));
      }
      const isDifference = differenceTo !== undefined;
      const says = isDifference || update.layout.isDifference === true;
      const { items, encoding } = encode(tensors, form, update.weighting, says);
      return new UpdateEncoder({ tensors, items, encoding, planned, isDifference, sources, rooms });
    } catch (error) {
      for (const room of rooms) await room.close();
      throw error;
    }
  }

  private constructor(of: {
    readonly tensors: readonly TensorSpec[];
    readonly items: readonly Item[];
    readonly encoding: Encoding;
    readonly planned: readonly PlannedInput[];
    readonly isDifference: boolean;
    readonly sources: Sources;
    readonly rooms: readonly ByteSource[];
  }) {
    this.tensors = of.tensors;
    this.encoding = of.encoding;
    this.parameters = of.tensors.reduce((sum, { shape }) => sum + elementCount(shape), 0);
    this.#items = of.items;
    this.#inputs = of.planned;
    this.#isDifference = of.isDifference;
    this.#sources = of.sources.list;
    this.#scratch = of.rooms;
  }

  /**
   * Writes the file and, where it has a place, the residual. Sinks are neither committed nor discarded.
   *
   * @throws AggregationError `non-finite` for what cannot be encoded: NaN, infinity, more than two bytes can hold; FileError
   *   `file-changed` and those of sources and sinks; the reason of `signal`
   */
  async run(
    sink: ByteSink,
    { byteLength, literals }: Encoding,
    {
      residual,
      signal,
      onProgress,
      onWritten,
    }: Pick<RunOptions, 'signal' | 'onProgress' | 'onWritten'> & {
      readonly residual?: ResidualPlace | undefined;
    } = {},
  ): Promise<void> {
    const itemSizes = this.tensors.map(({ dtype }) => itemSize(dtype));
    const blockBytes = PIECE * Math.max(4, ...itemSizes);
    const readers = this.#inputs.map((input): Reader => ({ input, itemSizes, blockBytes }));
    const core = await openStrategies(
      blocksArenaBytes(readers) + 13 * SCALES + 8 * PIECE + TOP_ARENA_BYTES + SCALE_ARENA_BYTES + 256,
    );
    try {
      const blocks = await Blocks.open(core, this.#sources, readers);
      const room = { out: core.take(4 * PIECE), codes: core.take(4 * PIECE) };
      const scales = { scales: core.take(4 * SCALES), zeros: core.take(SCALES) };
      const search = core.take(Math.max(TOP_ARENA_BYTES, SCALE_ARENA_BYTES));
      for (const { offset, bytes } of literals) await sink.write(offset, bytes);
      let done = 0;
      for (const [t, item] of this.#items.entries()) {
        const { dtype, shape } = this.tensors[t]!;
        const size = itemSizes[t]!;
        const total = elementCount(shape);
        const bench: Bench = {
          ...{ core, item, sink, search, ...room, ...scales },
          each: async (work) => {
            for (let start = 0; start < total; start += PIECE) {
              signal?.throwIfAborted();
              const count = Math.min(PIECE, total - start);
              const segments = [{ tensor: t, start, count, at: 0 }];
              const reading = blocks.read({ offset: 0, byteLength: count * size, segments, literals: [] });
              if (reading !== undefined) await reading;
              const [x, ...others] = readers.map((_, i) => blocks.place(i, 0, t, count));
              for (const [i, other] of others.entries()) {
                addInto(core, DTYPES[dtype].code, x!, other, count, this.#isDifference && i === 0);
              }
              await work(x!, start, count);
            }
          },
          keep: async (x, start, count) => {
            const at = residual === undefined ? 0 : residual.byteOffsets[t]! + start * size;
            await residual?.sink.write(at, core.bytes(x, count * size));
          },
        };
        await encodeTensor(bench);
        done += total;
        onProgress?.({
          bytesDone: Math.floor((byteLength * done) / Math.max(1, this.parameters)),
          bytesTotal: byteLength,
        });
      }
      this.bytesRead += blocks.bytesRead;
    } finally {
      core.close();
    }
    for (const source of this.#sources) source.checkUnchanged?.();
    await onWritten?.(byteLength);
  }

  /** Gives back the room of reordered tensors. The sources stay open: they are the caller's. */
  async close(): Promise<void> {
    for (const room of this.#scratch) await room.close();
  }
}

/** @throws RangeError */
function checkForm({ quantise, topK, block = DEFAULT_BLOCK }: EncodingForm): void {
  if (quantise !== undefined && topK !== undefined) throw new RangeError('either quantise or topK, not both');
  if (topK !== undefined && !(topK > 0 && topK <= 1)) throw new RangeError(`topK is ${topK}, not in (0, 1]`);
  if (!isBlock(block)) {
    throw new RangeError(`block is ${block}, no power of two from ${MIN_BLOCK} to ${MAX_BLOCK}`);
  }
}

/** What stands where. */
function encode(
  tensors: readonly TensorSpec[],
  { quantise, topK, block = DEFAULT_BLOCK }: EncodingForm,
  weighting: number | null,
  isDifference: boolean,
): { readonly items: readonly Item[]; readonly encoding: Encoding } {
  const asked = topK === undefined ? (quantise ?? 'plain') : 'top-k';
  const specs = tensors.map(({ name, dtype, shape }): EncodedSpec => {
    const encoding = dtype === 'float32' ? asked : 'plain';
    return { name, dtype, shape, encoding, block: encoding === 'int8-block' ? block : undefined };
  });
  const counts = specs.map(({ encoding, shape }) =>
    encoding === 'top-k' ? Math.ceil(topK! * elementCount(shape)) : 0,
  );
  const parts = specs.map((spec, i) => encodedParts(spec, i, counts[i]!));
  const encoding = encodeSafetensors(
    { weighting, tensors: parts.flat() },
    {
      [KIND]: ENCODED_UPDATE,
      version: ENCODED_VERSION,
      difference: String(isDifference),
      tensors: JSON.stringify(specs),
    },
  );
  const places = encoding.payloads.values();
  const items = specs.map((spec, position) => ({
    spec,
    position,
    k: counts[position]!,
    offsets: parts[position]!.map(() => places.next().value!.offset), // one for each part
  }));
  return { items, encoding };
}

async function encodeTensor(bench: Bench): Promise<void> {
  switch (bench.item.spec.encoding) {
    case 'plain':
      return encodePlain(bench);
    case 'float16':
    case 'bfloat16':
      return encodeHalves(bench, bench.item.spec.encoding);
    case 'int8':
      return encodeScaled(bench);
    case 'int8-block':
      return encodeBlocks(bench, bench.item.spec.block!); // such a tensor has one
    case 'top-k':
      return bench.item.k === 0 ? undefined : encodeTop(bench);
  }
}

async function encodePlain({ core, item, sink, each, keep }: Bench): Promise<void> {
  const size = itemSize(item.spec.dtype);
  await each(async (x, start, count) => {
    const bytes = core.bytes(x, count * size);
    await sink.write(item.offsets[0]! + start * size, bytes);
    bytes.fill(0);
    await keep(x, start, count);
  });
}

async function encodeHalves(bench: Bench, type: 'float16' | 'bfloat16'): Promise<void> {
  const { core, item, sink, codes, out, each } = bench;
  await each(async (x, start, count) => {
    if (!narrowInto(core, type, x, count, codes)) throw nonFinite(bench, x, start);
    await sink.write(item.offsets[0]! + 2 * start, core.bytes(codes, 2 * count));
    widenInto(core, type, codes, count, out);
    await keepRest(bench, x, start, count);
  });
}

async function encodeScaled(bench: Bench): Promise<void> {
  const { core, item, sink, codes, out, each } = bench;
  const [codesAt, scaleAt, zeroAt] = item.offsets as [number, number, number];
  const search = new ScaleSearch(core, bench.search);
  await each((x, start, count) => {
    if (!search.extend(x, count)) throw nonFinite(bench, x, start);
  });
  search.settle();
  await sink.write(scaleAt, core.bytes(search.scale, 4));
  await sink.write(zeroAt, core.bytes(search.zero, 1));
  await each(async (x, start, count) => {
    search.encode(x, count, codes);
    await sink.write(codesAt + start, core.bytes(codes, count));
    const at = { codes, scales: search.scale, zeros: search.zero, block: count };
    dequantiseInto(core, at, 0, count, out);
    await keepRest(bench, x, start, count);
  });
}

async function encodeBlocks(bench: Bench, block: number): Promise<void> {
  const { core, item, sink, codes, scales, zeros, out, each } = bench;
  const [codesAt, scalesAt, zerosAt] = item.offsets as [number, number, number];
  await each(async (x, start, count) => {
    const at = { codes, scales, zeros, block };
    if (!quantiseInto(core, x, count, at)) throw nonFinite(bench, x, start);
    const first = start / block; // pieces are whole blocks
    const blocks = Math.ceil(count / block);
    await sink.write(codesAt + start, core.bytes(codes, count));
    await sink.write(scalesAt + 4 * first, core.bytes(scales, 4 * blocks));
    await sink.write(zerosAt + first, core.bytes(zeros, blocks));
    dequantiseInto(core, at, 0, count, out);
    await keepRest(bench, x, start, count);
  });
}

async function encodeTop(bench: Bench): Promise<void> {
  const { core, item, sink, codes: indices, out: values, each, keep } = bench;
  const [indicesAt, valuesAt] = item.offsets as [number, number];
  const search = new TopSearch(core, item.k, bench.search);
  await each((x, start, count) => {
    if (!search.countUpper(x, count)) throw nonFinite(bench, x, start);
  });
  await each((x, _, count) => search.countLower(x, count));
  let taken = 0;
  await each(async (x, start, count) => {
    const k = search.take(x, count, start, indices, values);
    await sink.write(indicesAt + 4 * taken, core.bytes(indices, 4 * k));
    await sink.write(valuesAt + 4 * taken, core.bytes(values, 4 * k));
    taken += k;
    await keep(x, start, count);
  });
}

async function keepRest({ core, out, keep }: Bench, x: number, start: number, count: number): Promise<void> {
  addInto(core, DTYPES.float32.code, x, out, count, true);
  await keep(x, start, count);
}

/** The error for a piece at x that begins with the element `start`, the first of whose elements cannot be encoded. */
function nonFinite({ core, item: { spec, position } }: Bench, x: number, start: number): AggregationError {
  const { encoding } = spec;
  const limit = encoding === 'float16' ? 65_520 : encoding === 'bfloat16' ? 2 ** 128 - 2 ** 119 : Infinity;
  const view = core.view(x, 4 * PIECE);
  let i = 0;
  while (Math.abs(view.getFloat32(4 * i, true)) < limit) i++;
  const index = start + i;
  return new AggregationError(
    'non-finite',
    `${tensorLabel(spec, position)}[${index}] is ${view.getFloat32(4 * i, true)}, which ${encoding} cannot hold`,
    { tensor: spec.name ?? position, index },
  );
}
