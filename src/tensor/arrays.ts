/** Weights in the forms that programs have them in: typed arrays with a shape, and arrays of arrays of numbers. */
import { MAX_DIMENSIONS } from '../../assembly/abi.ts';
import { AggregationError } from '../errors.ts';
import type { DType } from './dtypes.ts';
import { decodeFloat16 } from './float16.ts';
import { elementCount } from './layout.ts';
import { type ModelUpdate, type Tensor, type TypedArray, tensorOf } from './tensor.ts';

/** Numbers in arrays of arrays, all of one level equally long; a number alone is one element without dimensions. */
export type NestedNumbers = number | readonly NestedNumbers[];

/** A typed array and what shape it has. */
export interface ShapedArray<A extends TypedArray = TypedArray> {
  readonly data: A;
  /** In C order. Default: one dimension of the array's length. */
  readonly shape?: readonly number[] | undefined;
}

/** Weights of one layer: a typed array, one with a shape, nested numbers, or a tensor as it is. */
export type WeightArray = TypedArray | ShapedArray | NestedNumbers | Tensor;

export interface UpdateFromArraysOptions {
  /** What nested numbers become. Default `float32`. */
  readonly dtype?: 'float32' | 'float64' | undefined;
}

/**
 * An update out of a model's weights, in the order in which they are given; of an object, under its names.
 *
 * Typed arrays are not copied, and keep their dtype.
 *
 * @param weighting how much it counts, see `weightings`; null for a model that is no update
 * @throws RangeError for nested numbers that are no array, and shapes that do not fit; TypeError for what is no array
 */
export function updateFromArrays(
  arrays: readonly WeightArray[] | Readonly<Record<string, WeightArray>>,
  weighting: number | null,
  { dtype = 'float32' }: UpdateFromArraysOptions = {},
): ModelUpdate {
  const named: readonly (readonly [string | null, WeightArray])[] = Array.isArray(arrays)
    ? arrays.map((array: WeightArray) => [null, array] as const)
    : Object.entries(arrays);
  return {
    weighting,
    tensors: named.map(([name, array], i) => tensorFrom(array, name, dtype, name ?? `array ${i}`)),
  };
}

function tensorFrom(
  array: WeightArray,
  name: string | null,
  dtype: 'float32' | 'float64',
  label: string,
): Tensor {
  if (typeof array === 'number' || Array.isArray(array)) {
    const shape: number[] = [];
    for (
      let level: NestedNumbers | undefined = array as NestedNumbers;
      Array.isArray(level);
      level = level[0]
    ) {
      shape.push(level.length);
      if (shape.length > MAX_DIMENSIONS)
        throw new RangeError(`${label}: more than ${MAX_DIMENSIONS} dimensions`);
    }
    const numbers =
      dtype === 'float32' ? new Float32Array(elementCount(shape)) : new Float64Array(elementCount(shape));
    fill(numbers, 0, array as NestedNumbers, shape, 0, label);
    return tensorOf(numbers, shape, name);
  }
  if (ArrayBuffer.isView(array)) return tensorOf(array as TypedArray, undefined, name);
  const given = array as ShapedArray | Tensor;
  if (typeof given !== 'object' || given === null || !ArrayBuffer.isView(given.data)) {
    throw new TypeError(`${label}: give a typed array, { data, shape }, or arrays of numbers`);
  }
  if ('dtype' in given) return { ...given, name: name ?? given.name };
  return tensorOf(given.data, given.shape, name);
}

/** Fills from `at` on; the place behind what was filled. */
function fill(
  target: Float32Array | Float64Array,
  at: number,
  numbers: NestedNumbers,
  shape: readonly number[],
  level: number,
  label: string,
): number {
  const length = shape[level];
  if (
    typeof numbers === 'number' ? length !== undefined : numbers?.length !== length || !Array.isArray(numbers)
  ) {
    const expected = length === undefined ? 'a number' : `${length} items`;
    throw new RangeError(
      `${label}: no array of shape (${shape.join(', ')}), expected ${expected} at level ${level}`,
    );
  }
  if (typeof numbers === 'number') {
    target[at] = numbers;
    return at + 1;
  }
  let next = at;
  for (const item of numbers) next = fill(target, next, item, shape, level + 1, label);
  return next;
}

/** One array of a model, for libraries that take typed arrays. */
export interface NamedArray {
  readonly name: string | null;
  /** In C order. */
  readonly shape: readonly number[];
  readonly data: TypedArray;
}

/**
 * The weights of a model (an aggregation that `readTensors` read, say) as typed arrays in the host's byte order, in the
 * order of the model. float16 and bfloat16 become float32, which holds them exactly; bool becomes bytes of 0 and 1.
 *
 * @throws AggregationError `aggregate-dtype-unsupported` for complex and void elements
 */
export function arraysOf({ tensors }: Pick<ModelUpdate, 'tensors'>): NamedArray[] {
  return tensors.map(({ name, dtype, shape, data }, i) => {
    const view = VIEWS[dtype];
    if (view === undefined) {
      throw new AggregationError(
        'aggregate-dtype-unsupported',
        `${name ?? `tensor ${i}`} is ${dtype}, which no typed array holds`,
        {
          tensor: name ?? i,
        },
      );
    }
    // A copy of its own, at a place that every type likes.
    return { name, shape, data: view(data.slice()) };
  });
}

/** The elements of one tensor as numbers in arrays of arrays; 64-bit integers as bigint. */
export function nestedOf({ data, shape }: Pick<NamedArray, 'data' | 'shape'>): unknown {
  let level: unknown[] = Array.from(data as Iterable<number | bigint>);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const length = shape[axis] ?? 0;
    const rows = elementCount(shape.slice(0, axis));
    const below = level;
    level = Array.from({ length: rows }, (_, row) => below.slice(row * length, (row + 1) * length));
  }
  return level[0];
}

const halves = (bytes: Uint8Array, decode: (bits: number) => number) =>
  Float32Array.from(new Uint16Array(bytes.buffer), decode);

const asBfloat16 = new Float32Array(1);
const bitsOfBfloat16 = new Uint32Array(asBfloat16.buffer);

const VIEWS: Readonly<Partial<Record<DType, (bytes: Uint8Array) => TypedArray>>> = {
  bool: (bytes) => bytes,
  int8: ({ buffer }) => new Int8Array(buffer),
  uint8: (bytes) => bytes,
  int16: ({ buffer }) => new Int16Array(buffer),
  uint16: ({ buffer }) => new Uint16Array(buffer),
  int32: ({ buffer }) => new Int32Array(buffer),
  uint32: ({ buffer }) => new Uint32Array(buffer),
  int64: ({ buffer }) => new BigInt64Array(buffer),
  uint64: ({ buffer }) => new BigUint64Array(buffer),
  float16: (bytes) => halves(bytes, decodeFloat16),
  bfloat16: (bytes) =>
    halves(bytes, (bits) => {
      bitsOfBfloat16[0] = bits << 16;
      return asBfloat16[0]!;
    }),
  float32: ({ buffer }) => new Float32Array(buffer),
  float64: ({ buffer }) => new Float64Array(buffer),
};
