import type { FileHandle } from 'node:fs/promises';

/**
 * So many bytes may wait for the disk: few enough for a short wait at the end, and enough for flushes to be seldom. A smaller
 * file is flushed at its end alone.
 */
export const WRITEBACK_BYTES = 16 << 20;

/**
 * Brings a large file to the disk while it is written, so that little of that is left to do at its end. One flush at a time:
 * others need the threads of the pool too. Once a flush has failed nobody knows which bytes have got there, so every
 * later one fails as well.
 */
export class Writeback {
  #unflushed: number;
  #flushed: Promise<void> = Promise.resolve();
  #isFlushing = false;

  /** @param bytesThere what somebody else has written, who may not have flushed it */
  constructor(bytesThere = 0) {
    this.#unflushed = bytesThere;
  }

  /** Is told of bytes that were written, and begins a flush when enough of them wait; the file must stay open until `idle`. */
  wrote(byteLength: number, handle: FileHandle): void {
    this.#unflushed += byteLength;
    if (this.#unflushed >= WRITEBACK_BYTES && !this.#isFlushing) this.#begin(handle);
  }

  /** Flushes what is left. Throws what the first flush that failed has thrown. */
  async finish(handle: FileHandle): Promise<void> {
    if (this.#unflushed > 0) this.#begin(handle);
    await this.#flushed;
  }

  /** When no flush is under way any more, successful or not. */
  idle(): Promise<void> {
    return this.#flushed.catch(() => {});
  }

  #begin(handle: FileHandle): void {
    this.#unflushed = 0;
    this.#isFlushing = true;
    this.#flushed = this.#flushed
      .then(() => handle.datasync())
      .finally(() => {
        this.#isFlushing = false;
      });
    this.#flushed.catch(() => {}); // told by `finish`
  }
}
