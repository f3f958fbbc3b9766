/**
 * A signal that aborts with the first of several, by plain listeners. `AbortSignal.any` holds its result weakly, and in
 * Node 20 a result that nobody else holds is collected and never fires; it also leaves its marks on a source that
 * outlives it.
 */
export interface LinkedSignal {
  readonly signal: AbortSignal;
  abort(reason?: unknown): void;
  /** Lets go of the sources. */
  unlink(): void;
}

export function linkSignals(...sources: readonly (AbortSignal | undefined)[]): LinkedSignal {
  const controller = new AbortController();
  const links: (() => void)[] = [];
  for (const source of sources) {
    if (source === undefined) continue;
    const onAbort = () => controller.abort(source.reason);
    if (source.aborted) onAbort();
    else {
      source.addEventListener('abort', onAbort, { once: true });
      links.push(() => source.removeEventListener('abort', onAbort));
    }
  }
  return {
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
    unlink() {
      for (const unlink of links) unlink();
    },
  };
}
