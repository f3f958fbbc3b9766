import { CambiumError, UnavailableError } from '../errors.ts';
import type { Clock } from '../transport/clock.ts';

/**
 * What happens to aggregations that were announced and not yet taken: `all` keeps them in order, `newest` keeps the
 * last one only, for leaves that train slower than the others aggregate.
 */
export type QueuePolicy = 'all' | 'newest';

export interface GetOptions {
  /** Ends the wait, which then throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** How long to wait, in milliseconds; 0 takes only what is there. Default: as long as it takes. */
  readonly timeoutMs?: number | undefined;
}

/** The ids of new aggregations, as notices bring them. */
export interface AggregationQueue extends AsyncIterable<string> {
  /**
   * Takes the next id, waiting for it where needed.
   *
   * @throws UnavailableError `timeout`; the reason of the signal; CambiumError `client-closed` when the client is
   *   closed and nothing is left; what ended the notices (the next call connects again)
   */
  get(options?: GetOptions): Promise<string>;
  /** True when a `get` would have to wait. */
  empty(): boolean;
}

interface Waiter {
  take(id: string): void;
  fail(error: unknown): void;
}

/**
 * The queue with its inner side. Putting and taking are single synchronous steps, so there is no moment between them
 * in which one side could empty what the other has just looked at.
 */
export class NoticeQueue implements AggregationQueue {
  readonly #policy: QueuePolicy;
  readonly #clock: Clock;
  readonly #onDemand: () => void;
  readonly #waiters = new Set<Waiter>();
  #ids: string[] = [];
  #isClosed = false;

  /** @param onDemand called when someone begins to wait */
  constructor(policy: QueuePolicy, clock: Clock, onDemand: () => void) {
    this.#policy = policy;
    this.#clock = clock;
    this.#onDemand = onDemand;
  }

  get(options: GetOptions = {}): Promise<string> {
    const { signal, timeoutMs } = options;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const id = this.#ids.shift();
      if (id !== undefined) return resolve(id);
      if (this.#isClosed) return reject(closed());
      const expire = () => reject(new UnavailableError('timeout', `no aggregation within ${timeoutMs} ms`));
      if (timeoutMs !== undefined && timeoutMs <= 0) return expire();

      const settle = () => {
        this.#waiters.delete(waiter);
        cancelTimer?.();
        signal?.removeEventListener('abort', onAbort);
      };
      const onAbort = () => waiter.fail(signal?.reason);
      const cancelTimer =
        timeoutMs === undefined
          ? undefined
          : this.#clock.after(timeoutMs, () => {
              settle();
              expire();
            });
      const waiter: Waiter = {
        take(id) {
          settle();
          resolve(id);
        },
        fail(error) {
          settle();
          reject(error);
        },
      };
      this.#waiters.add(waiter);
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#onDemand();
    });
  }

  empty(): boolean {
    return this.#ids.length === 0;
  }

  /** Ends, after what is left, when the client is closed. */
  [Symbol.asyncIterator](): AsyncIterator<string, undefined> {
    const controller = new AbortController();
    const { signal } = controller;
    return {
      next: async () => {
        try {
          return { done: false, value: await this.get({ signal }) };
        } catch (error) {
          if (signal.aborted || (this.#isClosed && this.empty())) return { done: true, value: undefined };
          throw error;
        }
      },
      return: async () => {
        controller.abort();
        return { done: true, value: undefined };
      },
    };
  }

  put(id: string): void {
    if (this.#isClosed) return;
    const [waiter] = this.#waiters;
    if (waiter) waiter.take(id);
    else if (this.#policy === 'newest') this.#ids = [id];
    else this.#ids.push(id);
  }

  /** Hands an error to everyone who waits. */
  fail(error: unknown): void {
    for (const waiter of this.#waiters) waiter.fail(error);
  }

  close(): void {
    this.#isClosed = true;
    this.fail(closed());
  }
}

function closed(): CambiumError {
  return new CambiumError('client-closed', 'the client is closed');
}
