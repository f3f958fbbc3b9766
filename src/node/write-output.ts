import { createHash } from 'node:crypto';
import type { Aggregation, RunOptions } from '../aggregate/aggregation.ts';
import type { Encoding } from '../formats/encoding.ts';
import { openFileSinkSync } from './files.ts';
import { nodeCrc32 } from './inflate.ts';

/** Bytes that are hashed at a time. */
const HASH_BYTES = 256 << 10;

export interface OutputOptions {
  /** Appears complete or not at all. */
  readonly output: string;
  /** Compute the SHA-256 of the output (default true). */
  readonly digest?: boolean | undefined;
  /** Flush the output and its folder to the disk before it counts as written (default false). */
  readonly durable?: boolean | undefined;
}

/**
 * Carries an aggregation out into a file, synchronously; for workers.
 *
 * @returns the SHA-256 of the file, null without `digest`
 * @throws as `Aggregation.run`; FileError. Nothing is left behind then
 */
export async function writeOutput(
  aggregation: Aggregation,
  encoding: Encoding,
  { output, digest = true, durable }: OutputOptions,
  run: Pick<RunOptions, 'signal' | 'onProgress' | 'openLanes'>,
): Promise<string | null> {
  const hash = digest ? createHash('sha256') : null;
  const sink = openFileSinkSync(output, { durable });
  const buffer = new Uint8Array(hash === null ? 0 : HASH_BYTES);
  let hashed = 0;
  /** Bytes are hashed in the order of the file, as soon as they are written: they are in the page cache still. */
  const hashUpTo = async (end: number) => {
    while (hash !== null && hashed < end) {
      const read = await sink.readInto(hashed, buffer.subarray(0, Math.min(HASH_BYTES, end - hashed)));
      hash.update(buffer.subarray(0, read));
      hashed += read;
    }
  };
  try {
    await aggregation.run(sink, encoding, { ...run, crc32: nodeCrc32, onWritten: hashUpTo });
    await sink.commit();
  } catch (error) {
    await sink.discard();
    throw error;
  }
  return hash === null ? null : hash.digest('hex');
}
