import type { ConversionForm } from '../aggregate/conversion.ts';
import type { SumLeaf } from '../aggregate/partial-file.ts';
import type { StrategyRequest } from '../aggregate/strategies/index.ts';
import type { EncodingForm } from '../aggregate/update-encoder.ts';
import type { NonFiniteElement } from '../errors.ts';
import type { TensorSpec } from '../formats/encoding.ts';
import type { Layout, WeightsFormat } from '../tensor/layout.ts';
import type { OutputForm } from './output-format.ts';

/** One input of an aggregation over files. */
export interface AggregateInput {
  readonly path: string;
  /** What is in the file, where that is in memory already: nothing is read at `path`, which need not be there. */
  readonly bytes?: Uint8Array | undefined;
  /** Identity of the contributor in messages and for the canonical order; the path unless given. */
  readonly leaf?: string | undefined;
  /** Overrides the weighting of the file. */
  readonly weighting?: number | undefined;
}

export interface AggregateRequest extends OutputForm {
  readonly inputs: readonly AggregateInput[];
  /** Appears complete or not at all. */
  readonly output: string;
  /**
   * Unless given: what the output's extension says (`.npz`, `.safetensors`), else the inputs' common format, else
   * `npy-object`. `.npy` is `npy` when every input is a plain array, else `npy-object`.
   */
  readonly format?: WeightsFormat | undefined;
  /** The rule, by default the exact weighted mean. */
  readonly strategy?: StrategyRequest | undefined;
  /** Path of the global model, for rules that refer to one and for inputs that are differences to it; refused where neither is so. */
  readonly model?: string | undefined;
  /**
   * The inputs are differences to the model, also those that do not say so (default false: as they say). What the rule makes
   * of them is added to the model; see `AggregationOptions`.
   */
  readonly differences?: boolean | undefined;
  /**
   * The tensors of the output in their order, for inputs that name theirs in several orders; see `AggregationOptions`. Unless given
   * the model, or the input with the first leaf, decides.
   */
  readonly tensors?: readonly TensorSpec[] | undefined;
  /**
   * Path of the state of a server optimiser, which belongs to `model`; made by the first round, and replaced together with
   * the output by every round. Refused where the rule keeps none.
   */
  readonly state?: string | undefined;
  /** Threads that share the work, by default as many as there are processors. */
  readonly threads?: number | undefined;
  /** Names for the output's tensors, in their order, in place of those of the inputs. */
  readonly names?: readonly string[] | undefined;
  /** What NaN and infinity in inputs do: refuse the job (default), or follow the rule into the result. */
  readonly nonFinite?: 'reject' | 'propagate' | undefined;
  /** Compute the SHA-256 of the output (default true). */
  readonly digest?: boolean | undefined;
  /** Flush the output and its folder to the disk before it counts as written (default false). */
  readonly durable?: boolean | undefined;
}

export interface AggregateReport {
  readonly output: string;
  readonly format: string;
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
  /** Lower-case hexadecimal; null without `digest`. */
  readonly sha256: string | null;
  /** True when no input had a weighting, so that each counted 1. */
  readonly countsEqually: boolean;
}

export interface MergeRequest extends OutputForm {
  /** Weight files and partial sums, told apart by their content. Leaf and weighting are for weight files. */
  readonly inputs: readonly AggregateInput[];
  /** As of `AggregateRequest`. */
  readonly tensors?: readonly TensorSpec[] | undefined;
  /** Paths of partial sums whose leaves are taken out again. */
  readonly without?: readonly string[] | undefined;
  /** Appears complete or not at all. */
  readonly output: string;
  /** A partial sum, which later merges go on from, or the mean. */
  readonly to: 'sum' | 'mean';
  /** Of a mean; what the name of the output says unless given. `.npy` is one plain array where the leaves were such. */
  readonly format?: WeightsFormat | undefined;
  /** What NaN and infinity do: refuse the job (default), or go into the sum. They cannot be taken out again. */
  readonly nonFinite?: 'reject' | 'propagate' | undefined;
  /** Threads that share the work, by default as many as there are processors. */
  readonly threads?: number | undefined;
  /** Compute the SHA-256 of the output (default true). */
  readonly digest?: boolean | undefined;
  /** Flush the output and its folder to the disk before it counts as written (default false). */
  readonly durable?: boolean | undefined;
}

export interface MergeReport {
  readonly output: string;
  readonly format: WeightsFormat | 'partial-sum';
  /** Leaves in the result, with a weighting above zero. */
  readonly leaves: number;
  /** Their ids. */
  readonly ids: readonly string[];
  /** The exact sum of the weightings in units of 2^-116, in decimal digits. */
  readonly total: string;
  /** Nearest binary64 of it. */
  readonly totalWeighting: number;
  readonly tensors: number;
  /** Elements of all tensors. */
  readonly parameters: number;
  /** Length of the output in bytes. */
  readonly byteLength: number;
  /** Of a partial sum: numbers beside the first one of an element; null of a mean. */
  readonly residues: number | null;
  readonly bytesRead: number;
  readonly seconds: number;
  /** Lower-case hexadecimal; null without `digest`. */
  readonly sha256: string | null;
  /** True when no leaf had a weighting, so that each counted 1. */
  readonly countsEqually: boolean;
}

export interface ConvertRequest extends OutputForm, ConversionForm {
  readonly input: string;
  /** Appears complete or not at all. */
  readonly output: string;
  /**
   * Unless given, what the name of the output says: `.npy` is `npy` for one tensor without a weighting, else
   * `npy-object`.
   */
  readonly format?: WeightsFormat | undefined;
  /** Take anonymous two-byte elements for bfloat16. */
  readonly void16?: 'bfloat16' | undefined;
  /** Write an encoded update, which is a safetensors file. */
  readonly encode?: EncodeRequest | undefined;
  /** Path of the global model that the input, a difference, is added to: each element is rounded once. */
  readonly addTo?: string | undefined;
}

/** How an update is encoded. */
export interface EncodeRequest extends EncodingForm {
  /** Path of the global model: what is written is the difference to it. */
  readonly differenceTo?: string | undefined;
  /**
   * Path of what earlier updates left over (error feedback): added to this one where the file is there, and written anew with
   * what this one leaves over. It belongs to one leaf.
   */
  readonly residual?: string | undefined;
}

export interface ConvertReport {
  readonly input: string;
  readonly output: string;
  readonly format: WeightsFormat;
  /** As it is in the output: null where there was none, or the format has no room for one. */
  readonly weighting: number | null;
  /** Whether the output holds a difference to a global model; only encoded updates say so themselves. */
  readonly isDifference: boolean;
  readonly tensors: number;
  /** Elements of all tensors. */
  readonly parameters: number;
  readonly bytesRead: number;
  readonly seconds: number;
  /** Lower-case hexadecimal, of the output file. */
  readonly sha256: string | null;
}

export interface Progress {
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export interface JobOptions {
  /** Ends the job, which then throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Told, often, how much has been read. Default: nobody is. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/** What a look at a weight file tells. */
export interface Examination {
  readonly layout: Layout;
  /** The first eight NaN or infinite elements by tensor and index (empty unless asked for with `checkFinite`). */
  readonly nonFinite: readonly NonFiniteElement[];
  /** Of an exact partial sum: its leaves, by id. Tensors and weighting in the layout are then those of their mean. */
  readonly sum?: readonly SumLeaf[] | undefined;
  /**
   * L2 norm of all elements, or of a model's differences to `model`, in binary64; the bits do not depend on the host. Null without
   * `checkFinite`, and where it is not finite.
   */
  readonly norm: number | null;
  /** Whether it is that of differences: to `model`, or because the file holds such (`layout.isDifference`). */
  readonly isDifference: boolean;
}

/** Heavy work on files, done off the caller's thread. */
export interface Jobs {
  /**
   * Finds the layout of a weight file and, with `checkFinite`, reads every element once; compressed ones are unpacked for
   * that, as long as they take no more than `maxUnpackedBytes`. The norm comes of the same reading; `model` is the path of
   * the weight file that it refers to, with the same tensors; where `tensors` are given, both are paired with these.
   *
   * With `bytes`, what is in the file, nothing is read at `path`, and scratch room is made beside it. With `sums` it looks at
   * exact partial sums too, and with `checkFinite` at everything in them, but for their norm; without they are refused
   * (`weights-partial-sum`).
   *
   * @throws FormatError, FileError; for sums AggregationError
   */
  examine(
    path: string,
    options?: JobOptions & {
      checkFinite?: boolean;
      name?: string;
      bytes?: Uint8Array | undefined;
      model?: string | undefined;
      tensors?: readonly TensorSpec[] | undefined;
      maxUnpackedBytes?: number;
      sums?: boolean;
    },
  ): Promise<Examination>;
  /** Aggregates files into a file. Throws FormatError, AggregationError, FileError. */
  aggregate(request: AggregateRequest, options?: JobOptions): Promise<AggregateReport>;
  /** Adds weight files and partial sums to a partial sum or a mean. Throws FormatError, AggregationError, FileError. */
  merge(request: MergeRequest, options?: JobOptions): Promise<MergeReport>;
  /** Converts a file into another format. Throws FormatError, FileError; `output-format` when nothing says which format. */
  convert(request: ConvertRequest, options?: JobOptions): Promise<ConvertReport>;
  /** Ends the workers. Jobs that are under way are rejected with `internal-worker`. */
  close(): Promise<void>;
}
