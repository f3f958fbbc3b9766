import { parentPort } from 'node:worker_threads';
import type { Stop } from '../aggregate/aggregation.ts';
import { packError } from '../aggregate/packed-errors.ts';
import { sparingly } from '../aggregate/progress.ts';
import { aggregateJob } from './aggregate-job.ts';
import { convert } from './convert.ts';
import { examine } from './examine.ts';
import { mergeJob } from './merge-job.ts';
import type { FromWorker, JobResult, ToWorker } from './worker-messages.ts';

const port = parentPort;
if (port === null) throw new Error('this file runs in a worker thread');

const send = (message: FromWorker) => port.postMessage(message);

port.on('message', async (message: ToWorker) => {
  const { id } = message;
  try {
    send({ id, type: 'done', value: await carryOut(message) });
  } catch (error) {
    send({ id, type: 'failed', error: packError(error) });
  }
});

function carryOut(message: ToWorker): Promise<JobResult> {
  const { id, abortFlag } = message;
  const signal = stopOf(abortFlag);
  const onProgress = sparingly((progress) => send({ id, type: 'progress', progress }));
  switch (message.type) {
    case 'examine':
      return examine(message, signal);
    case 'aggregate':
      return aggregateJob(message.request, signal, onProgress);
    case 'merge':
      return mergeJob(message.request, signal, onProgress);
    case 'convert':
      return convert(message.request, { signal, onProgress });
  }
}

/** What the other side sets in shared memory, in the form of a signal. */
function stopOf(flag: Int32Array): Stop {
  return {
    throwIfAborted() {
      if (Atomics.load(flag, 0) !== 0) throw new DOMException('The job was aborted', 'AbortError');
    },
  };
}
