/** What the doors for Node and browsers have: what every host has, and the types of the client. */
export type { ConversionForm } from './aggregate/conversion.ts';
export type { DownloadOptions, UploadOptions } from './client/client.ts';
export type { Credentials } from './client/credentials.ts';
export type { Generation, RunDetails } from './client/dialect.ts';
export type { DownloadedBytes, DownloadedFile } from './client/download.ts';
export type { FileAccess } from './client/file-access.ts';
export type {
  CallOptions,
  ClientOptions,
  NoticeSession,
  NoticesFor,
  TransferOptions,
  TransferProgress,
} from './client/options.ts';
export type { AggregationQueue, GetOptions, QueuePolicy } from './client/queue.ts';
export type { UploadReceipt, UploadSource } from './client/upload.ts';
export { validateWeights } from './client/weights.ts';
export * from './edge.ts';
export type { Timeouts } from './transport/http.ts';
export type { RetryOptions } from './transport/retry.ts';
