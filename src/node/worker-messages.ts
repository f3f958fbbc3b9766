import type { PackedError } from '../aggregate/packed-errors.ts';
import type { TensorSpec } from '../formats/encoding.ts';
import type {
  AggregateReport,
  AggregateRequest,
  ConvertReport,
  ConvertRequest,
  Examination,
  MergeReport,
  MergeRequest,
  Progress,
} from './jobs.ts';

export interface ExamineMessage {
  readonly type: 'examine';
  readonly path: string;
  /** What is in the file, where that is in memory. */
  readonly bytes?: Uint8Array | undefined;
  /** What errors call the file. */
  readonly name: string;
  readonly checkFinite: boolean;
  /** Path of the global model that the norm refers to. */
  readonly model: string | undefined;
  /** What its tensors and the model's are paired with. */
  readonly tensors?: readonly TensorSpec[] | undefined;
  readonly maxUnpackedBytes: number | undefined;
  /** Exact partial sums are looked at too. */
  readonly sums: boolean;
}

/** What a job asks for. */
export type JobMessage =
  | ExamineMessage
  | { readonly type: 'aggregate'; readonly request: AggregateRequest }
  | { readonly type: 'merge'; readonly request: MergeRequest }
  | { readonly type: 'convert'; readonly request: ConvertRequest };

/** What a job ends with. */
export type JobResult = Examination | AggregateReport | MergeReport | ConvertReport;

export type ToWorker = JobMessage & {
  readonly id: number;
  /** One shared number: not 0 when the job is to stop. */
  readonly abortFlag: Int32Array;
};

export type FromWorker =
  | { readonly id: number; readonly type: 'progress'; readonly progress: Progress }
  | { readonly id: number; readonly type: 'done'; readonly value: JobResult }
  | { readonly id: number; readonly type: 'failed'; readonly error: PackedError };
