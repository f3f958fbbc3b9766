/** Everything the server waits for by the clock goes through here, so that tests can turn it. */
export interface Timers {
  /** Calls `work` once after `ms`; the result takes that back. */
  after(ms: number, work: () => void): () => void;
}

/** The clock on the wall. Waiting does not keep a process alive. */
export const realTimers: Timers = {
  after(ms, work) {
    const timer = setTimeout(work, ms);
    timer.unref();
    return () => clearTimeout(timer);
  },
};
