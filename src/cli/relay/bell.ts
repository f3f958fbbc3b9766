import { type Clock, sleep } from '../../transport/clock.ts';
import { linkSignals } from '../../transport/signals.ts';

/** Says that something may have changed. A ring that nobody waits for is kept for the next who does. */
export class Bell {
  #isRung = false;
  #wake = () => {};

  ring(): void {
    this.#isRung = true;
    this.#wake();
  }

  /** Ends with the next ring, or after so long. Throws the reason of the signal. */
  async wait(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
    if (!this.#isRung) {
      const pause = linkSignals(signal);
      const rung = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      try {
        await Promise.race([rung, sleep(clock, ms, pause.signal)]);
      } finally {
        pause.unlink();
        pause.abort();
      }
    }
    signal.throwIfAborted();
    this.#isRung = false;
  }
}
