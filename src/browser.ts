/** The door for browsers: what every host has, over `fetch`, Blobs and Web Workers. */
export { aggregateBlobs, convertBlob } from './browser/aggregate-blobs.ts';
export type {
  BlobAggregateReport,
  BlobAggregateRequest,
  BlobConvertReport,
  BlobConvertRequest,
  BlobInput,
  BlobJobOptions,
  BlobJobs,
} from './browser/jobs.ts';
export { type BlobJobsOptions, startJobs } from './browser/pool.ts';
export { type CoreUrls, streamCore } from './browser/streamed-core.ts';
export { Client } from './client/client.ts';
export * from './common.ts';
export { blobSource } from './tensor/blob.ts';
