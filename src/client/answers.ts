/** Answers of the server, checked for the members that the client relies on. Unknown members are ignored. */
import { ProtocolError } from '../errors.ts';
import type {
  AggregationBody,
  AggregationNotice,
  AuthenticatedBody,
  RunBody,
  RunNotice,
  RunStatus,
  UploadBody,
} from '../wire/cambium.ts';

type Check = (value: unknown) => boolean;

export const isText: Check = (value) => typeof value === 'string';
const isCount: Check = (value) => Number.isSafeInteger(value) && (value as number) >= 0;
const isNumber: Check = (value) => typeof value === 'number';
const isSha256: Check = (value) => typeof value === 'string' && /^[0-9a-f]{64}$/.test(value);
export const isStatus: Check = (value) => value === 'start' || value === 'pause' || value === 'stop';

export function readAuthenticated(value: unknown): AuthenticatedBody {
  return read<AuthenticatedBody>('authentication', value, {
    leaf_id: isText,
    branch_id: isText,
    tree_id: isText,
    user_id: isText,
  });
}

export function readRun(value: unknown): RunBody {
  return read<RunBody>('run', value, {
    run_status: isStatus,
    run_number: isCount,
    round: isCount,
    updates: isCount,
    aggregation_target: isCount,
  });
}

export function readUpload(value: unknown): UploadBody {
  return read<UploadBody>('upload', value, {
    file_id: isText,
    run_number: isCount,
    round: isCount,
    weighting: isNumber,
    sha256: isSha256,
  });
}

export function readAggregation(value: unknown): AggregationBody {
  return read<AggregationBody>('aggregation', value, {
    aggregation_id: isText,
    run_number: isCount,
    round: isCount,
    leaves: isCount,
    total_weighting: isNumber,
    byte_length: isCount,
    sha256: isSha256,
    download_url: isText,
  });
}

/**
 * Reads the text of a notice; undefined for kinds that this client does not know.
 *
 * @throws ProtocolError `protocol-shape`
 */
export function readNotice(text: string): AggregationNotice | RunNotice | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new ProtocolError('protocol-shape', 'a notice of the server is no JSON', { cause });
  }
  const notice = read<{ message_type: string; body: unknown }>('notice', value, { message_type: isText });
  if (notice.message_type === 'aggregation_status') {
    read<{ aggregation_id: string }>('notice', notice.body, { aggregation_id: isText });
    return value as AggregationNotice; // checked above
  }
  if (notice.message_type === 'run_status') {
    read<{ run_status: RunStatus }>('notice', notice.body, { run_status: isStatus });
    return value as RunNotice; // checked above
  }
  return undefined;
}

/** Checks the members of an answer. Throws ProtocolError `protocol-shape`. */
export function read<T>(what: string, value: unknown, checks: { readonly [K in keyof T]?: Check }): T {
  if (typeof value !== 'object' || value === null) {
    throw new ProtocolError('protocol-shape', `the server's ${what} is no object`);
  }
  for (const [member, check] of Object.entries<Check | undefined>(checks)) {
    if (check && !check((value as Record<string, unknown>)[member])) {
      throw new ProtocolError('protocol-shape', `the server's ${what} has no valid "${member}"`);
    }
  }
  return value as T; // every member that the client uses was checked
}
