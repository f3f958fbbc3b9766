import { isCambiumError, RefusedError, UnavailableError } from '../errors.ts';
import { sleep } from '../transport/clock.ts';
import { linkSignals } from '../transport/signals.ts';
import type { ClientConfiguration } from './configuration.ts';
import type { Session } from './session.ts';

/** Lets through what only a run that is going takes. */
export class RunGate {
  readonly #session: Session;
  readonly #configuration: ClientConfiguration['run'];
  readonly #listen: () => void;
  readonly #watchers = new Set<() => void>();

  /** @param listen sees to it that notices are read */
  constructor(session: Session, configuration: ClientConfiguration['run'], listen: () => void) {
    this.#session = session;
    this.#configuration = configuration;
    this.#listen = listen;
  }

  /** Tells those who wait that a notice told something of the run. */
  wake(): void {
    for (const wake of this.#watchers) wake();
  }

  /**
   * Ends when the run is going. Notices wake it, and it asks at once and then in intervals: a notice that is lost, and a
   * carrier that is dead, cost one interval.
   *
   * @throws UnavailableError `timeout`
   */
  async wait(signal: AbortSignal, timeoutMs?: number): Promise<void> {
    const { clock } = this.#session.http;
    let isOver = false;
    let onOver = () => {};
    // By a timer: a clock that is put back or ahead must not stretch or end the wait.
    const cancel = Number.isFinite(timeoutMs)
      ? clock.after(timeoutMs as number, () => {
          isOver = true;
          onOver();
        })
      : () => {};
    try {
      await this.#waitUntil(
        signal,
        () => {
          if (!isOver) return;
          throw new UnavailableError('timeout', `the run did not go on within ${timeoutMs} ms`);
        },
        (wake) => {
          onOver = wake;
        },
      );
    } finally {
      cancel();
    }
  }

  /**
   * @param throwIfOver called when the server has said that the run is not going
   * @param onPause told what ends the next pause
   */
  async #waitUntil(
    signal: AbortSignal,
    throwIfOver: () => void,
    onPause: (wake: () => void) => void,
  ): Promise<void> {
    const { clock } = this.#session.http;
    this.#listen();
    for (;;) {
      const pause = linkSignals(signal);
      let wake = () => {};
      const changed = new Promise<void>((resolve) => {
        wake = resolve;
      });
      // Watched before asking: a change that overtakes the answer must not be missed.
      this.#watchers.add(wake);
      onPause(wake);
      try {
        if ((await this.#session.askRun(signal)).runStatus === 'start') return;
        throwIfOver();
        await Promise.race([changed, sleep(clock, this.#configuration.checkIntervalMs, pause.signal)]);
      } finally {
        this.#watchers.delete(wake);
        pause.unlink();
        pause.abort();
      }
    }
  }

  /**
   * Spares the server, and the line, a body that it would refuse.
   *
   * @throws RefusedError `run-paused`, `run-stopped`, unless it is to wait
   */
  async pass(signal: AbortSignal): Promise<void> {
    if (this.#session.state.runStatus === 'start') return;
    const { runStatus } = await this.#session.askRun(signal);
    if (runStatus === 'start') return;
    if (this.#configuration.wait) return this.wait(signal);
    const word = runStatus === 'pause' ? 'paused' : 'stopped';
    throw new RefusedError(
      `run-${word}`,
      `the run of branch ${this.#session.state.identity.branchId} is ${word}; wait with waitForRun, or set run.wait`,
      409,
    );
  }

  /** Whether to go back to the gate: the run was paused between the look at it and the last byte. */
  isClosedBy(error: unknown): boolean {
    const isRefusal = isCambiumError(error) && (error.code === 'run-paused' || error.code === 'run-stopped');
    if (!isRefusal || !this.#configuration.wait) return false;
    this.#session.state.runStatus = null;
    return true;
  }
}
