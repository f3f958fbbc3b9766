import type { DType } from './dtypes.ts';
import { printable } from './text.ts';

/** Containers that Cambium reads, told apart by content. */
export type WeightsFormat = 'npy' | 'npy-object' | 'npz' | 'safetensors' | 'torch';

/** Encodings that hold every element, rounded. */
export const QUANTISATIONS = ['int8', 'int8-block', 'float16', 'bfloat16'] as const;
export type Quantisation = (typeof QUANTISATIONS)[number];

/** How the elements of an encoded update are held; `formats/encoded.ts` says what each means. */
export type TensorEncoding = 'plain' | Quantisation | 'top-k';

/** Where the parts of an encoded tensor lie in its file. Plain data. */
export interface EncodedParts {
  readonly encoding: Exclude<TensorEncoding, 'plain'>;
  /** Where each part begins, in the order of `encodedParts`. */
  readonly offsets: readonly number[];
  /** Of int8-block: elements that share a scale. */
  readonly block: number | null;
  /** Of top-k: how many elements are held; 0 of others. */
  readonly pairs: number;
  /** Of top-k, once the file is indexed: the index of every `MARKED_PAIRS`-th of those elements, from the first one on. */
  readonly marks: Uint32Array | null;
}

/** Where one tensor lies in its file, and what it is. No element is decoded. */
export interface TensorLayout {
  /** Null where the format has no names. */
  readonly name: string | null;
  readonly dtype: DType;
  /** Dimensions, slowest first in C order; `[]` is one element. */
  readonly shape: readonly number[];
  /** How the elements are stored. `F` is given only when the file says so. */
  readonly order: 'C' | 'F';
  /** Byte order of the stored elements. */
  readonly byteOrder: 'little' | 'big';
  /** Absolute position of the first element in bytes, null where the elements are not contiguous in the file. */
  readonly byteOffset: number | null;
  /** Product of the shape times the size of an element. */
  readonly byteLength: number;
  /** Of encoded updates only. */
  readonly encoding?: TensorEncoding | undefined;
  /** Of a tensor with another encoding than `plain`, which has no `byteOffset` then. */
  readonly parts?: EncodedParts | undefined;
}

/** What a weight file holds and where: found by reading the few bytes between the payloads. */
export interface Layout {
  readonly format: WeightsFormat;
  /** How much this update counts, usually the number of samples. Null where the file has none. */
  readonly weighting: number | null;
  /** How the weighting is stored: writers keep the kind. */
  readonly weightingType: 'int' | 'float' | null;
  readonly tensors: readonly TensorLayout[];
  /** The elements are differences to a global model; only encoded updates say so. */
  readonly isDifference?: boolean | undefined;
  /** Length of the whole file in bytes. */
  readonly byteLength: number;
}

/** Number of elements of a shape. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, dimension) => product * dimension, 1);
}

/** How a tensor is called in messages: its name, else its position. */
export function tensorLabel(tensor: Pick<TensorLayout, 'name'>, position: number): string {
  return tensor.name === null ? `tensor ${position}` : `tensor ${printable(JSON.stringify(tensor.name))}`;
}
