import {
  AggregationError,
  CambiumError,
  FileError,
  FormatError,
  isCambiumError,
  ProtocolError,
  RefusedError,
  UnavailableError,
} from '../errors.ts';

/** Exit codes of every command (the 60s and 70s are those of sysexits.h). */
export const EXIT = {
  done: 0,
  usage: 2,
  badData: 65,
  unavailable: 69,
  internal: 70,
  file: 74,
  refused: 77,
  interrupted: 130,
} as const;

/** A command that was called in a way it does not understand. */
export class UsageError extends CambiumError {
  constructor(message: string) {
    super('usage', message);
  }
}

/** Settings that the server refuses before it starts, an output whose format nothing says, a rule that is asked for wrongly. */
const USAGE_CODES: ReadonlySet<string> = new Set([
  'broker-url',
  'output-format',
  'output-taken',
  'program-missing',
  'serve-insecure',
  'serve-public-url',
  'serve-tls',
  'strategy-model-missing',
  'strategy-model-unused',
  'strategy-parameter',
  'strategy-state-missing',
  'strategy-state-unused',
  'strategy-unknown',
]);

/** What people and programs wrote for us, and wrote wrongly: credentials, metrics. */
const BAD_DATA_CODES: ReadonlySet<string> = new Set([
  'credentials-conflict',
  'credentials-generation',
  'credentials-invalid',
  'credentials-missing',
  'metrics-invalid',
]);

/** Services and places that are taken. */
const UNAVAILABLE_CODES: ReadonlySet<string> = new Set([
  'broker-missing',
  'serve-address',
  'data-locked',
  'state-newer',
]);

/** The exit code that tells a script what kind of thing went wrong. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError) return EXIT.usage;
  if (isCambiumError(error) && USAGE_CODES.has(error.code)) return EXIT.usage;
  if (error instanceof FormatError || error instanceof AggregationError) return EXIT.badData;
  if (isCambiumError(error) && BAD_DATA_CODES.has(error.code)) return EXIT.badData;
  if (error instanceof FileError) return EXIT.file;
  if (error instanceof RefusedError) return EXIT.refused;
  // What answers is not the server: a log-in page, another service.
  if (error instanceof UnavailableError || error instanceof ProtocolError) return EXIT.unavailable;
  if (isCambiumError(error) && UNAVAILABLE_CODES.has(error.code)) return EXIT.unavailable;
  if (isInterrupt(error)) return EXIT.interrupted;
  return EXIT.internal;
}

/** True for the reason with which the command line ends what it was doing. */
export function isInterrupt(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError';
}
