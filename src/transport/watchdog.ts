import type { Clock } from './clock.ts';
import { type LinkedSignal, linkSignals } from './signals.ts';

/**
 * Aborts an exchange when the caller does, or when nothing has moved for too long. There is no limit to the whole:
 * a large file over a slow line is fine as long as it moves.
 */
export class Watchdog {
  readonly #clock: Clock;
  readonly #link: LinkedSignal;
  #cancel: (() => void) | undefined;
  #expired = false;

  constructor(clock: Clock, caller?: AbortSignal) {
    this.#clock = clock;
    this.#link = linkSignals(caller);
  }

  /** Aborted by the caller, by silence or by `stop`. */
  get signal(): AbortSignal {
    return this.#link.signal;
  }

  /** True when silence was the reason. */
  get expired(): boolean {
    return this.#expired;
  }

  /** Something moved: the next sign of life is due within `timeoutMs`. */
  feed(timeoutMs: number): void {
    if (this.signal.aborted) return;
    this.rest();
    this.#cancel = this.#clock.after(timeoutMs, () => {
      this.#expired = true;
      this.#link.abort();
    });
  }

  /** Stops watching for a while: the other side is not the one we wait for. */
  rest(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  /** Ends the exchange, whatever its state, and lets go of the caller's signal. */
  stop(): void {
    this.rest();
    this.#link.unlink();
    this.#link.abort();
  }
}
