import { createHash } from 'node:crypto';
import { tmpdir } from 'node:os';
import { needsReorder, readAll, reorderInto } from '../aggregate/reorder.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { itemSize } from '../tensor/dtypes.ts';
import type { TensorLayout } from '../tensor/layout.ts';
import { fileScratch } from './scratch.ts';
import { CHUNK, Tally } from './tally.ts';
import { openWidening } from './widen.ts';

/** What one pass over a tensor tells. Complex elements count by component, void elements have a digest only. */
export interface TensorStatistics {
  /** SHA-256 of the raw elements in C order, little endian; lower-case hexadecimal. Absent without `digest`. */
  readonly sha256?: string;
  /** Of the finite elements, as binary64; null where there are none. */
  readonly min: number | null;
  readonly max: number | null;
  /** Sum of the finite elements in binary64, in the fixed order of `Tally`, divided by their number. */
  readonly mean: number | null;
  readonly zeros: number;
  readonly nan: number;
  readonly infinite: number;
}

export interface StatisticsOptions {
  /** Compute the digest, which takes longer than all the rest (default true). */
  readonly digest?: boolean | undefined;
}

/** Bytes read at a time; whole chunks of every element. */
const BLOCK = 1 << 20;

/**
 * Reads a tensor once, in constant memory, and tells its digest and statistics.
 *
 * @throws FileError when the source ends too early or there is no room to put Fortran order into C order
 */
export async function tensorStatistics(
  source: ByteSource,
  tensor: TensorLayout,
  options: StatisticsOptions = {},
): Promise<TensorStatistics> {
  if (!needsReorder(tensor)) return read(source, tensor.byteOffset ?? 0, tensor, options);
  const scratch = await fileScratch(tmpdir())(tensor.byteLength);
  try {
    await reorderInto(source, tensor, scratch);
    return await read(scratch, 0, tensor, options);
  } finally {
    await scratch.close();
  }
}

async function read(
  source: ByteSource,
  offset: number,
  tensor: TensorLayout,
  { digest = true }: StatisticsOptions,
): Promise<TensorStatistics> {
  const { dtype, byteLength, byteOrder } = tensor;
  const numberSize = dtype.startsWith('complex') ? itemSize(dtype) / 2 : itemSize(dtype);
  const hash = digest ? createHash('sha256') : undefined;
  const block = Buffer.from(new ArrayBuffer(Math.min(BLOCK, byteLength))); // not of the pool: views need its alignment
  const widen = openWidening(dtype, block.buffer);
  const tally = new Tally();
  for (let at = 0; at < byteLength; at += BLOCK) {
    const bytes = block.subarray(0, Math.min(BLOCK, byteLength - at));
    await readAll(source, offset + at, bytes);
    if (byteOrder === 'big') swap(bytes, numberSize);
    hash?.update(bytes);
    if (widen === undefined) continue;
    const count = bytes.byteLength / numberSize;
    for (let first = 0; first < count; first += CHUNK) {
      tally.add(widen(first, Math.min(CHUNK, count - first)));
    }
  }
  return { ...(hash === undefined ? {} : { sha256: hash.digest('hex') }), ...tally.result() };
}

/** Turns the bytes of each number around, in place. */
function swap(bytes: Buffer, size: number): void {
  if (size === 2) bytes.swap16();
  else if (size === 4) bytes.swap32();
  else if (size === 8) bytes.swap64();
}
