/**
 * The one place that talks HTTP. Requests go through ky with its own retries, timeouts and errors switched off: a retry
 * in ky keeps a copy of the body, and its timeouts limit the whole where we limit silence.
 *
 * What an attempt can end with:
 * - RefusedError: the server said no, with its own code;
 * - UnavailableError: no connection (`unavailable-server`, `unavailable-tls`), silence (`timeout`), an error page of
 *   something between us and the server (`unavailable-server`);
 * - ProtocolError: an answer that nobody meant for us, such as the page of a captive portal;
 * - the reason of the caller's signal, as it is.
 */
import type { isNetworkError, KyInstance } from 'ky';
import { isCambiumError, ProtocolError, UnavailableError } from '../errors.ts';
import { type HttpAnswer, readChunks, readJson, readText } from './answer.ts';
import { type Clock, systemClock } from './clock.ts';
import { networkError } from './network-error.ts';
import { type Asked, concealer, noFile, previewOf, refusal, withoutQuery } from './refusal.ts';
import {
  bodyOf,
  checkingMs,
  digestionMs,
  lengthHeader,
  type RequestBody,
  wholeBodyMs,
} from './request-body.ts';
import {
  type Retry,
  type RetryOptions,
  type RetryPolicy,
  readRetryAfter,
  retryPolicy,
  TransientFailure,
  withRetries,
} from './retry.ts';
import { readServerUrl } from './server-url.ts';
import { completeTimeouts, type Timeouts } from './timeouts.ts';
import { Watchdog } from './watchdog.ts';

/** As much of an error's body as is looked at. */
const MAX_ERROR_BYTES = 64 << 10;

/** What is for people to read is no file of ours. */
const PAGE = /^(text\/html|application\/xhtml|(text|application)\/xml)\b/i;

export interface HttpOptions {
  /** Base URL; a path in it is kept. */
  readonly server: string;
  /** Value of `Authorization` for requests to the server itself; a function is asked each time. */
  readonly authorization?: string | (() => string | undefined) | undefined;
  readonly timeouts?: Timeouts | undefined;
  readonly retry?: RetryOptions | undefined;
  /** Told of each try that failed and is made again. */
  readonly onRetry?: ((retry: Retry) => void) | undefined;
  /** Default: the host's. */
  readonly fetch?: typeof globalThis.fetch | undefined;
  /**
   * For requests that carry files, either way: it asks for a chunk of a body when the one before has left, and what a chunk of an
   * answer holds need not outlive the next. Default: `fetch`.
   */
  readonly fileFetch?: typeof globalThis.fetch | undefined;
  readonly clock?: Clock | undefined;
  /** A number in [0, 1). Default Math.random. */
  readonly random?: (() => number) | undefined;
}

export interface HttpRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Path below the server; or an absolute URL, which is asked without credentials. */
  readonly target: string;
  readonly query?: Readonly<Record<string, string | number | undefined>> | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly json?: unknown;
  readonly body?: RequestBody | undefined;
  /** The answer, or the body, is a file: it takes the host's way for large bodies. Default false. */
  readonly isFile?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly timeouts?: Timeouts | undefined;
}

export class Http {
  readonly server: string;
  readonly policy: RetryPolicy;
  readonly clock: Clock;
  readonly #fetch: typeof globalThis.fetch;
  readonly #fileFetch: typeof globalThis.fetch;
  #kys: Promise<Kys> | undefined;
  #aheadMs: number | undefined;
  readonly #authorization: () => string | undefined;
  readonly #timeouts: { readonly responseMs: number; readonly idleMs: number };

  /** @throws TypeError when `server` is no http(s) URL; RangeError for senseless numbers */
  constructor(options: HttpOptions) {
    this.server = readServerUrl(options.server);
    this.clock = options.clock ?? systemClock;
    this.policy = retryPolicy(
      options.retry ?? {},
      this.clock,
      options.random ?? Math.random,
      options.onRetry,
    );
    this.#timeouts = completeTimeouts(options.timeouts);
    this.#fetch = options.fetch ?? globalThis.fetch;
    this.#fileFetch = options.fileFetch ?? this.#fetch;
    const { authorization } = options;
    this.#authorization = typeof authorization === 'function' ? authorization : () => authorization;
  }

  /** How long to wait for an answer that needs so many bytes checked first, in milliseconds. */
  patienceMs(byteLength: number): number {
    return this.#timeouts.responseMs + checkingMs(byteLength);
  }

  /** How far this machine's clock was ahead of the server's at its last answer, in milliseconds; undefined where it told no time. */
  get aheadMs(): number | undefined {
    return this.#aheadMs;
  }

  /** Sends a request, with retries, and reads the answer as JSON; `undefined` for an empty 204. */
  json(request: HttpRequest): Promise<unknown> {
    return withRetries(this.policy, request.signal, async () => readJson(await this.open(request)));
  }

  /** Makes one attempt. Throws TransientFailure where another one may succeed: run it in `withRetries`. */
  async open(request: HttpRequest): Promise<HttpAnswer> {
    const { signal, target } = request;
    signal?.throwIfAborted();
    const foreign = /^https?:/i.test(target);
    const where = `${request.method} ${foreign ? withoutQuery(target) : `${this.server}${target}`}`;
    this.#kys ??= openKys(this.server).catch((cause: unknown) => {
      this.#kys = undefined; // a file of the page that did not arrive may do so next time
      throw networkError(cause, where);
    });
    const kys = await this.#kys;
    const { responseMs, idleMs } = completeTimeouts(request.timeouts, this.#timeouts);
    const watchdog = new Watchdog(this.clock, signal);
    const fetch = request.isFile ? this.#fileFetch : this.#fetch;
    const authorization = foreign ? undefined : this.#authorization();
    const conceal = concealer(request.headers?.authorization ?? authorization);
    let bodyError: unknown;
    const explain = (error: unknown): unknown => {
      if (signal?.aborted) return signal.reason;
      if (bodyError !== undefined) return bodyError;
      if (watchdog.expired) {
        return new TransientFailure(new UnavailableError('timeout', `${where}: silence for too long`));
      }
      if (isCambiumError(error) || error instanceof TransientFailure) return error;
      return networkError(kys.isNetworkError(error) ? error.cause : error, where);
    };
    try {
      watchdog.feed(responseMs + wholeBodyMs(request.body));
      const body = request.body && {
        body: bodyOf(request.body, watchdog.signal, {
          leavesFirst: fetch !== this.#fetch,
          onChunk: () => watchdog.feed(idleMs),
          onEnd: () => watchdog.feed(responseMs + digestionMs(request.body)),
          onError: (error) => {
            bodyError = error;
          },
        }),
        headers: lengthHeader(request.body),
      };
      const response = await (foreign ? kys.foreign : kys.own)(target, {
        method: request.method,
        searchParams: request.query,
        headers: {
          ...(authorization !== undefined && { authorization }),
          ...body?.headers,
          ...request.headers,
        },
        // Not by ky's `signal`: it would be wrapped in an `AbortSignal.any`, see signals.ts.
        fetch: (input, init) => fetch(input, { ...init, signal: watchdog.signal }),
        // Node keeps a copy of a streamed body for a redirect unless redirects are errors. Elsewhere `manual` lets us
        // name the address; only links to files may lead on, because they carry no credentials.
        redirect: body ? 'error' : foreign ? 'follow' : 'manual',
        ...(body && { body: body.body as BodyInit }),
        ...(request.json !== undefined && { json: request.json }),
      });
      watchdog.feed(idleMs);
      if (!foreign) this.#aheadMs = aheadOf(response.headers.get('date'), this.clock.now());
      const asked = { where, conceal, isLink: foreign };
      await refuseBadStatus(response, asked, watchdog.signal, this.policy);
      if (foreign) await refusePage(response, asked, watchdog.signal);
      return {
        status: response.status,
        headers: response.headers,
        where,
        preview: (text) => previewOf(text, conceal),
        chunks: () =>
          readChunks(response, watchdog.signal, {
            onWait: () => watchdog.feed(idleMs),
            onYield: () => watchdog.rest(),
            explain,
          }),
        close: () => watchdog.stop(),
      };
    } catch (error) {
      watchdog.stop();
      throw explain(error);
    }
  }
}

/** For our server, for addresses elsewhere, and what tells ky's own errors. */
interface Kys {
  readonly own: KyInstance;
  readonly foreign: KyInstance;
  readonly isNetworkError: typeof isNetworkError;
}

/** Loads ky: with the first request, so that pages that only compute never fetch it. */
async function openKys(server: string): Promise<Kys> {
  const { default: ky, isNetworkError } = await import('ky');
  const foreign = ky.create({
    retry: 0,
    timeout: false,
    throwHttpErrors: false,
    cache: 'no-store',
    credentials: 'omit',
    referrerPolicy: 'no-referrer',
  });
  return { foreign, own: foreign.extend({ prefix: server }), isNetworkError };
}

/** Throws for every status but 2xx. */
async function refuseBadStatus(
  response: Response,
  asked: Asked,
  signal: AbortSignal,
  policy: RetryPolicy,
): Promise<void> {
  const { status, headers } = response;
  const { where, conceal } = asked;
  if (response.ok) return;
  if (response.type === 'opaqueredirect' || (status >= 300 && status < 400)) {
    const to = headers.get('location');
    await response.body?.cancel();
    throw new ProtocolError(
      'protocol-redirect',
      `${where}: redirected${to === null ? '' : ` to ${withoutQuery(to)}`}; give the final address as the server`,
      { status },
    );
  }
  const retryAfterMs = readRetryAfter(headers.get('retry-after'), policy.clock.now());
  const text = await readErrorText(response, signal, where);
  const facts = { status, retryAfterMs, preview: text === '' ? undefined : previewOf(text, conceal) };
  const failure = refusal(text, facts, headers.get('content-type'), asked);
  const isPassing = policy.statuses?.includes(status) ?? (status >= 500 || status === 408 || status === 429);
  throw isPassing ? new TransientFailure(failure, retryAfterMs) : failure;
}

/** A page in the place of a file, which a portal or a storage sends with a good status. */
async function refusePage(response: Response, asked: Asked, signal: AbortSignal): Promise<void> {
  const type = response.headers.get('content-type') ?? '';
  if (!PAGE.test(type)) return;
  const { status } = response;
  const text = await readErrorText(response, signal, asked.where);
  throw noFile({ status, preview: text === '' ? undefined : previewOf(text, asked.conceal) }, type, asked);
}

/** The body of an error is a courtesy: when it breaks off, the status alone must do. */
async function readErrorText(response: Response, signal: AbortSignal, where: string): Promise<string> {
  try {
    return await readText(readChunks(response, signal), MAX_ERROR_BYTES, where);
  } catch {
    signal.throwIfAborted();
    return '';
  }
}

/** By how much our clock is ahead of a `Date`. */
function aheadOf(date: string | null, now: number): number | undefined {
  const told = Date.parse(date ?? '');
  return Number.isNaN(told) ? undefined : now - told;
}
