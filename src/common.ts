/** What every door has: formats, tensors, averages, errors, and the types of the client. */
export {
  Aggregation,
  type AggregationInput,
  type AggregationOptions,
  type RunOptions,
} from './aggregate/aggregation.ts';
export { type AverageOptions, average } from './aggregate/average.ts';
export type { ConversionForm } from './aggregate/conversion.ts';
export { openStrategy, STRATEGY_NAMES, type Strategy, strategies } from './aggregate/strategies/index.ts';
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
export * from './errors.ts';
export { encodeWeights } from './formats/encode.ts';
export type { Encoding, TensorSpec, WeightsSpec } from './formats/encoding.ts';
export { openWeights } from './formats/open.ts';
export { readTensors } from './formats/read.ts';
export { writeWeights } from './formats/write.ts';
export { type ByteSink, type ByteSource, memorySink, memorySource } from './tensor/bytes.ts';
export { DTYPES, type DType, itemSize } from './tensor/dtypes.ts';
export { elementCount, type Layout, type TensorLayout, type WeightsFormat } from './tensor/layout.ts';
export { type ModelUpdate, type Tensor, tensorOf } from './tensor/tensor.ts';
export type { Timeouts } from './transport/http.ts';
export type { RetryOptions } from './transport/retry.ts';
export { VERSION } from './wire/version.ts';
