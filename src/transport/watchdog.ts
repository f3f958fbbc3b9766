import type { Clock } from './clock.ts';

/**
 * Aborts an exchange when the caller does, or when nothing has moved for too long. There is no limit to the whole:
 * a large file over a slow line is fine as long as it moves.
 */
export class Watchdog {
  readonly #controller = new AbortController();
  readonly #clock: Clock;
  readonly #caller: AbortSignal | undefined;
  readonly #onAbort: () => void;
  #cancel: (() => void) | undefined;
  #expired = false;

  constructor(clock: Clock, caller?: AbortSignal) {
    this.#clock = clock;
    this.#caller = caller;
    this.#onAbort = () => this.#controller.abort(caller?.reason);
    if (caller?.aborted) this.#onAbort();
    else caller?.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** Aborted by the caller, by silence or by `stop`. */
  get signal(): AbortSignal {
    return this.#controller.signal;
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
      this.#controller.abort();
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
    this.#caller?.removeEventListener('abort', this.#onAbort);
    this.#controller.abort();
  }
}
