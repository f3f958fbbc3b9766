import { parentPort } from 'node:worker_threads';
import type { Stop } from '../aggregate/aggregation.ts';
import { packError } from '../aggregate/packed-errors.ts';
import { aggregateJob } from './aggregate-job.ts';
import { convert } from './convert.ts';
import { examine } from './examine.ts';
import { mergeJob } from './merge-job.ts';
import type { FromWorker, ToWorker } from './worker-messages.ts';

/** Progress is told at most this often: a message costs more than a block. */
const PROGRESS_INTERVAL_MS = 50;

const port = parentPort;
if (port === null) throw new Error('this file runs in a worker thread');

const send = (message: FromWorker) => port.postMessage(message);

port.on('message', async (message: ToWorker) => {
  const { id } = message;
  const stop = stopOf(message.abortFlag);
  try {
    const value =
      message.type === 'examine'
        ? await examine(message, stop)
        : message.type === 'aggregate'
          ? await aggregateJob(message.request, stop, progressOf(id))
          : message.type === 'merge'
            ? await mergeJob(message.request, stop, progressOf(id))
            : await convert(message.request, { signal: stop, onProgress: progressOf(id) });
    send({ id, type: 'done', value });
  } catch (error) {
    send({ id, type: 'failed', error: packError(error) });
  }
});

function progressOf(id: number) {
  let last = 0;
  return (progress: { readonly bytesDone: number; readonly bytesTotal: number }) => {
    const now = performance.now();
    if (now - last < PROGRESS_INTERVAL_MS && progress.bytesDone < progress.bytesTotal) return;
    last = now;
    send({ id, type: 'progress', progress });
  };
}

/** What the other side sets in shared memory, in the form of a signal. */
function stopOf(flag: Int32Array): Stop {
  return {
    throwIfAborted() {
      if (Atomics.load(flag, 0) !== 0) throw new DOMException('The job was aborted', 'AbortError');
    },
  };
}
