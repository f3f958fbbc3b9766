import type { ByteSource, ScratchFactory } from '../tensor/bytes.ts';
import type { Layout } from '../tensor/layout.ts';
import type { Crc32 } from './crc32.ts';
import type { Inflate } from './inflate.ts';

/** What comparing checksums needs of the host. */
export interface VerifyOptions {
  /** A faster one than ours, where the host has it. */
  readonly crc32?: Crc32 | undefined;
  /** Looked at between two blocks. */
  readonly signal?: Pick<AbortSignal, 'throwIfAborted'> | undefined;
}

/** What unpacking needs of the host. */
export interface UnpackOptions extends VerifyOptions {
  /** Where unpacked elements go. */
  readonly scratch: ScratchFactory;
  /** A faster one than DecompressionStream, where the host has it. */
  readonly inflate?: Inflate | undefined;
  /** What all unpacked elements may take together; checked before anything is unpacked (default 64 GiB). */
  readonly maxByteLength?: number | undefined;
}

/** What looking over encoded elements needs to know. */
export type IndexOptions = Pick<UnpackOptions, 'maxByteLength' | 'signal'>;

/** A weight file whose layout is known. */
export interface Weights {
  readonly source: ByteSource;
  readonly layout: Layout;
  /**
   * Null when the elements of every tensor are contiguous in the file. Else (compressed members) gives the same weights
   * with a source in which they are and a layout that says where; that source is closed by the caller, and the one
   * below it stays the caller's too.
   */
  readonly unpack: ((options: UnpackOptions) => Promise<Weights>) | null;
  /**
   * Reads the elements that lie in the file itself and compares their checksums; throws FormatError. Unpacked elements
   * were compared when they were unpacked. Null or absent where the format has no checksums.
   */
  readonly verify?: ((options?: VerifyOptions) => Promise<void>) | null | undefined;
  /**
   * Of encoded updates: checks what only reading tells, and gives the layout with which any range of elements is decoded
   * as it is read (`decode.ts`). Absent elsewhere.
   */
  readonly index?: ((options: IndexOptions) => Promise<Layout>) | undefined;
}

/**
 * The same weights for use: every tensor contiguous, every checksum compared. Its `source` is closed by the caller when
 * it is another one than that of `weights`.
 *
 * @throws FormatError `zip-crc`, `zip-deflate`, `zip-size`, `zip-limit`; what the scratch room throws
 */
export async function unpackWeights(weights: Weights, options: UnpackOptions): Promise<Weights> {
  await weights.verify?.(options);
  return weights.unpack === null ? weights : weights.unpack(options);
}

/**
 * The same weights for reading range by range: encoded elements stay as they are and are decoded in the reader's arena,
 * all others are as `unpackWeights` gives them.
 *
 * @throws FormatError `encoded-indices`, `encoded-limit`, and as `unpackWeights`
 */
export async function prepareWeights(weights: Weights, options: UnpackOptions): Promise<Weights> {
  if (weights.index === undefined) return unpackWeights(weights, options);
  return { source: weights.source, layout: await weights.index(options), unpack: null };
}
