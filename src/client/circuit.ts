import { type CambiumError, isCambiumError, RefusedError, UnavailableError } from '../errors.ts';
import type { Clock } from '../transport/clock.ts';
import type { Emitter } from './client-events.ts';
import type { ClientConfiguration } from './configuration.ts';

/**
 * Gives up across calls, as the retries do within one: when several calls in a row have not reached the server, the next
 * ones are refused at once for a while, instead of each running into the same silence. Then one is let through; whether
 * that succeeds decides for the others.
 */
export class Circuit {
  readonly #limit: number;
  readonly #pauseMs: number;
  readonly #clock: Clock;
  readonly #events: Emitter;
  #failures = 0;
  #failure: CambiumError | undefined;
  /** When it opened, or last let a call through. */
  #openedAt: number | undefined;
  #isProbing = false;

  constructor({ failures, pauseMs }: ClientConfiguration['circuit'], clock: Clock, events: Emitter) {
    this.#limit = failures;
    this.#pauseMs = pauseMs;
    this.#clock = clock;
    this.#events = events;
  }

  /**
   * Runs a call and learns from how it ends.
   *
   * @throws UnavailableError `unavailable-circuit`, whose cause is the last failure; what `work` throws
   */
  async run<T>(work: () => Promise<T>): Promise<T> {
    const isProbe = this.#pass();
    try {
      const result = await work();
      this.close();
      return result;
    } catch (error) {
      if (isOutage(error)) this.#fail(error);
      // A no is an answer.
      else if (error instanceof RefusedError) this.close();
      throw error;
    } finally {
      if (isProbe) this.#isProbing = false;
    }
  }

  /** The server has been heard. */
  close(): void {
    this.#failures = 0;
    if (this.#openedAt === undefined) return;
    this.#openedAt = undefined;
    this.#events.emit('circuit', { state: 'closed', error: undefined });
  }

  /** True for the one call that is to see whether the server is back. */
  #pass(): boolean {
    if (this.#openedAt === undefined) return false;
    const passedMs = this.#clock.now() - this.#openedAt;
    // A clock that was put back says nothing of how long it has been.
    const restMs = passedMs < 0 ? 0 : this.#pauseMs - passedMs;
    if (restMs > 0 || this.#isProbing) {
      const then =
        restMs > 0
          ? `not tried again for ${Math.ceil(restMs / 1000)} s`
          : 'one call is seeing whether it is back';
      throw new UnavailableError(
        'unavailable-circuit',
        `the server was not reached by the last ${this.#failures} calls, ${then}: ${this.#failure?.message}`,
        { cause: this.#failure, retryAfterMs: Math.max(0, restMs) },
      );
    }
    this.#isProbing = true;
    this.#events.emit('circuit', { state: 'half-open', error: this.#failure });
    return true;
  }

  #fail(error: CambiumError): void {
    this.#failures++;
    this.#failure = error;
    if (this.#failures < this.#limit) return;
    this.#openedAt = this.#clock.now();
    this.#events.emit('circuit', { state: 'open', error });
  }
}

/** What was tried to the end, or is in vain: the connection, not the call, is at fault. */
function isOutage(error: unknown): error is UnavailableError | RefusedError {
  if (!isCambiumError(error)) return false;
  if (error.code === 'unavailable-tls') return true;
  return (error instanceof UnavailableError || error instanceof RefusedError) && error.attempts !== undefined;
}
