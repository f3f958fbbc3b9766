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
 * A code q means float32(scale · (q − zero)). Ranges of elements are decoded as they are read (`decode.ts`), once the file
 * is indexed; who wants whole tensors has them decoded into scratch room.
 */
import { MAX_DIMENSIONS } from '../../assembly/abi.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { DTYPES, type DType, itemSize } from '../tensor/dtypes.ts';
import { elementCount, type Layout, type TensorEncoding, type TensorLayout } from '../tensor/layout.ts';
import { indexEncoded, unpackEncoded } from './encoded-elements.ts';
import type { TensorSpec } from './encoding.ts';
import { formatError } from './format-error.ts';
import type { Weights } from './weights.ts';

export const ENCODED_VERSION = '1';

/** Elements of a block of int8-block. */
export const MIN_BLOCK = 16;
export const MAX_BLOCK = 65_536;

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
  return typeof block === 'number' && block >= MIN_BLOCK && block <= MAX_BLOCK && Math.log2(block) % 1 === 0;
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
  const tensors = specs.map((spec, i): TensorLayout => {
    const { name, dtype, shape, encoding, block = null } = spec;
    const pairs = encoding === 'top-k' ? (parts.get(`indices.${i}`)?.shape[0] ?? 0) : 0;
    if (pairs > elementCount(shape)) {
      refuse('encoded-part', `${pairs} indices for ${elementCount(shape)} elements`, name ?? i);
    }
    const offsets = encodedParts(spec, i, pairs).map((expected) => {
      const part = parts.get(expected.name);
      parts.delete(expected.name);
      if (
        part?.dtype !== expected.dtype ||
        String(part.shape) !== String(expected.shape) ||
        part.byteOffset === null
      ) {
        const { name: called, dtype: type, shape: of } = expected;
        return refuse('encoded-part', `there must be ${called}, ${type} of the shape (${of})`, name ?? i);
      }
      return part.byteOffset;
    });
    const isPlain = encoding === 'plain';
    return {
      name,
      dtype,
      shape,
      order: 'C',
      byteOrder: 'little',
      byteOffset: isPlain ? offsets[0]! : null,
      byteLength: elementCount(shape) * itemSize(dtype),
      encoding,
      parts: isPlain ? undefined : { encoding, offsets, block, pairs, marks: null },
    };
  });
  for (const name of parts.keys())
    refuse('encoded-part', `${JSON.stringify(name)} is a part of no tensor`, name ?? 0);
  const layout: Layout = { ...stored, isDifference: difference === 'true', tensors };
  if (tensors.every((tensor) => tensor.parts === undefined)) return { source, layout, unpack: null };
  return {
    source,
    layout,
    unpack: (options) => unpackEncoded(source, layout, options),
    index: (options) => indexEncoded(source, layout, options),
  };
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
      return wrong(`a block is a power of two from ${MIN_BLOCK} to ${MAX_BLOCK}, and of int8-block only`);
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
