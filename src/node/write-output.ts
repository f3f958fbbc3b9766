import { createHash } from 'node:crypto';
import type { Aggregation, RunOptions } from '../aggregate/aggregation.ts';
import type { Encoding } from '../formats/encoding.ts';
import { openFileSinkSync } from './files.ts';
import { nodeCrc32 } from './inflate.ts';

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
  run: Pick<RunOptions, 'signal' | 'onProgress'>,
): Promise<string | null> {
  const hash = digest ? createHash('sha256') : null;
  const sink = openFileSinkSync(output, { durable });
  try {
    await aggregation.run(sink, encoding, {
      ...run,
      crc32: nodeCrc32,
      onBlock: (bytes) => hash?.update(bytes),
    });
    await sink.commit();
  } catch (error) {
    await sink.discard();
    throw error;
  }
  return hash === null ? null : hash.digest('hex');
}
