/**
 * The door for hosts that have WebAssembly and little else: one file without imports, the core in it. No `fetch`, no DOM,
 * no `node:`, no timers; bytes come from sources that the host gives. Only deflated archives need more: an `inflate` of the
 * host, or DecompressionStream.
 */
export {
  Aggregation,
  type AggregationInput,
  type AggregationOptions,
  type RunOptions,
} from './aggregate/aggregation.ts';
export { type AverageOptions, average } from './aggregate/average.ts';
export { addModel, proximalGradient, subtractModel } from './aggregate/differences.ts';
export {
  decodeUpdate,
  type EncodedUpdate,
  type EncodeOptions,
  encodeUpdate,
} from './aggregate/encode-update.ts';
export type { Progress } from './aggregate/progress.ts';
export { openStrategy, STRATEGY_NAMES, type Strategy, strategies } from './aggregate/strategies/index.ts';
export type { EncodingForm } from './aggregate/update-encoder.ts';
export * from './errors.ts';
export { encodeWeights } from './formats/encode.ts';
export type { Encoding, TensorSpec, WeightsSpec } from './formats/encoding.ts';
export type { ReadOptions } from './formats/npy.ts';
export { openWeights, type Weights } from './formats/open.ts';
export { readTensors } from './formats/read.ts';
export { type WriteOptions, writeWeights } from './formats/write.ts';
export { type ByteSink, type ByteSource, memorySink, memorySource } from './tensor/bytes.ts';
export { DTYPES, type DType, itemSize } from './tensor/dtypes.ts';
export {
  elementCount,
  type Layout,
  type TensorEncoding,
  type TensorLayout,
  type WeightsFormat,
} from './tensor/layout.ts';
export { type ModelUpdate, type Tensor, tensorOf } from './tensor/tensor.ts';
export { VERSION } from './wire/version.ts';
