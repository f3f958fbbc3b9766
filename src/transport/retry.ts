import { type CambiumError, ExchangeError } from '../errors.ts';
import { type Clock, sleep, systemClock } from './clock.ts';

/** How often and how patiently a call is tried again. */
export interface RetryOptions {
  /** Tries in all, the first one included. Default 5. */
  readonly attempts?: number | undefined;
  /** Upper bound of the first pause, in milliseconds. Half of each pause is random. Default 500. */
  readonly baseMs?: number | undefined;
  /** By this the bound grows from pause to pause. Default 2. */
  readonly factor?: number | undefined;
  /** Upper bound of every pause, in milliseconds. Default 15,000. */
  readonly maxMs?: number | undefined;
  /** Longest `Retry-After` that is waited for; a server that asks for more gets no further try. Default 120,000. */
  readonly maxRetryAfterMs?: number | undefined;
  /** Statuses of answers after which another try is made. Default: 408, 429 and all from 500. */
  readonly statuses?: readonly number[] | undefined;
}

/** A try that failed and is made again. */
export interface Retry {
  /** Which try it was, from 1. */
  readonly attempt: number;
  /** The pause before the next one, in milliseconds. */
  readonly delayMs: number;
  readonly error: CambiumError;
}

export interface RetryPolicy extends Required<{ [K in Exclude<keyof RetryOptions, 'statuses'>]: number }> {
  readonly statuses: readonly number[] | undefined;
  /** Told of each try that failed and is made again. */
  readonly onRetry?: ((retry: Retry) => void) | undefined;
  readonly clock: Clock;
  /** A number in [0, 1), like Math.random. */
  readonly random: () => number;
}

/** Completes a policy. Throws RangeError. */
export function retryPolicy(
  options: RetryOptions,
  clock: Clock = systemClock,
  random: () => number = Math.random,
  onRetry?: (retry: Retry) => void,
): RetryPolicy {
  const {
    attempts = 5,
    baseMs = 500,
    factor = 2,
    maxMs = 15_000,
    maxRetryAfterMs = 120_000,
    statuses,
  } = options;
  if (!Number.isInteger(attempts) || attempts < 1) {
    throw new RangeError(`retry.attempts must be an integer from 1, not ${attempts}`);
  }
  for (const [name, value] of Object.entries({ baseMs, maxMs, maxRetryAfterMs })) {
    if (!(value >= 0)) throw new RangeError(`retry.${name} must not be negative, is ${value}`);
  }
  if (!(factor >= 1)) throw new RangeError(`retry.factor must be at least 1, is ${factor}`);
  return { attempts, baseMs, factor, maxMs, maxRetryAfterMs, statuses, clock, random, onRetry };
}

/**
 * Thrown by one attempt to say that another one may succeed; it never reaches callers, who get `failure`. The attempt
 * decides, because only it knows whether a connection broke or a server said no.
 */
export class TransientFailure extends Error {
  readonly failure: CambiumError;
  /** What the server asked for in `Retry-After`. */
  readonly retryAfterMs: number | undefined;

  constructor(failure: CambiumError, retryAfterMs?: number) {
    super(failure.message, { cause: failure });
    this.failure = failure;
    this.retryAfterMs = retryAfterMs;
  }
}

/**
 * Runs `attempt` until it succeeds, fails for good, or the policy's attempts are used up. A failed attempt must leave
 * nothing behind that the next one would trip over.
 *
 * @param progress for work that goes on where the last attempt stopped: a number that grows with what has been reached
 *   for good. Only attempts that add nothing to it are counted
 * @throws the failure of the last attempt; the reason of `signal`
 */
export async function withRetries<T>(
  policy: RetryPolicy,
  signal: AbortSignal | undefined,
  attempt: () => Promise<T>,
  progress: () => number = () => 0,
): Promise<T> {
  let reached = progress();
  for (let tried = 1; ; tried++) {
    signal?.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof TransientFailure)) throw error;
      if (progress() > reached) {
        reached = progress();
        tried = 1;
      }
      const { failure, retryAfterMs = 0 } = error;
      if (tried >= policy.attempts || retryAfterMs > policy.maxRetryAfterMs) {
        if (failure instanceof ExchangeError) (failure as { attempts?: number }).attempts = tried;
        throw failure;
      }
      const delayMs = error.retryAfterMs ?? backoffMs(policy, tried);
      policy.onRetry?.({ attempt: tried, delayMs, error: failure });
      await sleep(policy.clock, delayMs, signal);
    }
  }
}

/**
 * Pause after the `tried`-th failure. Half of it is random, so that leaves that lost their server together do not
 * come back together.
 */
export function backoffMs(policy: RetryPolicy, tried: number): number {
  const bound = Math.min(policy.maxMs, policy.baseMs * policy.factor ** (tried - 1));
  return bound / 2 + (bound / 2) * policy.random();
}

/** Reads `Retry-After`: whole seconds or an HTTP date. Undefined when absent or unreadable. */
export function readRetryAfter(value: string | null, now: number): number | undefined {
  if (value === null) return undefined;
  if (/^\s*\d+\s*$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}
