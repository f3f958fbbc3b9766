/**
 * Encoded updates: a safetensors file whose float32 tensors are held in fewer bytes, with the metadata
 *
 *     cambium      "encoded-update"
 *     version      "1"
 *     difference   "true": to the global model; else "false"
 *     tensors      JSON: [{"name": "fc.weight", "dtype": "float32", "shape": [2, 3], "encoding": "int8-block", "block": 256}, …]
 *
 * and, for tensor i of that list, flat parts:
 *
 *     plain              values.i: the elements in their dtype; every tensor that is not float32
 *     float16, bfloat16  values.i: rounded elements
 *     int8               codes.i (int8), scales.i (float32) and zeros.i (int8), one of each for the tensor
 *     int8-block         the same with one for every begun block of `block` elements, a power of two from 16 to 65,536
 *     top-k              indices.i (uint32, ascending), values.i (float32); all other elements are zero
 *
 * A code q means float32(scale · (q − zero)). What the elements are is told when they are unpacked: into scratch room, in
 * constant memory.
 */
import { MAX_DIMENSIONS } from '../../assembly/abi.ts';
import { type Core, openStrategies } from '../core/core.ts';
import type { StrategyExports } from '../core/exports.ts';
import { dequantiseInto } from '../core/quantise.ts';
import { widenInto } from '../core/updates.ts';
import { type ByteSource, joinSources } from '../tensor/bytes.ts';
import { DTYPES, type DType, itemSize } from '../tensor/dtypes.ts';
import { elementCount, type Layout, type TensorEncoding, type TensorLayout } from '../tensor/layout.ts';
import type { TensorSpec } from './encoding.ts';
import { readExactly } from './exact.ts';
import { formatError } from './format-error.ts';
import type { UnpackOptions, Weights } from './weights.ts';

export const ENCODED_KIND = 'encoded-update';
export const ENCODED_VERSION = '1';

/** Elements that are decoded at a time: whole blocks of every size. */
const PIECE = 65_536;

const MIN_BLOCK = 16;

/** Bytes of the rooms for codes (or halves), scales, zero points and elements of a piece. */
const ROOMS = [2 * PIECE, (4 * PIECE) / MIN_BLOCK, PIECE / MIN_BLOCK, 4 * PIECE];

/** Indices are uint32. */
const MAX_TOP_ELEMENTS = 2 ** 32;

/** A tensor of the list in the metadata. */
export interface EncodedSpec extends TensorSpec {
  readonly encoding: TensorEncoding;
  /** Elements of a block; of int8-block only. */
  readonly block?: number | undefined;
}

/** Whether a block may have so many elements. */
export function isBlock(block: unknown): block is number {
  return typeof block === 'number' && block >= MIN_BLOCK && block <= PIECE && Math.log2(block) % 1 === 0;
}

/** The parts of tensor i: what they are called and what they hold. @param k how many top-k keeps */
export function encodedParts({ dtype, shape, encoding, block }: EncodedSpec, i: number, k: number) {
  const count = elementCount(shape);
  const part = (kind: string, of: DType, length: number) => ({
    name: `${kind}.${i}`,
    dtype: of,
    shape: [length],
  });
  switch (encoding) {
    case 'plain':
      return [part('values', dtype, count)];
    case 'float16':
    case 'bfloat16':
      return [part('values', encoding, count)];
    case 'int8':
    case 'int8-block': {
      const blocks = block === undefined ? 1 : Math.ceil(count / block);
      return [part('codes', 'int8', count), part('scales', 'float32', blocks), part('zeros', 'int8', blocks)];
    }
    case 'top-k':
      return [part('indices', 'uint32', k), part('values', 'float32', k)];
  }
}

/** Where the parts of a tensor begin in the file. */
interface Placed extends EncodedSpec {
  readonly offsets: readonly number[];
  /** Of top-k. */
  readonly k: number;
}

/**
 * The weights in an encoded update.
 *
 * @param stored layout of the file as any safetensors
 * @throws FormatError `encoded-version`, `encoded-metadata`, `encoded-part`
 */
export function openEncoded(
  source: ByteSource,
  stored: Layout,
  metadata: ReadonlyMap<string, string>,
): Weights {
  const refuse: Refuse = (code, sentence, tensor) => {
    throw formatError(code, sentence, { file: source.name, tensor });
  };
  if (metadata.get('version') !== ENCODED_VERSION) {
    refuse('encoded-version', `an encoded update of another version; ${ENCODED_VERSION} is read`);
  }
  const difference = metadata.get('difference');
  if (difference !== 'true' && difference !== 'false') {
    refuse('encoded-metadata', '"difference" must be "true" or "false"');
  }
  const specs = readSpecs(metadata.get('tensors') ?? '', refuse);
  const parts = new Map(stored.tensors.map((tensor) => [tensor.name, tensor]));
  const placed = specs.map((spec, i): Placed => {
    const k = spec.encoding === 'top-k' ? (parts.get(`indices.${i}`)?.shape[0] ?? 0) : 0;
    if (k > elementCount(spec.shape)) {
      refuse('encoded-part', `${k} indices for ${elementCount(spec.shape)} elements`, i);
    }
    const offsets = encodedParts(spec, i, k).map(({ name, dtype, shape }) => {
      const part = parts.get(name);
      parts.delete(name);
      if (part?.dtype !== dtype || String(part.shape) !== String(shape) || part.byteOffset === null) {
        return refuse('encoded-part', `there must be ${name}, ${dtype} of the shape (${shape})`, i);
      }
      return part.byteOffset;
    });
    return { ...spec, offsets, k };
  });
  for (const name of parts.keys())
    refuse('encoded-part', `${JSON.stringify(name)} is a part of no tensor`, name ?? 0);
  const layout: Layout = {
    ...stored,
    isDifference: difference === 'true',
    tensors: placed.map(({ name, dtype, shape, encoding, offsets }) => ({
      name,
      dtype,
      shape,
      order: 'C',
      byteOrder: 'little',
      byteOffset: encoding === 'plain' ? offsets[0]! : null,
      byteLength: elementCount(shape) * itemSize(dtype),
      encoding,
    })),
  };
  const isPlain = placed.every(({ encoding }) => encoding === 'plain');
  return { source, layout, unpack: isPlain ? null : (options) => decode(source, layout, placed, options) };
}

type Refuse = (code: string, sentence: string, tensor?: number | string) => never;

/** Text of a file as data, each member of which is checked. */
function readSpecs(text: string, refuse: Refuse): EncodedSpec[] {
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch {
    refuse('encoded-metadata', '"tensors" is no JSON');
  }
  if (!Array.isArray(list)) return refuse('encoded-metadata', '"tensors" must be a list');
  const names = new Set<string>();
  return list.map((item: unknown, i) => {
    const wrong = (what: string) => refuse('encoded-metadata', `entry ${i} of "tensors": ${what}`, i);
    if (typeof item !== 'object' || item === null) return wrong('it must be an object');
    const { name, dtype, shape, encoding, block } = item as Record<string, unknown>; // checked member by member
    if (name !== null && typeof name !== 'string') return wrong('the name must be text or null');
    if (name !== null && names.has(name)) return wrong('an earlier one has its name');
    if (name !== null) names.add(name);
    if (typeof dtype !== 'string' || !Object.hasOwn(DTYPES, dtype)) return wrong('an unknown dtype');
    if (
      !Array.isArray(shape) ||
      shape.length > MAX_DIMENSIONS ||
      !shape.every((dimension) => Number.isSafeInteger(dimension) && dimension >= 0) ||
      !Number.isSafeInteger(shape.reduce((size, dimension) => size * Math.max(1, dimension), 16))
    ) {
      return wrong('the shape must be whole numbers, and not too many');
    }
    if (!ENCODINGS.has(encoding as string)) return wrong('an unknown encoding');
    if (encoding !== 'plain' && dtype !== 'float32') return wrong(`only float32 can be ${encoding}`);
    if (encoding === 'int8-block' ? !isBlock(block) : block !== undefined) {
      return wrong(`a block is a power of two from ${MIN_BLOCK} to ${PIECE}, and of int8-block only`);
    }
    if (encoding === 'top-k' && elementCount(shape) >= MAX_TOP_ELEMENTS) return wrong('too many elements');
    return { name, dtype, shape, encoding, block } as EncodedSpec; // as checked above
  });
}

const ENCODINGS: ReadonlySet<string> = new Set<TensorEncoding>([
  'plain',
  'float16',
  'bfloat16',
  'int8',
  'int8-block',
  'top-k',
]);

/** @throws FormatError `encoded-indices`, what the scratch room throws, the reason of `signal` */
async function decode(
  source: ByteSource,
  layout: Layout,
  placed: readonly Placed[],
  { scratch: openScratch, signal }: UnpackOptions,
): Promise<Weights> {
  let end = 0;
  const tensors = layout.tensors.map((tensor): TensorLayout => {
    if (tensor.byteOffset !== null) return tensor;
    const byteOffset = source.byteLength + end;
    end += tensor.byteLength;
    return { ...tensor, byteOffset };
  });
  const scratch = await openScratch(end);
  try {
    const core = await openStrategies(ROOMS.reduce((sum, size) => sum + size + 16, 0));
    try {
      const rooms = ROOMS.map((size) => core.take(size));
      for (const [i, tensor] of placed.entries()) {
        if (tensor.encoding === 'plain') continue;
        const at = tensors[i]!.byteOffset! - source.byteLength; // given above
        const write = (start: number, bytes: Uint8Array) => scratch.write(at + 4 * start, bytes);
        const count = elementCount(tensor.shape);
        const piece =
          tensor.encoding === 'top-k' ? openTop(source, tensor, i) : openDense(source, core, tensor, rooms);
        for (let start = 0; start < count; start += PIECE) {
          signal?.throwIfAborted();
          await write(start, await piece(start, Math.min(PIECE, count - start)));
        }
      }
    } finally {
      core.close();
    }
    return { source: joinSources(source, scratch), layout: { ...layout, tensors }, unpack: null };
  } catch (error) {
    await scratch.close();
    throw error;
  }
}

/** Gives the elements from `start` on as bytes, which are valid until the next call. */
type Piece = (start: number, count: number) => Promise<Uint8Array>;

function openDense(
  source: ByteSource,
  core: Core<StrategyExports>,
  { encoding, block, offsets }: Placed,
  rooms: readonly number[],
): Piece {
  const read = (offset: number, address: number, byteLength: number) =>
    readExactly(source, offset, core.bytes(address, byteLength), 'encoded-part');
  const [first, second, third] = offsets as [number, number, number];
  const [codes, scales, zeros, out] = rooms as [number, number, number, number];
  return async (start, count) => {
    if (encoding === 'float16' || encoding === 'bfloat16') {
      await read(first + 2 * start, codes, 2 * count);
      widenInto(core, encoding, codes, count, out);
    } else {
      const b = block === undefined ? 0 : start / block;
      const blocks = block === undefined ? 1 : Math.ceil(count / block);
      await read(first + start, codes, count);
      await read(second + 4 * b, scales, 4 * blocks);
      await read(third + b, zeros, blocks);
      dequantiseInto(core, { codes, scales, zeros, block: block ?? PIECE }, 0, count, out);
    }
    return core.bytes(out, 4 * count);
  };
}

function openTop(source: ByteSource, { offsets, k, shape }: Placed, tensor: number): Piece {
  const total = elementCount(shape);
  const [indicesAt, valuesAt] = offsets as [number, number];
  const out = new Uint32Array(PIECE); // bits: a NaN stays the one that it is
  let indices = new Uint32Array(0);
  let values = new Uint32Array(0);
  let batch = 0; // the first of those that are in memory
  let next = 0;
  let last = -1;
  return async (start, count) => {
    out.fill(0);
    for (; next < k; next++) {
      if (next === batch + indices.length) {
        batch = next;
        indices = new Uint32Array(Math.min(PIECE, k - next));
        values = new Uint32Array(indices.length);
        await readExactly(source, indicesAt + 4 * next, new Uint8Array(indices.buffer), 'encoded-part');
        await readExactly(source, valuesAt + 4 * next, new Uint8Array(values.buffer), 'encoded-part');
      }
      const index = indices[next - batch]!;
      if (index <= last) refuse(next, `${index} comes after ${last}`);
      if (index >= total) refuse(next, `${index} is beyond ${total} elements`);
      if (index >= start + count) break;
      last = index;
      out[index - start] = values[next - batch]!;
    }
    return new Uint8Array(out.buffer, 0, 4 * count);
  };

  function refuse(position: number, what: string): never {
    throw formatError('encoded-indices', `indices must ascend and stay within the tensor: ${what}`, {
      file: source.name,
      tensor,
      offset: indicesAt + 4 * position,
    });
  }
}
