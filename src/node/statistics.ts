import { createHash } from 'node:crypto';
import { tmpdir } from 'node:os';
import { needsReorder, reorderInto } from '../aggregate/reorder.ts';
import { openStrategies } from '../core/core.ts';
import { swapBytes } from '../core/elements.ts';
import { TALLY_ARENA_BYTES, Tally } from '../core/statistics.ts';
import { type ByteSource, readAll } from '../tensor/bytes.ts';
import { DTYPES, numberSize } from '../tensor/dtypes.ts';
import type { TensorLayout } from '../tensor/layout.ts';
import { fileScratch } from './scratch.ts';

/** What one pass over a tensor tells. Complex elements count by component, void elements have a digest only. */
export interface TensorStatistics {
  /** SHA-256 of the raw elements in C order, little endian; lower-case hexadecimal. Absent without `digest`. */
  readonly sha256?: string;
  /** Of the finite elements, as binary64; null where there are none. */
  readonly min: number | null;
  readonly max: number | null;
  /** Sum of the finite elements in binary64, in a fixed order (assembly/statistics.ts), divided by their number. */
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
const BLOCK = 256 << 10;

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
  { dtype, byteLength, byteOrder }: TensorLayout,
  { digest = true }: StatisticsOptions,
): Promise<TensorStatistics> {
  const size = numberSize(dtype);
  const hash = digest ? createHash('sha256') : undefined;
  const core = await openStrategies(BLOCK + 16 + TALLY_ARENA_BYTES);
  try {
    const tally = new Tally(core);
    const block = core.take(BLOCK);
    for (let at = 0; at < byteLength; at += BLOCK) {
      const bytes = core.bytes(block, Math.min(BLOCK, byteLength - at));
      await readAll(source, offset + at, bytes);
      const count = bytes.byteLength / size;
      if (byteOrder === 'big') swapBytes(core, block, count, size);
      hash?.update(bytes);
      tally.add(DTYPES[dtype].code, block, count);
    }
    return { ...(hash === undefined ? {} : { sha256: hash.digest('hex') }), ...tally.result() };
  } finally {
    core.close();
  }
}
