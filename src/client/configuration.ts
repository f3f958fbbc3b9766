/** The options of a client, completed and checked. */
import { CambiumError } from '../errors.ts';
import { type RetryOptions, retryPolicy } from '../transport/retry.ts';
import { readServerUrl } from '../transport/server-url.ts';
import { completeTimeouts, type Timeouts } from '../transport/timeouts.ts';
import type { LeafIdentity } from './credentials.ts';
import { type Generation, requiredFormat, UPDATE_FORMATS } from './dialect.ts';
import type { CircuitOptions, ClientOptions, RunGateOptions, UpdateOptions } from './options.ts';
import type { QueuePolicy } from './queue.ts';

type Complete<T> = { readonly [K in keyof T]-?: Exclude<T[K], undefined> };

/** What a client works by: every option, those left out with their defaults. Frozen, and without secrets. */
export interface ClientConfiguration {
  readonly connection: { readonly server: string; readonly generation: Generation };
  readonly timeouts: Complete<Timeouts>;
  readonly retry: Complete<Omit<RetryOptions, 'statuses'>> & Pick<RetryOptions, 'statuses'>;
  readonly circuit: Complete<CircuitOptions>;
  readonly run: Complete<RunGateOptions>;
  readonly notices: { readonly queue: QueuePolicy; readonly pollIntervalMs: number };
  readonly update: Complete<Omit<UpdateOptions, 'metadata'>> & Pick<UpdateOptions, 'metadata'>;
}

/** Members of the options; a name that is none of them is a mistake that would otherwise show much later. */
const MEMBERS = {
  '': [
    'connection',
    'timeouts',
    'retry',
    'circuit',
    'run',
    'notices',
    'update',
    'fetch',
    'fileFetch',
    'files',
    'clock',
    'random',
  ],
  connection: ['server', 'generation'],
  timeouts: ['responseMs', 'idleMs'],
  retry: ['attempts', 'baseMs', 'factor', 'maxMs', 'maxRetryAfterMs', 'statuses'],
  circuit: ['failures', 'pauseMs'],
  run: ['wait', 'checkIntervalMs'],
  notices: ['carrier', 'queue', 'pollIntervalMs', 'reconnect'],
  update: ['format', 'checkFinite', 'metadata'],
} as const;

/**
 * Completes the options of a client whose leaf is known.
 *
 * @throws TypeError for options that there are none of; RangeError for senseless values; CambiumError `credentials-missing`
 *   when nothing says where the server is, `credentials-invalid` when they say it wrongly
 */
export function configure(options: ClientOptions, identity: LeafIdentity): ClientConfiguration {
  for (const [group, members] of Object.entries(MEMBERS)) {
    const given = group === '' ? options : (options[group as keyof ClientOptions] ?? {});
    for (const name of Object.keys(given)) {
      if (!(members as readonly string[]).includes(name)) {
        throw new TypeError(`there is no option ${group === '' ? name : `${group}.${name}`}`);
      }
    }
  }
  const given = options.connection?.server;
  const server = given ?? identity.server;
  if (server === undefined) {
    throw new CambiumError(
      'credentials-missing',
      'the credentials lack server, and connection.server is not given',
    );
  }
  const { attempts, baseMs, factor, maxMs, maxRetryAfterMs, statuses } = retryPolicy(options.retry ?? {});
  const { failures = 5, pauseMs = 30_000 } = options.circuit ?? {};
  const { wait = false, checkIntervalMs = 30_000 } = options.run ?? {};
  const { queue = 'all', pollIntervalMs = 30_000 } = options.notices ?? {};
  const { generation } = identity;
  const {
    format = requiredFormat(generation) ?? 'npy-object',
    checkFinite = false,
    metadata,
  } = options.update ?? {};
  requireAbove(0, { 'circuit.pauseMs': pauseMs, 'run.checkIntervalMs': checkIntervalMs });
  requireAbove(0, { 'circuit.failures': failures, 'notices.pollIntervalMs': pollIntervalMs });
  requireOneOf('notices.queue', queue, ['all', 'newest']);
  if (metadata !== undefined && typeof metadata !== 'string') {
    throw new TypeError(`update.metadata must be a text, not ${typeof metadata}`);
  }
  requireOneOf('update.format', format, UPDATE_FORMATS);
  return freeze({
    connection: { server: given === undefined ? readOwnServer(server) : readServerUrl(server), generation },
    timeouts: completeTimeouts(options.timeouts),
    retry: { attempts, baseMs, factor, maxMs, maxRetryAfterMs, statuses: statuses && [...statuses] },
    circuit: { failures, pauseMs },
    run: { wait, checkIntervalMs },
    notices: { queue, pollIntervalMs },
    update: { format, checkFinite, metadata },
  });
}

/** The server that the credentials name. Throws CambiumError `credentials-invalid`. */
export function readOwnServer(server: string): string {
  try {
    return readServerUrl(server);
  } catch (cause) {
    const { message } = cause as TypeError; // it throws nothing else
    throw new CambiumError('credentials-invalid', `the credentials: ${message}`, { cause });
  }
}

function requireAbove(limit: number, values: Readonly<Record<string, number>>): void {
  for (const [name, value] of Object.entries(values)) {
    if (!(value > limit)) throw new RangeError(`${name} must be above ${limit}, is ${value}`);
  }
}

function requireOneOf(name: string, value: string, values: readonly string[]): void {
  if (!values.includes(value))
    throw new RangeError(`${name} must be one of ${values.join(', ')}, is ${value}`);
}

/** Freezes an object and what it holds. */
function freeze<T extends object>(value: T): T {
  for (const member of Object.values(value)) {
    if (typeof member === 'object' && member !== null) freeze(member);
  }
  return Object.freeze(value);
}

/**
 * Options for two common places, to be spread into one's own: `{ ...presets.production, connection: { … } }`.
 *
 * `production` is patient: it tries for some minutes, and waits for the run. `development` tells at once what is wrong.
 */
export const presets = freeze({
  production: {
    retry: { attempts: 8, baseMs: 1_000, maxMs: 60_000 },
    circuit: { failures: 5, pauseMs: 60_000 },
    run: { wait: true, checkIntervalMs: 30_000 },
  },
  development: {
    timeouts: { responseMs: 5_000, idleMs: 10_000 },
    retry: { attempts: 1 },
    circuit: { failures: Number.POSITIVE_INFINITY },
    run: { wait: false, checkIntervalMs: 1_000 },
    notices: { pollIntervalMs: 1_000 },
  },
} satisfies Record<string, ClientOptions>);
