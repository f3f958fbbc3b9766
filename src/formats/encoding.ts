import type { DType } from '../tensor/dtypes.ts';
import type { WeightsFormat } from '../tensor/layout.ts';

/** One tensor as a writer needs it: everything but its elements. */
export interface TensorSpec {
  readonly name: string | null;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /**
   * The element of a tensor that takes one byte, where it is known before. NumPy shares such payloads by their value: with
   * it an 'npy-object' is byte for byte NumPy's, and the payload of a byte that came before has no room of its own.
   */
  readonly onlyByte?: number | undefined;
}

/** A weight file to be written: everything but the elements. */
export interface WeightsSpec {
  readonly format: WeightsFormat;
  /** Null only where the format needs none. */
  readonly weighting: number | null;
  /** How to store the weighting; integral numbers as int unless given. */
  readonly weightingType?: 'int' | 'float' | undefined;
  readonly tensors: readonly TensorSpec[];
  /**
   * Only of 'npy-object': elements stand at multiples of 64 bytes, for views without a copy. Up to 67 bytes more for each
   * tensor, which every reader skips. Tensors without elements have nothing to align.
   */
  readonly align?: 64 | undefined;
}

/** Bytes of a file that are no tensor's elements. */
export interface Literal {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/**
 * A weight file without its elements: every byte of it that is not a tensor's element stands in `literals`, and
 * `payloads[i]` is the room of the elements of tensor i (little endian, C order; none where its
 * `onlyByte` is shared). Literals and payloads together cover
 * the file without gap or overlap, so its length is known before the first element is. Literals are ordered by offset;
 * payloads lie in the order that the format wants.
 *
 * Containers with checksums have bytes that depend on the elements: `checksums` puts them into the literals behind the
 * elements. Such an encoding is for one file.
 */
export interface Encoding {
  readonly byteLength: number;
  readonly literals: readonly Literal[];
  readonly payloads: readonly { readonly offset: number; readonly byteLength: number }[];
  /** Absent where nothing depends on the elements. */
  readonly checksums?: Checksums | undefined;
}

/** How the CRC-32 (as in zip and gzip) of elements gets into the literals. */
interface Checksums {
  /** For each tensor the CRC-32 to go on from. */
  readonly seeds: readonly number[];
  /** Puts the CRC-32 of a tensor into literals, all of which stand behind its payload. */
  seal(tensor: number, checksum: number): void;
}
