import { unpackError } from '../aggregate/packed-errors.ts';
import { InternalError, RefusedError, UnavailableError } from '../errors.ts';
import type { BlobAggregateReport, BlobConvertReport, BlobInput, BlobJobOptions, BlobJobs } from './jobs.ts';
import { type CoreUrls, streamCore } from './streamed-core.ts';
import type { Work, WorkResult } from './work.ts';
import type { FromWorker, ToWorker } from './worker-messages.ts';

export interface BlobJobsOptions {
  /**
   * Web Workers that share a job, started when they are first needed; as many as there are processors, but four at most,
   * unless given. Files are shared; where other Blobs are among up to 32 inputs, one worker does all, which is faster than
   * to read them more than once. 0 works on the calling thread, between its other tasks.
   */
  readonly workers?: number | undefined;
  /**
   * Starts a worker, for bundlers that do not see through `new Worker(new URL(…))`: it must run the package's
   * `cambium/browser-worker` as a module.
   */
  readonly startWorker?: (() => Worker) | undefined;
  /** Where the core's modules are fetched from, which saves decoding the bytes in this library. */
  readonly core?: CoreUrls | undefined;
}

/** More lanes only wait for the one thread that writes. */
const MOST_WORKERS = 4;

/** Input below which another worker costs more than it brings, in bytes. */
const WORTH_A_WORKER = 16 << 20;

/** Prepares jobs on Blobs; nothing is started yet. */
export function startJobs(options: BlobJobsOptions = {}): BlobJobs {
  const most = options.workers ?? Math.min(navigator.hardwareConcurrency ?? 2, MOST_WORKERS);
  if (!(Number.isSafeInteger(most) && most >= 0)) {
    throw new RangeError(`workers is a whole number from 0 on, not ${most}`);
  }
  const pool = new Pool(options);
  let line: Promise<unknown> = Promise.resolve();

  function submit(prepare: () => Promise<Work>, { signal, onProgress }: BlobJobOptions): Promise<WorkResult> {
    const run = async () => {
      if (pool.isClosed) throw new InternalError('internal-closed', 'the jobs are closed');
      signal?.throwIfAborted();
      const work = await abortable(prepare(), signal);
      signal?.throwIfAborted();
      if (most > 0) return pool.run(work, most, { signal, onProgress });
      if (options.core !== undefined) streamCore(options.core);
      return (await import('./work.ts')).runWork(work, { signal, onProgress });
    };
    const job = line.then(run);
    line = job.catch(() => {});
    return job;
  }

  return {
    aggregate: ({ inputs, model, state, ...request }, jobOptions = {}) =>
      submit(
        async () => ({
          ...request,
          type: 'aggregate',
          inputs: await Promise.all(inputs.map(nameInput)),
          model: model === undefined ? undefined : await spool(model),
          state: state == null ? state : await spool(state),
        }),
        jobOptions,
      ) as Promise<BlobAggregateReport>,
    convert: ({ input, ...request }, jobOptions = {}) =>
      submit(
        async () => ({ ...request, type: 'convert', input: await spool(input) }),
        jobOptions,
      ) as Promise<BlobConvertReport>,
    close: () => pool.close(),
  };
}

async function nameInput({ blob: given, leaf, weighting }: BlobInput, position: number) {
  const blob = await spool(given);
  const name = blob instanceof File ? blob.name : `blob ${position}`;
  return { blob, leaf: leaf ?? name, weighting };
}

/** The body of a response as a Blob. Throws RefusedError, UnavailableError. */
async function spool(given: Blob | Response): Promise<Blob> {
  if (given instanceof Blob) return given;
  const { url, ok, status } = given;
  if (!ok) {
    await given.body?.cancel();
    throw new RefusedError('refused-response', `${url}: the server answered ${status}`, status);
  }
  if (given.bodyUsed) throw new TypeError(`${url}: its body has been read already`);
  try {
    return await given.blob();
  } catch (cause) {
    throw new UnavailableError('unavailable-network', `${url}: its body did not arrive: ${String(cause)}`, {
      cause,
    });
  }
}

async function abortable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  const stop = new AbortController();
  const aborted = new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { signal: stop.signal });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    stop.abort();
  }
}

/** Workers of one page. The first of a job does it, the others are its lanes. */
class Pool {
  readonly #options: BlobJobsOptions;
  readonly #workers: Worker[] = [];
  #fail: ((error: unknown) => void) | null = null;
  isClosed = false;

  constructor(options: BlobJobsOptions) {
    this.#options = options;
  }

  async run(work: Work, most: number, { signal, onProgress }: BlobJobOptions): Promise<WorkResult> {
    const blobs = work.type === 'aggregate' ? work.inputs.map(({ blob }) => blob) : [work.input];
    const bytes = blobs.reduce((sum, blob) => sum + blob.size, 0);
    const count = Math.max(1, Math.min(most, Math.ceil(bytes / WORTH_A_WORKER)));
    try {
      return await new Promise((resolve, reject) => {
        this.#fail = reject;
        signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
        while (this.#workers.length < count) this.#workers.push(this.#start());
        const [first, ...others] = this.#workers.slice(0, count) as [Worker, ...Worker[]];
        first.onmessage = ({ data }: MessageEvent<FromWorker>) => {
          if (data.type === 'progress') onProgress?.(data.progress);
          else if (data.type === 'done') resolve(data.value);
          else reject(new Answered(unpackError(data.error)));
        };
        const { core } = this.#options;
        const lanes = others.map((worker) => {
          const { port1, port2 } = new MessageChannel();
          worker.postMessage({ type: 'lane', port: port2, core } satisfies ToWorker, [port2]);
          return port1;
        });
        first.postMessage({ type: 'job', work, lanes, core } satisfies ToWorker, lanes);
      });
    } catch (error) {
      if (error instanceof Answered) throw error.error;
      // A worker reads no messages while it works, and a broken one none at all.
      this.#end();
      throw error;
    } finally {
      this.#fail = null;
    }
  }

  close(): void {
    this.isClosed = true;
    this.#fail?.(new InternalError('internal-worker', 'the workers were closed'));
    this.#end();
  }

  #end(): void {
    for (const worker of this.#workers.splice(0)) worker.terminate();
  }

  #start(): Worker {
    const { startWorker = startBuiltWorker } = this.#options;
    const lost = (why: string, cause?: unknown) =>
      new UnavailableError('unavailable-worker', `a worker cannot be started, or broke down: ${why}`, {
        cause,
      });
    let worker: Worker;
    try {
      worker = startWorker();
    } catch (cause) {
      throw lost(String(cause), cause);
    }
    worker.onerror = (event) => {
      event.preventDefault(); // it is told to whoever waits for the job
      this.#fail?.(
        lost(
          event.message ??
            'its file is not beside the script that starts it, or no module; "startWorker" starts another',
        ),
      );
    };
    return worker;
  }
}

/** An error that a worker answered with: the worker is well. */
class Answered {
  readonly error: unknown;

  constructor(error: unknown) {
    this.error = error;
  }
}

function startBuiltWorker(): Worker {
  return new Worker(new URL('./browser-worker.js', import.meta.url), { type: 'module', name: 'cambium' });
}
