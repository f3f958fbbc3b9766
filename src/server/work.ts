/** Work that was begun for a request and must end before the database closes, even when nobody waits for its answer. */
export class Work {
  readonly #underWay = new Set<Promise<unknown>>();

  /** Keeps count of a piece of work; its outcome is its caller's. */
  async track<T>(work: Promise<T>): Promise<T> {
    this.#underWay.add(work);
    try {
      return await work;
    } finally {
      this.#underWay.delete(work);
    }
  }

  /** When nothing is under way any more. */
  async idle(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.allSettled(this.#underWay);
  }
}
