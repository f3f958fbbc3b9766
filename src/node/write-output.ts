import { createHash } from 'node:crypto';
import { dirname } from 'node:path';
import type { Aggregation, RunOptions } from '../aggregate/aggregation.ts';
import type { Encoding } from '../formats/encoding.ts';
import type { ByteSink, Scratch } from '../tensor/bytes.ts';
import { deflateMembers, writeDeflated } from './deflate.ts';
import { openFileSinkSync } from './files.ts';
import { nodeCrc32 } from './inflate.ts';
import type { OutputForm } from './output-format.ts';
import { fileScratch } from './scratch.ts';

/** Bytes that are hashed at a time. */
const HASH_BYTES = 256 << 10;

export interface OutputOptions extends Pick<OutputForm, 'compress'> {
  /** Appears complete or not at all. */
  readonly output: string;
  /** Compute the SHA-256 of the output (default true). */
  readonly digest?: boolean | undefined;
  /** Flush the output and its folder to the disk before it counts as written (default false). */
  readonly durable?: boolean | undefined;
  /** Called with the SHA-256 when the output is complete, before it appears. */
  readonly beforeCommit?: ((sha256: string) => Promise<void>) | undefined;
}

/**
 * Carries an aggregation out into a file, synchronously; for workers.
 *
 * @returns the SHA-256 of the file, null without `digest`
 * @throws as `Aggregation.run`; FileError. Nothing is left behind then
 */
export async function writeOutput(
  aggregation: Pick<Aggregation, 'run'>,
  encoding: Encoding,
  options: OutputOptions,
  run: Pick<RunOptions, 'signal' | 'onProgress' | 'openLanes' | 'state'>,
): Promise<string | null> {
  const { output, digest = true, durable, compress } = options;
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
    if (compress) await hashUpTo(await runDeflated(aggregation, encoding, output, sink, run));
    else await aggregation.run(sink, encoding, { ...run, crc32: nodeCrc32, onWritten: hashUpTo });
    const sha256 = hash === null ? null : hash.digest('hex');
    if (sha256 !== null) await options.beforeCommit?.(sha256);
    await sink.commit();
    return sha256;
  } catch (error) {
    await sink.discard();
    throw error;
  }
}

/** The same into a deflated archive, by way of the stored one. Progress counts both. Answers the length of the file. */
async function runDeflated(
  aggregation: Pick<Aggregation, 'run'>,
  encoding: Encoding,
  output: string,
  sink: ByteSink,
  { onProgress, ...run }: Pick<RunOptions, 'signal' | 'onProgress' | 'openLanes' | 'state'>,
): Promise<number> {
  const room = fileScratch(dirname(output));
  const { byteLength } = encoding;
  const progressFrom =
    (before: number): RunOptions['onProgress'] =>
    ({ bytesDone }) =>
      onProgress?.({ bytesDone: before + bytesDone, bytesTotal: 2 * byteLength });
  const stored = await room(byteLength);
  try {
    await aggregation.run(scratchSink(stored), encoding, {
      ...run,
      crc32: nodeCrc32,
      onProgress: progressFrom(0),
    });
    const deflated = await deflateMembers(stored, room, { ...run, onProgress: progressFrom(byteLength) });
    try {
      await writeDeflated(deflated, sink, run);
    } finally {
      await deflated.packed.close();
    }
    onProgress?.({ bytesDone: 2 * byteLength, bytesTotal: 2 * byteLength });
    return deflated.encoding.byteLength;
  } finally {
    await stored.close();
  }
}

/** Scratch room as the target of an aggregation, also for other threads. */
function scratchSink({ name, handle, write }: Scratch): ByteSink {
  return {
    write,
    handle: handle?.kind === 'file' ? { path: name, descriptor: handle.descriptor } : undefined,
    commit() {},
    discard() {},
  };
}
