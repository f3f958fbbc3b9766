/**
 * What happens in a branch: its outbox has a new notice, a leaf was revoked, or a round (whose id is told) changed. And in
 * any: a round was closed and is to be aggregated (its branch is told), or ends at another time than before.
 */
export type Topic = `notices:${string}` | `rounds:${string}` | 'closed' | 'ends';

/**
 * Wakes those who wait for news, after the transaction that wrote them. A signal carries no state: who is woken reads the
 * database, so a missed or doubled signal does no harm. The lock on the data directory makes this process the only
 * writer; with several servers on one database a poll of the outbox stands beside it.
 */
export class Signals {
  readonly #listeners = new Map<Topic, Set<(about: string) => void>>();

  /** Listens until the result is called. */
  on(topic: Topic, listener: (about: string) => void): () => void {
    const listeners = this.#listeners.get(topic) ?? new Set();
    this.#listeners.set(topic, listeners);
    listeners.add(listener);
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0 && this.#listeners.get(topic) === listeners) this.#listeners.delete(topic);
    };
  }

  emit(topic: Topic, about = ''): void {
    for (const listener of this.#listeners.get(topic) ?? []) listener(about);
  }
}
