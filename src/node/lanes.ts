/** Worker threads as lanes of aggregations (`aggregate/lanes.ts`): started when first needed, kept for the next one. */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { LaneCaller } from '../aggregate/distant-lanes.ts';
import type { FromLane } from '../aggregate/lane-messages.ts';
import type { Lane, LaneOpener, LaneOrder } from '../aggregate/lanes.ts';
import { InternalError } from '../errors.ts';
import { builtFile } from './built-file.ts';
import { WORKER_OPTIONS } from './worker-options.ts';

/** A thread that answers messages, and keeps the process alive until it has. */
function startLane(url: URL): LaneCaller {
  const worker = new Worker(url, WORKER_OPTIONS);
  worker.unref(); // the job that waits for its answers keeps the process alive
  const caller = new LaneCaller((message) => {
    worker.ref();
    worker.postMessage(message);
  });
  worker.on('message', (message: FromLane) => {
    caller.hear(message);
    if (!caller.isWaiting) worker.unref();
  });
  worker.on('error', (cause) =>
    caller.lose(new InternalError('internal-worker', `a lane failed: ${cause.message}`, { cause })),
  );
  worker.on('exit', (code) =>
    caller.lose(new InternalError('internal-worker', `a lane ended with code ${code}`)),
  );
  return caller;
}

/** Threads that have nothing to do. */
const idle: LaneCaller[] = [];

/**
 * Opens `count` lanes for one aggregation.
 *
 * @param url the built lane; beside this file unless given
 */
async function openLanes(
  count: number,
  order: LaneOrder,
  url = builtFile(import.meta.url, 'lane.js'),
): Promise<Lane[]> {
  return Array.from({ length: count }, () => {
    const caller = idle.pop() ?? startLane(url);
    return caller.open(order, () => {
      if (!caller.isLost) idle.push(caller);
    });
  });
}

/** Input below which a second thread costs more than it brings, in bytes. */
const WORTH_A_THREAD = 16 << 20;

/**
 * The threads besides this one that a work over so many bytes of input is worth.
 *
 * @param threads that are asked for in all, by default as many as there are processors
 */
export function lanesFor(
  { threads = availableParallelism() }: { readonly threads?: number | undefined },
  bytes: number,
): LaneOpener | undefined {
  const count = Math.min(threads, Math.ceil(bytes / WORTH_A_THREAD)) - 1;
  return count < 1 ? undefined : (order) => openLanes(count, order);
}
