import type {
  BlobAggregateReport,
  BlobAggregateRequest,
  BlobConvertReport,
  BlobConvertRequest,
  BlobInput,
  BlobJobOptions,
} from './jobs.ts';
import { type BlobJobsOptions, startJobs } from './pool.ts';

/**
 * Averages weight files (or follows another rule) in constant memory, on Web Workers that end with the job. Pages with
 * many jobs keep theirs: `startJobs`.
 *
 * ```ts
 * const { blob } = await aggregateBlobs(files.map((file) => ({ blob: file })), { strategy: { name: 'median' } });
 * ```
 *
 * @throws FormatError for a Blob that is no weight file, AggregationError for files that do not fit together, FileError for
 *   a File that changed or an output that cannot be written, UnavailableError where the page may not start workers
 *   (`unavailable-worker`) or compile the core (`unavailable-compile`), RefusedError for a Response without success, the
 *   reason of `signal`
 */
export async function aggregateBlobs(
  inputs: readonly BlobInput[],
  options: Omit<BlobAggregateRequest, 'inputs'> & BlobJobOptions & BlobJobsOptions = {},
): Promise<BlobAggregateReport> {
  const { workers, startWorker, core, signal, onProgress, ...request } = options;
  const jobs = startJobs({ workers, startWorker, core });
  try {
    return await jobs.aggregate({ inputs, ...request }, { signal, onProgress });
  } finally {
    jobs.close();
  }
}

/**
 * Converts a weight file into another format in constant memory, on a Web Worker that ends with the job.
 *
 * @throws FormatError for a Blob that is no weight file or does not fit the format, and as `aggregateBlobs`
 */
export async function convertBlob(
  input: Blob | Response,
  options: Omit<BlobConvertRequest, 'input'> & BlobJobOptions & BlobJobsOptions,
): Promise<BlobConvertReport> {
  const { workers, startWorker, core, signal, onProgress, ...request } = options;
  const jobs = startJobs({ workers, startWorker, core });
  try {
    return await jobs.convert({ input, ...request }, { signal, onProgress });
  } finally {
    jobs.close();
  }
}
