import { Worker } from 'node:worker_threads';
import { unpackError } from '../aggregate/packed-errors.ts';
import { InternalError } from '../errors.ts';
import { builtFile } from './built-file.ts';
import { checkAggregate, checkConvert, checkMerge } from './check-request.ts';
import type { AggregateReport, ConvertReport, Examination, JobOptions, Jobs, MergeReport } from './jobs.ts';
import type { FromWorker, JobMessage, JobResult, ToWorker } from './worker-messages.ts';
import { WORKER_OPTIONS } from './worker-options.ts';

export interface WorkersOptions {
  /** Jobs that run at the same time, each on a thread of its own (default 2). More wait in line. */
  readonly threads?: number | undefined;
  /** The built worker; beside this file unless given. */
  readonly workerUrl?: URL | undefined;
}

interface Job {
  readonly message: JobMessage;
  readonly options: JobOptions;
  readonly resolve: (value: JobResult) => void;
  readonly reject: (error: unknown) => void;
}

/** Starts worker threads for jobs on files, each when it is first needed. */
export function startJobs(options: WorkersOptions = {}): Jobs {
  const threads = options.threads ?? 2;
  const url = options.workerUrl ?? builtFile(import.meta.url, 'worker.js');
  const waiting: Job[] = [];
  const idle: Worker[] = [];
  const busy = new Map<Worker, Job>();
  let nextId = 1;
  let isClosed = false;

  function startWorker(): Worker {
    const worker = new Worker(url, WORKER_OPTIONS);
    worker.on('error', (cause) => {
      failJob(
        worker,
        new InternalError('internal-worker', `a worker thread failed: ${cause.message}`, { cause }),
      );
    });
    worker.on('exit', (code) => {
      const index = idle.indexOf(worker);
      if (index >= 0) idle.splice(index, 1);
      failJob(worker, new InternalError('internal-worker', `a worker thread ended with code ${code}`));
    });
    return worker;
  }

  /** Rejects the job of a worker that is lost, and goes on with another one. */
  function failJob(worker: Worker, error: unknown): void {
    const job = busy.get(worker);
    busy.delete(worker);
    job?.reject(error);
    startNext();
  }

  function startNext(): void {
    while (!isClosed && waiting.length > 0 && (idle.length > 0 || busy.size < threads)) {
      run(idle.pop() ?? startWorker(), waiting.shift()!);
    }
  }

  function run(worker: Worker, job: Job): void {
    const id = nextId++;
    busy.set(worker, job);
    worker.ref();
    const { signal, onProgress } = job.options;
    let thrown: { readonly error: unknown } | undefined;
    const onMessage = (message: FromWorker) => {
      if (message.id !== id) return;
      if (message.type === 'progress') {
        try {
          onProgress?.(message.progress);
        } catch (error) {
          thrown ??= { error };
          stop();
        }
        return;
      }
      finish();
      if (thrown !== undefined) job.reject(thrown.error);
      else if (message.type === 'done') job.resolve(message.value);
      else job.reject(signal?.aborted ? signal.reason : unpackError(message.error));
      startNext();
    };
    const finish = () => {
      signal?.removeEventListener('abort', stop);
      worker.off('message', onMessage);
      busy.delete(worker);
      worker.unref(); // an idle worker does not keep the process alive
      idle.push(worker);
    };
    // A job is synchronous work that reads no messages: it looks at this flag between blocks, and tidies up behind itself.
    const flag = new Int32Array(new SharedArrayBuffer(4));
    const stop = () => Atomics.store(flag, 0, 1);
    worker.on('message', onMessage);
    signal?.addEventListener('abort', stop, { once: true });
    try {
      worker.postMessage({ ...job.message, id, abortFlag: flag } satisfies ToWorker);
    } catch (error) {
      finish(); // what cannot be cloned never got there
      job.reject(error);
    }
  }

  function submit(message: JobMessage, jobOptions: JobOptions): Promise<JobResult> {
    if (isClosed) return Promise.reject(new InternalError('internal-closed', 'the workers are closed'));
    if (jobOptions.signal?.aborted) return Promise.reject(jobOptions.signal.reason);
    return new Promise((resolve, reject) => {
      waiting.push({ message, options: jobOptions, resolve, reject });
      startNext();
    });
  }

  return {
    examine: (
      path,
      {
        checkFinite = false,
        name = path,
        bytes,
        model,
        tensors,
        maxUnpackedBytes,
        sums = false,
        ...jobOptions
      } = {},
    ) =>
      submit(
        { type: 'examine', path, bytes, name, checkFinite, model, tensors, maxUnpackedBytes, sums },
        jobOptions,
      ) as Promise<Examination>,
    async aggregate(request, jobOptions = {}) {
      checkAggregate(request);
      return submit({ type: 'aggregate', request }, jobOptions) as Promise<AggregateReport>;
    },
    async merge(request, jobOptions = {}) {
      checkMerge(request);
      return submit({ type: 'merge', request }, jobOptions) as Promise<MergeReport>;
    },
    async convert(request, jobOptions = {}) {
      checkConvert(request);
      return submit({ type: 'convert', request }, jobOptions) as Promise<ConvertReport>;
    },
    async close() {
      isClosed = true;
      const error = new InternalError('internal-worker', 'the workers were closed');
      for (const job of waiting.splice(0)) job.reject(error);
      const workers = [...idle, ...busy.keys()];
      for (const [worker, job] of busy) {
        busy.delete(worker);
        job.reject(error);
      }
      await Promise.all(workers.map((worker) => worker.terminate()));
    },
  };
}
