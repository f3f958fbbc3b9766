import type { DType } from '../tensor/dtypes.ts';

/** One tensor as a writer needs it: everything but its elements. */
export interface TensorSpec {
  readonly name: string | null;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** A weight file to be written: everything but the elements. */
export interface WeightsSpec {
  readonly format: 'npy' | 'npy-object';
  /** Null only where the format needs none. */
  readonly weighting: number | null;
  /** How to store the weighting; integral numbers as int unless given. */
  readonly weightingType?: 'int' | 'float' | undefined;
  readonly tensors: readonly TensorSpec[];
}

/**
 * A weight file without its elements: every byte of it that is not a tensor's element stands in `literals`, and
 * `payloads[i]` is the room of the elements of tensor i (little endian, C order). Literals and payloads together cover
 * the file without gap or overlap, ordered by offset, so its length is known before the first element is.
 */
export interface Encoding {
  readonly byteLength: number;
  readonly literals: readonly { readonly offset: number; readonly bytes: Uint8Array }[];
  readonly payloads: readonly { readonly offset: number; readonly byteLength: number }[];
}
