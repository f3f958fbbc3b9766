import type { ConversionForm } from '../aggregate/conversion.ts';
import type { StrategyRequest } from '../aggregate/strategies/index.ts';
import type { WeightsFormat } from '../tensor/layout.ts';

/** One input of an aggregation over Blobs. */
export interface BlobInput {
  /**
   * A Blob or File, or the answer of a `fetch` whose body was not read yet: the browser spools that as a Blob, in memory
   * or on disk as it sees fit.
   */
  readonly blob: Blob | Response;
  /**
   * Identity of the contributor in messages and for the canonical order; unless given the name of a File, else the
   * position, `blob 0`, `blob 1`, …
   */
  readonly leaf?: string | undefined;
  /** Overrides the weighting of the file. */
  readonly weighting?: number | undefined;
}

export interface BlobAggregateRequest {
  readonly inputs: readonly BlobInput[];
  /** Where the result goes, complete or not at all; a Blob of the browser's unless given. */
  readonly output?: FileSystemFileHandle | undefined;
  /** The inputs' common format unless given. */
  readonly format?: WeightsFormat | undefined;
  /** Put the elements of an `npy-object` at multiples of 64 bytes, so that views of the file need no copy (default false). */
  readonly align?: boolean | undefined;
  /** The rule, by default the exact weighted mean. */
  readonly strategy?: StrategyRequest | undefined;
  /** The global model, for rules that refer to one and for inputs that are differences to it. */
  readonly model?: Blob | Response | undefined;
  /** The inputs are differences to the model, also those that do not say so (default false: as they say). */
  readonly differences?: boolean | undefined;
  /**
   * For rules that keep a state from round to round (FedAvgM, FedAdagrad, FedAdam, FedYogi): the report's `state` of the
   * round that led to `model`, null to begin with a new one. It is the file that Node and the command line keep too. Such a
   * round runs on one worker.
   */
  readonly state?: Blob | Response | null | undefined;
  /** What NaN and infinity in inputs do: refuse the job (default), or follow the rule into the result. */
  readonly nonFinite?: 'reject' | 'propagate' | undefined;
}

export interface BlobAggregateReport {
  /** The result, or a File over `output`. */
  readonly blob: Blob;
  /** Of a rule that keeps one: what the next round, which starts from this result, goes on from. */
  readonly state?: Blob | undefined;
  readonly format: WeightsFormat;
  readonly strategy: string;
  /** Inputs with a weighting above zero. */
  readonly leaves: number;
  /** Nearest binary64 of the exact sum. */
  readonly totalWeighting: number;
  readonly tensors: number;
  /** Elements of all tensors. */
  readonly parameters: number;
  readonly bytesRead: number;
  readonly seconds: number;
  /** True when no input had a weighting, so that each counted 1. */
  readonly countsEqually: boolean;
}

export interface BlobConvertRequest extends ConversionForm {
  readonly input: Blob | Response;
  readonly format: WeightsFormat;
  /** Where the result goes, complete or not at all; a Blob of the browser's unless given. */
  readonly output?: FileSystemFileHandle | undefined;
  /** Take anonymous two-byte elements for bfloat16. */
  readonly void16?: 'bfloat16' | undefined;
}

export interface BlobConvertReport {
  /** The result, or a File over `output`. */
  readonly blob: Blob;
  /** As it is in the output: null where there was none, or the format has no room for one. */
  readonly weighting: number | null;
  /** Whether the result is a difference to a global model, which it does not say itself. */
  readonly isDifference: boolean;
  readonly tensors: number;
  /** Elements of all tensors. */
  readonly parameters: number;
  readonly bytesRead: number;
  readonly seconds: number;
}

export interface BlobJobOptions {
  /** Ends the job at once: its workers are ended, and what was written is discarded. */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?:
    | ((progress: { readonly bytesDone: number; readonly bytesTotal: number }) => void)
    | undefined;
}

/** Heavy work on Blobs, done off the page's thread; one job at a time. */
export interface BlobJobs {
  /** Aggregates weight files. Throws FormatError, AggregationError, FileError, UnavailableError. */
  aggregate(request: BlobAggregateRequest, options?: BlobJobOptions): Promise<BlobAggregateReport>;
  /** Converts a weight file into another format. Throws FormatError, FileError, UnavailableError. */
  convert(request: BlobConvertRequest, options?: BlobJobOptions): Promise<BlobConvertReport>;
  /** Ends the workers. Jobs that are under way are rejected with `internal-worker`. */
  close(): void;
}
