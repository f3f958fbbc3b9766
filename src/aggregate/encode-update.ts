/**
 * Updates in fewer bytes: what a leaf sends instead of its weights, and what it keeps for the next round.
 *
 *     p = update − model + residual     each step rounded once to float32
 *     sent = encoded p                  residual' = p − decoded
 *
 * With the residual nothing is lost but time: what was not sent, or was rounded away, is added in the next round (Seide et
 * al., "1-Bit Stochastic Gradient Descent", 2014; Aji and Heafield, "Sparse Communication for Distributed Gradient Descent",
 * 2017; Stich et al., "Sparsified SGD with Memory", 2018). Float32 tensors are encoded, all others are kept as they are.
 */
import { type Core, openStrategies } from '../core/core.ts';
import type { StrategyExports } from '../core/exports.ts';
import { dequantiseInto, quantiseInto, SCALE_ARENA_BYTES, ScaleSearch } from '../core/quantise.ts';
import { addInto, narrowInto, TOP_ARENA_BYTES, TopSearch, widenInto } from '../core/updates.ts';
import { AggregationError } from '../errors.ts';
import type { EncodedSpec } from '../formats/encoded.ts';
import { readTensors } from '../formats/read.ts';
import { memorySource } from '../tensor/bytes.ts';
import { DTYPES } from '../tensor/dtypes.ts';
import { elementCount, tensorLabel } from '../tensor/layout.ts';
import { checkTensor, type ModelUpdate, type Tensor } from '../tensor/tensor.ts';
import { addModel, subtractModel } from './differences.ts';

export interface EncodeOptions {
  /** How float32 elements are held: a scale for the tensor or for each block, or rounded to two bytes. */
  readonly quantise?: 'int8' | 'int8-block' | 'float16' | 'bfloat16' | undefined;
  /** Instead of that, the share of elements to send, those of largest magnitude: above 0, at most 1. ⌈share · n⌉ of each tensor. */
  readonly topK?: number | undefined;
  /** Elements of a block, a power of two from 16 to 65,536, by default 256. */
  readonly block?: number | undefined;
  /** Send the difference to this global model instead of the weights. */
  readonly differenceTo?: readonly Tensor[] | undefined;
  /** What the round before left over; absent in the first one. */
  readonly residual?: readonly Tensor[] | undefined;
}

export interface EncodedUpdate {
  /** The file. */
  readonly bytes: Uint8Array;
  /** For the next round: as the update's tensors, zeros where nothing was lost. */
  readonly residual: readonly Tensor[];
}

const DEFAULT_BLOCK = 256;

/**
 * Encodes an update in memory as a file that `openWeights` and aggregations read. Without `quantise` and `topK` elements
 * stay as they are.
 *
 * @throws AggregationError `non-finite` for NaN and infinity, also where two bytes cannot hold an element; those of
 *   `subtractModel`; RangeError for options that make no sense
 */
export async function encodeUpdate(update: ModelUpdate, options: EncodeOptions = {}): Promise<EncodedUpdate> {
  // Loaded when needed, as readers are (open.ts): who lives on .npy files never fetches them.
  const { ENCODED_KIND, ENCODED_VERSION, encodedParts, isBlock } = await import('../formats/encoded.ts');
  const { encodeSafetensors } = await import('../formats/safetensors.ts');
  const { quantise, topK, block = DEFAULT_BLOCK, differenceTo, residual } = options;
  if (quantise !== undefined && topK !== undefined) throw new RangeError('either quantise or topK, not both');
  if (topK !== undefined && !(topK > 0 && topK <= 1)) throw new RangeError(`topK is ${topK}, not in (0, 1]`);
  if (!isBlock(block)) throw new RangeError(`block is ${block}, no power of two from 16 to 65536`);
  for (const tensor of update.tensors) checkTensor(tensor);
  const encoding = topK === undefined ? (quantise ?? 'plain') : 'top-k';
  let tensors = update.tensors;
  if (differenceTo !== undefined) tensors = await subtractModel(tensors, differenceTo);
  if (residual !== undefined) tensors = await addModel(tensors, residual);
  const encoded: Encoded[] = [];
  for (const [i, tensor] of tensors.entries()) {
    const { name, dtype, shape } = tensor;
    const isEncoded = dtype === 'float32';
    const spec: EncodedSpec = {
      name,
      dtype,
      shape,
      encoding: isEncoded ? encoding : 'plain',
      block: isEncoded && encoding === 'int8-block' ? block : undefined,
    };
    const k = topK === undefined ? 0 : Math.ceil(topK * elementCount(shape));
    encoded.push(await encodeTensor(tensor, spec, k, i));
  }
  const metadata = {
    cambium: ENCODED_KIND,
    version: ENCODED_VERSION,
    difference: String(differenceTo !== undefined),
    tensors: JSON.stringify(encoded.map(({ spec }) => spec)),
  };
  const parts = encoded.flatMap(({ spec, k }, i) => encodedParts(spec, i, k));
  const file = encodeSafetensors({ weighting: update.weighting, tensors: parts }, metadata);
  const bytes = new Uint8Array(file.byteLength);
  for (const literal of file.literals) bytes.set(literal.bytes, literal.offset);
  for (const [i, part] of encoded.flatMap((one) => one.parts).entries()) {
    bytes.set(part, file.payloads[i]!.offset);
  }
  return { bytes, residual: encoded.map(({ rest }) => rest) };
}

/**
 * Decodes an encoded update, or reads any other weight file, into memory.
 *
 * @returns the update, and whether its elements are differences to a global model
 * @throws FormatError as `readTensors`, `encoded-…` among them
 */
export async function decodeUpdate(
  bytes: Uint8Array,
): Promise<ModelUpdate & { readonly isDifference: boolean }> {
  const { weighting, tensors, layout } = await readTensors(memorySource(bytes, 'update'));
  return { weighting, tensors, isDifference: layout.isDifference === true };
}

interface Encoded {
  readonly spec: EncodedSpec;
  readonly k: number;
  readonly parts: readonly Uint8Array[];
  readonly rest: Tensor;
}

async function encodeTensor(
  tensor: Tensor,
  spec: EncodedSpec,
  k: number,
  position: number,
): Promise<Encoded> {
  const { data } = tensor;
  const { encoding } = spec;
  if (encoding === 'plain') {
    return { spec, k, parts: [data], rest: { ...tensor, data: new Uint8Array(data.byteLength) } };
  }
  const count = data.byteLength / 4;
  const arenaBytes = 4 * data.byteLength + TOP_ARENA_BYTES + SCALE_ARENA_BYTES + 256;
  const core = await openStrategies(arenaBytes);
  try {
    const x = core.take(data.byteLength);
    core.bytes(x, data.byteLength).set(data);
    const out = core.take(data.byteLength);
    const made = encodeInto(core, x, count, spec, k, out);
    if (made === null) throw nonFinite(tensor, position, encoding);
    if (encoding !== 'top-k') addInto(core, DTYPES.float32.code, x, out, count, true);
    return { spec, k, parts: made, rest: { ...tensor, data: core.bytes(x, data.byteLength).slice() } };
  } finally {
    core.close();
  }
}

/** The parts of a tensor at x, and what they decode to at `out`; of top-k the rest at x. Null for what cannot be encoded. */
function encodeInto(
  core: Core<StrategyExports>,
  x: number,
  count: number,
  { encoding, block }: EncodedSpec,
  k: number,
  out: number,
): Uint8Array[] | null {
  const copy = (address: number, byteLength: number) => core.bytes(address, byteLength).slice();
  switch (encoding) {
    case 'float16':
    case 'bfloat16': {
      const halves = core.take(2 * count);
      if (!narrowInto(core, encoding, x, count, halves)) return null;
      widenInto(core, encoding, halves, count, out);
      return [copy(halves, 2 * count)];
    }
    case 'int8': {
      const search = new ScaleSearch(core);
      if (!search.extend(x, count)) return null;
      search.settle();
      const codes = core.take(count);
      search.encode(x, count, codes);
      const { scale: scales, zero: zeros } = search;
      dequantiseInto(core, { codes, scales, zeros, block: Math.max(1, count) }, 0, count, out);
      return [copy(codes, count), copy(scales, 4), copy(zeros, 1)];
    }
    case 'int8-block': {
      const size = block!; // such a tensor has one
      const blocks = Math.ceil(count / size);
      const codes = core.take(count);
      const at = { codes, scales: core.take(4 * blocks), zeros: core.take(blocks), block: size };
      if (!quantiseInto(core, x, count, at)) return null;
      dequantiseInto(core, at, 0, count, out);
      return [copy(codes, count), copy(at.scales, 4 * blocks), copy(at.zeros, blocks)];
    }
    default: {
      const [indices, values] = [core.take(4 * k), out];
      if (k === 0) return [copy(indices, 0), copy(values, 0)];
      const search = new TopSearch(core, k);
      if (!search.countUpper(x, count)) return null;
      search.countLower(x, count);
      search.take(x, count, 0, indices, values);
      return [copy(indices, 4 * k), copy(values, 4 * k)];
    }
  }
}

function nonFinite(tensor: Tensor, position: number, encoding: string): AggregationError {
  const { buffer, byteOffset, byteLength } = tensor.data;
  const view = new DataView(buffer, byteOffset, byteLength);
  const limit = encoding === 'float16' ? 65_520 : encoding === 'bfloat16' ? 2 ** 128 - 2 ** 119 : Infinity;
  let index = 0;
  while (Math.abs(view.getFloat32(4 * index, true)) < limit) index++;
  return new AggregationError(
    'non-finite',
    `${tensorLabel(tensor, position)}[${index}] is ${view.getFloat32(4 * index, true)}, which ${encoding} cannot hold`,
    { tensor: tensor.name ?? position, index },
  );
}
