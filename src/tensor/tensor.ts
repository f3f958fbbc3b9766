import { type DType, itemSize } from './dtypes.ts';
import { elementCount } from './layout.ts';

/** One array: raw elements, little endian, in C order. */
export interface Tensor {
  readonly name: string | null;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Exactly `elementCount(shape) * itemSize(dtype)` bytes. */
  readonly data: Uint8Array;
}

/** What a leaf sends in one round. */
export interface ModelUpdate {
  /** How much this update counts, usually the number of samples. */
  readonly weighting: number | null;
  readonly tensors: readonly Tensor[];
}

/** The typed arrays of JavaScript that hold numbers. */
export type TypedArray =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

const DTYPE_OF_ARRAY: ReadonlyMap<string, DType> = new Map([
  ['Float32Array', 'float32'],
  ['Float64Array', 'float64'],
  ['Int8Array', 'int8'],
  ['Uint8Array', 'uint8'],
  ['Int16Array', 'int16'],
  ['Uint16Array', 'uint16'],
  ['Int32Array', 'int32'],
  ['Uint32Array', 'uint32'],
  ['BigInt64Array', 'int64'],
  ['BigUint64Array', 'uint64'],
]);

/**
 * A tensor over a typed array, of its dtype; the elements are not copied.
 *
 * @param shape dimensions in C order; one dimension of the array's length unless given
 * @throws RangeError when the shape does not hold exactly the array's elements; TypeError for what is no array of numbers
 */
export function tensorOf(
  array: TypedArray,
  shape: readonly number[] = [array.length],
  name: string | null = null,
): Tensor {
  const dtype = DTYPE_OF_ARRAY.get(array[Symbol.toStringTag]);
  if (dtype === undefined) throw new TypeError(`no element type for ${array[Symbol.toStringTag]}`);
  if (elementCount(shape) !== array.length) {
    throw new RangeError(`shape (${shape.join(', ')}) does not hold ${array.length} elements`);
  }
  return { name, dtype, shape, data: new Uint8Array(array.buffer, array.byteOffset, array.byteLength) };
}

/** Checks that a tensor's bytes are what its dtype and shape say. Throws RangeError. */
export function checkTensor(tensor: Tensor): void {
  const expected = elementCount(tensor.shape) * itemSize(tensor.dtype);
  // The length, not the byteLength: of another typed array elements would be copied, not bytes.
  if (tensor.data.length !== expected) {
    throw new RangeError(
      `${tensor.dtype} of shape (${tensor.shape.join(', ')}) takes a Uint8Array of ${expected} bytes, not ${tensor.data.length}`,
    );
  }
}
