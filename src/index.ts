/** The door for Node: what every host has, and files and worker threads. The server is started by `cambium serve`. */
export * from './common.ts';
export { aggregateFiles } from './node/aggregate-files.ts';
export type { BrokerOptions } from './node/broker-place.ts';
export { Client, type NodeClientOptions, type NodeNoticesOptions } from './node/client.ts';
export { convertFile } from './node/convert-file.ts';
export { type FileSinkOptions, openFileSink, openFileSource } from './node/files.ts';
export type {
  AggregateInput,
  AggregateReport,
  AggregateRequest,
  ConvertReport,
  ConvertRequest,
  EncodeRequest,
  Examination,
  JobOptions,
  Jobs,
  MergeReport,
  MergeRequest,
} from './node/jobs.ts';
export { mergeFiles } from './node/merge-files.ts';
export type { NetworkOptions } from './node/network.ts';
export { readCredentials } from './node/read-credentials.ts';
export { type SavedWeights, type SaveWeightsOptions, saveWeights } from './node/save-weights.ts';
export { startJobs, type WorkersOptions } from './node/workers.ts';
