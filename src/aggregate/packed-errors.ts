/**
 * Errors across the border of a thread or a process: structured clone keeps message and stack of an error, but neither its class nor
 * its fields.
 */
import {
  AggregationError,
  type AggregationPlace,
  CambiumError,
  FileError,
  FormatError,
  type FormatPlace,
  InternalError,
  isCambiumError,
  ProtocolError,
  RefusedError,
  UnavailableError,
} from '../errors.ts';

/** An error as plain data. */
export interface PackedError {
  readonly name: string;
  readonly code: string;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
  readonly stack: string | undefined;
}

/** Turns any error into plain data; what is not ours becomes `internal-error`. */
export function packError(error: unknown): PackedError {
  if (isCambiumError(error)) {
    const { name, code, message, stack, cause: _, ...fields } = { ...error, ...pick(error) };
    return { name, code, message, fields, stack };
  }
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  return { name: 'InternalError', code: 'internal-error', message, fields: {}, stack };
}

/** The members of an error that a spread does not see. */
function pick({ name, code, message, stack }: CambiumError) {
  return { name, code, message, stack };
}

/** The error again, of its own class. */
export function unpackError({ name, code, message, fields, stack }: PackedError): CambiumError {
  const error = make(name, code, message, fields);
  if (stack !== undefined) error.stack = stack;
  return error;
}

function make(
  name: string,
  code: string,
  message: string,
  fields: Readonly<Record<string, unknown>>,
): CambiumError {
  switch (name) {
    case 'FormatError':
      return new FormatError(code, message, fields as FormatPlace); // packError wrote these fields
    case 'AggregationError':
      return new AggregationError(code, message, fields as AggregationPlace); // as above
    case 'FileError':
      return new FileError(code, message, String(fields.path));
    case 'RefusedError':
      return new RefusedError(code, message, Number(fields.status));
    case 'UnavailableError':
      return new UnavailableError(code, message);
    case 'ProtocolError':
      return new ProtocolError(code, message);
    default:
      return name === 'CambiumError' ? new CambiumError(code, message) : new InternalError(code, message);
  }
}
