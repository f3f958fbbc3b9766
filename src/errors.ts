/**
 * Every error that Cambium raises on purpose.
 *
 * `code` is stable, kebab-case and meant for programs; `message` is a sentence for people that tells expected and
 * actual, and the remedy where there is one. Wrong arguments are plain TypeError or RangeError instead: they are
 * defects of the calling program, not events of a run.
 */
export class CambiumError extends Error {
  // Written out in each class, because minified builds give classes other names.
  override readonly name: string = 'CambiumError';
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** True for every error of this module, also across two copies of the package in one program. */
export function isCambiumError(error: unknown): error is CambiumError {
  return (
    error instanceof CambiumError ||
    (error instanceof Error &&
      CLASS_NAMES.has(error.name) &&
      typeof (error as { code?: unknown }).code === 'string')
  );
}

/** Where in a weight file something is wrong. All members are optional because not every reader knows all of them. */
export interface FormatPlace {
  /** The file, as the caller named it. */
  readonly file?: string | undefined;
  /** Name or position of the tensor. */
  readonly tensor?: string | number | undefined;
  /** Absolute position in the file, in bytes, of the byte that could not be accepted. */
  readonly offset?: number | undefined;
}

/**
 * Bytes that are not the weight file they should be. Codes: by container `npy-…`, `pickle-…`, `zip-…`, `torch-…`, `st-…`
 * (safetensors), `encoded-…` and `partial-…`; `weights-…` for what a good container holds; `format-…` and `convert-format`
 * for a container that is unknown or not the one that is wanted.
 */
export class FormatError extends CambiumError {
  override readonly name: string = 'FormatError';
  readonly file: string | undefined;
  readonly tensor: string | number | undefined;
  readonly offset: number | undefined;

  constructor(code: string, message: string, place: FormatPlace = {}, options?: ErrorOptions) {
    super(code, message, options);
    this.file = place.file;
    this.tensor = place.tensor;
    this.offset = place.offset;
  }
}

/** One element that is NaN or infinite. */
export interface NonFiniteElement {
  /** Position of the tensor in its file, from 0. */
  readonly tensor: number;
  /** Position of the element in C order, from 0. */
  readonly index: number;
  /** The leaf (or file) it came from. */
  readonly leaf: string;
}

/** What an aggregation error is about. */
export interface AggregationPlace {
  readonly leaf?: string | undefined;
  readonly tensor?: string | number | undefined;
  readonly index?: number | undefined;
  /** The first non-finite elements, ordered by tensor, index, leaf. */
  readonly nonFinite?: readonly NonFiniteElement[] | undefined;
}

/**
 * Updates that cannot be aggregated. Codes: `average-…` and `layout-…` for updates unlike each other or the model,
 * `weighting-…`, `non-finite`, `aggregate-…`; `strategy-…` and `state-…` for the rule; `partial-…` for exact partial sums.
 */
export class AggregationError extends CambiumError {
  override readonly name: string = 'AggregationError';
  readonly leaf: string | undefined;
  readonly tensor: string | number | undefined;
  readonly index: number | undefined;
  readonly nonFinite: readonly NonFiniteElement[] | undefined;

  constructor(code: string, message: string, place: AggregationPlace = {}, options?: ErrorOptions) {
    super(code, message, options);
    this.leaf = place.leaf;
    this.tensor = place.tensor;
    this.index = place.index;
    this.nonFinite = place.nonFinite;
  }
}

/** A file or folder that cannot be read or written. Codes: `file-…`, `disk-full`. */
export class FileError extends CambiumError {
  override readonly name: string = 'FileError';
  readonly path: string;

  constructor(code: string, message: string, path: string, options?: ErrorOptions) {
    super(code, message, options);
    this.path = path;
  }
}

/** What is known of the exchange with a server in which an error arose. */
export interface ExchangeFacts {
  /** HTTP status of the answer; undefined where none came. */
  readonly status?: number | undefined;
  /** How the answer's body begins: at most 200 characters, without tokens, queries of URLs and control characters. */
  readonly preview?: string | undefined;
  /** How long the other side asked to be left alone, in milliseconds. */
  readonly retryAfterMs?: number | undefined;
}

/** What comes of talking to a server: the three classes below. */
export class ExchangeError extends CambiumError {
  override readonly name: string = 'ExchangeError';
  /** HTTP status of the answer; undefined where none came. */
  readonly status: number | undefined;
  /** How the answer's body begins: at most 200 characters, without tokens, queries of URLs and control characters. */
  readonly preview: string | undefined;
  /** How long the other side asked to be left alone, in milliseconds. */
  readonly retryAfterMs: number | undefined;
  /** How often it was tried; undefined where another try would make no sense. */
  readonly attempts: number | undefined;

  constructor(code: string, message: string, options: ErrorOptions & ExchangeFacts = {}) {
    super(code, message, options);
    this.status = options.status;
    this.preview = options.preview;
    this.retryAfterMs = options.retryAfterMs;
    this.attempts = undefined; // told by who tries
  }
}

/** The server answered, and the answer is no. `code` is the server's own. */
export class RefusedError extends ExchangeError {
  override readonly name: string = 'RefusedError';
  declare readonly status: number;

  constructor(code: string, message: string, status: number, options?: ErrorOptions & ExchangeFacts) {
    super(code, message, { ...options, status });
  }
}

/**
 * A service, an optional package or a means of the host that is not there, or does not answer. Codes: `unavailable-…`,
 * `timeout`; `upload-unconfirmed` where only the answer was lost.
 */
export class UnavailableError extends ExchangeError {
  override readonly name: string = 'UnavailableError';
}

/** An answer that does not follow the protocol. Codes: `protocol-…`. */
export class ProtocolError extends ExchangeError {
  override readonly name: string = 'ProtocolError';
}

/** Something inside that should not happen: a worker that died, a status that nobody knows. Codes: `internal-…`. */
export class InternalError extends CambiumError {
  override readonly name: string = 'InternalError';
}

const CLASS_NAMES: ReadonlySet<string> = new Set([
  'CambiumError',
  'FormatError',
  'AggregationError',
  'FileError',
  'ExchangeError',
  'RefusedError',
  'UnavailableError',
  'ProtocolError',
  'InternalError',
]);
