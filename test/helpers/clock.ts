import type { Clock } from '../../src/transport/clock.ts';

interface Timer {
  at: number;
  readonly work: () => void;
}

/** A clock that stands until it is told: tests of pauses and timeouts take no time and always go the same way. */
export class ManualClock implements Clock {
  /** Every delay that was asked for, in order. */
  readonly delays: number[] = [];
  readonly #timers = new Set<Timer>();
  readonly #arrivals: { isEnough: () => boolean; resolve: () => void }[] = [];
  #now: number;

  constructor(now = Date.UTC(2026, 0, 1)) {
    this.#now = now;
  }

  now(): number {
    return this.#now;
  }

  after(delayMs: number, work: () => void): () => void {
    this.delays.push(delayMs);
    const timer = { at: this.#now + delayMs, work };
    this.#timers.add(timer);
    for (const { isEnough, resolve } of this.#arrivals) if (isEnough()) resolve();
    return () => this.#timers.delete(timer);
  }

  /** Timers that wait. */
  get waiting(): number {
    return this.#timers.size;
  }

  /** Lets time pass and fires what is due, in order. */
  pass(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#timers.delete(due);
      this.#now = due.at;
      due.work();
    }
    this.#now = end;
  }

  /** Is put ahead or back, as clocks of machines are: timers do not notice. */
  jump(ms: number): void {
    this.#now += ms;
    for (const timer of this.#timers) timer.at += ms;
  }

  /** Ends when `count` delays, or so many of just this length, have been asked for since the clock was made. */
  asked(count: number, delayMs?: number): Promise<void> {
    const isEnough = () =>
      this.delays.filter((delay) => delayMs === undefined || delay === delayMs).length >= count;
    if (isEnough()) return Promise.resolve();
    return new Promise((resolve) => this.#arrivals.push({ isEnough, resolve }));
  }
}

/** A clock on which every pause is over at once, and timeouts never come: for retries against a real server. */
export class HastyClock implements Clock {
  /** The pauses that were asked for. */
  readonly pauses: number[] = [];
  readonly #isPause: (delayMs: number) => boolean;

  /** @param isPause tells pauses from timeouts; unless given, everything below 30 s is a pause */
  constructor(isPause: (delayMs: number) => boolean = (delayMs) => delayMs < 30_000) {
    this.#isPause = isPause;
  }

  now(): number {
    return Date.UTC(2026, 0, 1);
  }

  after(delayMs: number, work: () => void): () => void {
    if (!this.#isPause(delayMs)) return () => {};
    this.pauses.push(delayMs);
    let isCancelled = false;
    queueMicrotask(() => {
      if (!isCancelled) work();
    });
    return () => {
      isCancelled = true;
    };
  }
}
