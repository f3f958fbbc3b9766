/** What the doors for Node and browsers have: what every host has, and the types of the client. */
export type { ConversionForm } from './aggregate/conversion.ts';
export type { ClientEventName, ClientEvents, ClientListener } from './client/client-events.ts';
export { type ClientConfiguration, presets } from './client/configuration.ts';
export type { Credentials, LeafIdentity } from './client/credentials.ts';
export type { Generation, RunDetails, UpdateFormat } from './client/dialect.ts';
export type { Download, DownloadedBytes, DownloadedFile } from './client/download.ts';
export type { CheckedSink, FileAccess, PartialSink, Sha256 } from './client/file-access.ts';
export type {
  CallOptions,
  CircuitOptions,
  ClientNoticesOptions,
  ClientOptions,
  ConnectionOptions,
  DownloadFormat,
  DownloadOptions,
  NoticeSession,
  NoticesFor,
  RunGateOptions,
  TransferOptions,
  TransferProgress,
  UpdateOptions,
  UploadOptions,
  WaitOptions,
} from './client/options.ts';
export type { AggregationQueue, GetOptions, QueuePolicy } from './client/queue.ts';
export type { UploadReceipt, UploadSource } from './client/upload.ts';
export { weightings } from './client/weightings.ts';
export { type ValidateOptions, validateWeights } from './client/weights.ts';
export * from './edge.ts';
export {
  arraysOf,
  type NamedArray,
  type NestedNumbers,
  nestedOf,
  type ShapedArray,
  type UpdateFromArraysOptions,
  updateFromArrays,
  type WeightArray,
} from './tensor/arrays.ts';
export type { TypedArray } from './tensor/tensor.ts';
export type { Clock } from './transport/clock.ts';
export type {
  NoticeMessage,
  NoticeStream,
  Notices,
  NoticesOptions,
  Reconnecting,
  Reconnection,
  ReconnectOptions,
} from './transport/notices.ts';
export type { Retry, RetryOptions } from './transport/retry.ts';
export type { Timeouts } from './transport/timeouts.ts';
export type { MetricsMode, RunStatus } from './wire/cambium.ts';
