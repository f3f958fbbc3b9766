import type { WorkerOptions } from 'node:worker_threads';

/**
 * How worker threads are started. Their objects are few and short-lived, and their elements lie in the core's memory: with
 * the usual room for young objects each thread holds 7 MB more before its collector looks for the first time.
 */
export const WORKER_OPTIONS: WorkerOptions = { resourceLimits: { maxYoungGenerationSizeMb: 2 } };
