import type { CheckedSink, Sha256 } from './file-access.ts';

/** Files are written in blocks of this size: one write for each packet would take longer than the line. */
const BLOCK_BYTES = 1 << 20;

export interface ReceiverOptions {
  /** Starts the digest of what comes; absent where the host digests only wholes. */
  readonly startHash: (() => Sha256) | undefined;
  /** Whether chunks are gathered to blocks: files get few large writes, in memory each chunk goes to its place at once. */
  readonly gathers: boolean;
}

/**
 * What has arrived of a download: bytes in a sink, counted and digested on the way. They are written in order, so that what
 * a killed process leaves has no gaps.
 */
export class Receiver {
  readonly sink: CheckedSink;
  bytesDone = 0;
  /** The most that was ever there. */
  reached = 0;
  /** So many bytes from the beginning are in the sink for certain. */
  bytesWritten = 0;
  /** Whole downloads that had another digest than they should. */
  spoiled = 0;
  readonly #options: ReceiverOptions;
  #hash: Sha256 | undefined;
  /** Being filled, while the other is being written. */
  #block: Uint8Array;
  #filled = 0;
  #other: Uint8Array;
  #writing: Promise<void> = Promise.resolve();

  constructor(sink: CheckedSink, options: ReceiverOptions) {
    this.sink = sink;
    this.#options = options;
    this.#hash = options.startHash?.();
    const size = options.gathers ? BLOCK_BYTES : 0;
    this.#block = new Uint8Array(size);
    this.#other = new Uint8Array(size);
  }

  /** Goes on after the first `byteLength` bytes of the sink, a file's, which are read for the digest. */
  async resume(byteLength: number, signal: AbortSignal | undefined): Promise<void> {
    if (this.#hash === undefined) return;
    // They stay whatever happens here.
    this.bytesWritten = byteLength;
    for (let at = 0; at < byteLength; at += BLOCK_BYTES) {
      signal?.throwIfAborted();
      const part = this.#block.subarray(0, Math.min(BLOCK_BYTES, byteLength - at));
      await this.sink.readInto(at, part);
      this.#hash.update(part);
    }
    this.bytesDone = byteLength;
    this.reached = byteLength;
  }

  /** Takes bytes; a promise when the next must wait. Throws, or rejects with, what writing throws. */
  add(bytes: Uint8Array): undefined | Promise<void> {
    this.#hash?.update(bytes);
    if (!this.#options.gathers) return this.#place(bytes);
    if (this.#filled + bytes.byteLength >= BLOCK_BYTES) return this.#spread(bytes);
    this.#block.set(bytes, this.#filled);
    this.#filled += bytes.byteLength;
    this.#count(bytes.byteLength);
    return undefined;
  }

  /** When this ends all that was added is in the sink. Throws what writing throws. */
  async settle(): Promise<void> {
    if (this.#filled > 0) await this.#pass();
    await this.#writing;
  }

  /** Begins again at the first byte. What was added must be settled. */
  restart(): void {
    this.bytesDone = 0;
    this.bytesWritten = 0;
    this.#hash = this.#options.startHash?.();
  }

  /** Of all bytes, in lower-case hexadecimal; undefined where the host digests only wholes. */
  digest(): string | undefined {
    return this.#hash?.digest();
  }

  #count(byteLength: number): void {
    this.bytesDone += byteLength;
    this.reached = Math.max(this.reached, this.bytesDone);
  }

  async #place(bytes: Uint8Array): Promise<void> {
    await this.sink.write(this.bytesDone, bytes);
    this.#count(bytes.byteLength);
    this.bytesWritten = this.bytesDone;
  }

  async #spread(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.byteLength; ) {
      const part = bytes.subarray(at, at + BLOCK_BYTES - this.#filled);
      this.#block.set(part, this.#filled);
      this.#filled += part.byteLength;
      at += part.byteLength;
      this.#count(part.byteLength);
      if (this.#filled === BLOCK_BYTES) await this.#pass();
    }
  }

  /** Begins to write the block, and waits only for the one before. */
  async #pass(): Promise<void> {
    await this.#writing;
    const bytes = this.#block.subarray(0, this.#filled);
    const end = this.bytesDone;
    [this.#block, this.#other] = [this.#other, this.#block];
    this.#filled = 0;
    this.#writing = this.#write(end - bytes.byteLength, bytes);
    this.#writing.catch(() => {}); // heard by the next block, or in the end
  }

  async #write(offset: number, bytes: Uint8Array): Promise<void> {
    await this.sink.write(offset, bytes);
    this.bytesWritten = offset + bytes.byteLength;
  }
}
