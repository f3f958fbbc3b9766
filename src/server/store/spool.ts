/**
 * Bodies of uploads on their way in: streamed to a file, hashed on the way, in memory that does not grow with the body.
 * A body that ends early, stalls, is too long or does not fit on the disk leaves nothing behind.
 */
import { createHash, randomUUID } from 'node:crypto';
import { type FileHandle, open, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { WRITEBACK_BYTES, Writeback } from '../../node/writeback.ts';
import { Refusal } from '../domain/refusal.ts';
import type { Timers } from '../timers.ts';
import { removeFile } from './blobs.ts';

/** A body that has arrived whole. */
export interface Arrived {
  readonly byteLength: number;
  /** Lower-case hexadecimal. */
  readonly sha256: string;
  /** From the head of the request to the last byte; null where it came in pieces. */
  readonly receiveMs: number | null;
}

/** A small body, in memory. */
export interface Held extends Arrived {
  readonly bytes: Uint8Array;
}

/** A body in a file. */
export interface Spooled extends Arrived {
  readonly path: string;
  /**
   * What was begun to bring its bytes to the disk, to be waited for before somebody relies on them. Throws Refusal
   * `disk-full`.
   */
  flushed(): Promise<void>;
  /** Removes the file, if it still lies in the spool. */
  remove(): Promise<void>;
}

export interface SpoolOptions {
  readonly maxBytes: number;
  readonly idleMs: number;
  readonly timers: Timers;
  /** For tests: how a file is opened. */
  readonly openFile?: typeof open | undefined;
  /** For tests: bytes of the disk, all and free. */
  readonly disk?: ((folder: string) => Promise<{ total: number; free: number }>) | undefined;
}

/** This part of the disk stays free, so that the database can always commit. */
const RESERVE = 0.05;

/** The disk is asked again after this many bytes. */
const DISK_CHECK_BYTES = 64 << 20;

/** And after so many of small bodies: what the reserve takes at any size of disk. */
const SMALL_DISK_CHECK_BYTES = 1 << 20;

/**
 * A body of so many bytes is not worth a file. It is kept in the database (domain/updates.ts), where more than a page
 * would take pages of its own, and all of a round's are in memory when it is aggregated: 40 MB where a branch has 10,000 leaves.
 */
const HELD_BYTES = 4096;

export class Spool {
  readonly #folder: string;
  readonly #options: SpoolOptions;
  /** Bytes of small bodies since the disk was asked; it has not been yet. */
  #unasked = Number.POSITIVE_INFINITY;

  constructor(folder: string, options: SpoolOptions) {
    this.#folder = folder;
    this.#options = options;
  }

  /** @throws Refusal `upload-too-large`, `disk-full` before a byte is read; `expected` is undefined for chunked bodies. */
  async check(expected: number | undefined): Promise<void> {
    const { maxBytes } = this.#options;
    if (expected !== undefined && expected > maxBytes) throw tooLarge(maxBytes);
    if (expected !== undefined && expected <= HELD_BYTES && this.#unasked < SMALL_DISK_CHECK_BYTES) {
      this.#unasked += expected;
      return;
    }
    await this.checkRoom(expected ?? 0);
    this.#unasked = 0;
  }

  /** @throws Refusal `disk-full` when so many bytes more would leave too little of the disk free */
  async checkRoom(byteLength: number): Promise<void> {
    const { total, free } = await (this.#options.disk ?? diskOf)(this.#folder);
    if (free - byteLength < total * RESERVE) {
      throw new Refusal('disk-full', 'disk-full', 'the server has too little free disk space for this file');
    }
  }

  /**
   * Receives a body to its end, a small one into memory.
   *
   * @throws Refusal `upload-incomplete` when the sender goes away, `upload-idle`, `upload-too-large`, `disk-full`
   */
  async receive(body: Readable): Promise<Held | Spooled> {
    const begunAt = performance.now();
    const arrivals = new Arrivals(body, this.#options);
    try {
      const { chunks, byteLength, isAll } = await this.#begin(arrivals);
      if (!isAll) return await this.#write(arrivals, begunAt, chunks);
      const bytes = new Uint8Array(byteLength);
      let at = 0;
      for (const chunk of chunks) {
        bytes.set(chunk, at);
        at += chunk.byteLength;
      }
      const sha256 = createHash('sha256').update(bytes).digest('hex');
      return { bytes, byteLength, sha256, receiveMs: performance.now() - begunAt };
    } finally {
      arrivals.close();
    }
  }

  /** The same into a file, whatever its size. */
  async receiveFile(body: Readable): Promise<Spooled> {
    const begunAt = performance.now();
    const arrivals = new Arrivals(body, this.#options);
    try {
      return await this.#write(arrivals, begunAt);
    } finally {
      arrivals.close();
    }
  }

  /** The first chunks of a body: all of a small one. */
  async #begin(arrivals: Arrivals) {
    const { maxBytes } = this.#options;
    const chunks: Buffer[] = [];
    let byteLength = 0;
    while (byteLength <= HELD_BYTES) {
      const chunk = await arrivals.next();
      if (chunk === null) return { chunks, byteLength, isAll: true };
      chunks.push(chunk);
      byteLength += chunk.byteLength;
      if (byteLength > maxBytes) throw tooLarge(maxBytes);
    }
    return { chunks, byteLength, isAll: false };
  }

  /** Writes a body to a file. @param first what is there of it */
  async #write(arrivals: Arrivals, begunAt: number, first: Buffer[] = []): Promise<Spooled> {
    const { maxBytes, openFile = open } = this.#options;
    const path = join(this.#folder, randomUUID());
    const remove = () => removeFile(path);
    const hash = createHash('sha256');
    let receiveMs = 0;
    let byteLength = 0;
    let flushed: Promise<void>;
    try {
      const handle = await openFile(path, 'wx', 0o600);
      const writeback = new Writeback();
      try {
        for (let unchecked = 0; ; ) {
          const chunk = first.shift() ?? (await arrivals.next());
          if (chunk === null) break;
          byteLength += chunk.byteLength;
          if (byteLength > maxBytes) throw tooLarge(maxBytes);
          unchecked += chunk.byteLength;
          if (unchecked >= DISK_CHECK_BYTES) {
            unchecked = 0;
            await this.checkRoom(0);
          }
          hash.update(chunk);
          for (let done = 0; done < chunk.byteLength; ) {
            done += (await handle.write(chunk, done)).bytesWritten;
          }
          writeback.wrote(chunk.byteLength, handle);
        }
        receiveMs = performance.now() - begunAt;
        flushed = flushAndClose(handle, byteLength < WRITEBACK_BYTES ? undefined : writeback);
      } catch (error) {
        await writeback.idle();
        await handle.close();
        throw error;
      }
    } catch (error) {
      await remove();
      throw asDiskFull(error);
    }
    // Whoever needs the file hears of a failure; whoever refuses it need not.
    flushed.catch(() => {});
    return { path, byteLength, sha256: hash.digest('hex'), receiveMs, flushed: () => flushed, remove };
  }

  /**
   * The bytes of a body as they arrive.
   *
   * @throws Refusal `upload-incomplete` when the sender goes away, `upload-idle`
   */
  async *chunks(body: Readable): AsyncGenerator<Buffer, void, void> {
    const arrivals = new Arrivals(body, this.#options);
    try {
      for (let chunk = await arrivals.next(); chunk !== null; chunk = await arrivals.next()) yield chunk;
    } finally {
      arrivals.close();
    }
  }

  /**
   * Receives a body into memory. One that is cut is `whole: false`, with the bytes that came.
   *
   * @throws Refusal `upload-idle`, `block-too-large`
   */
  async receiveBlock(body: Readable, maxBytes: number): Promise<Block> {
    const arrivals = new Arrivals(body, this.#options);
    const chunks: Buffer[] = [];
    let byteLength = 0;
    try {
      for (;;) {
        const chunk = await arrivals.next();
        if (chunk === null) return { chunks, byteLength, isWhole: true };
        byteLength += chunk.byteLength;
        if (byteLength > maxBytes) throw blockTooLarge(maxBytes);
        chunks.push(chunk);
      }
    } catch (error) {
      if (!(error instanceof Refusal) || error.code !== 'upload-incomplete') throw error;
      return { chunks, byteLength, isWhole: false };
    } finally {
      arrivals.close();
    }
  }
}

/** A piece of an upload, in memory. */
export interface Block {
  readonly chunks: readonly Buffer[];
  readonly byteLength: number;
  /** False when the connection broke before the end. */
  readonly isWhole: boolean;
}

/**
 * Reads a stream chunk by chunk without ever destroying it: the answer still has to go out on the socket it came from.
 */
class Arrivals {
  readonly #body: Readable;
  readonly #options: SpoolOptions;
  #isEnded = false;
  #failure: unknown;
  #wake: () => void = () => {};

  constructor(body: Readable, options: SpoolOptions) {
    this.#body = body;
    this.#options = options;
    body.on('readable', this.#onReadable);
    body.on('end', this.#onEnd);
    body.on('error', this.#onError);
    body.on('close', this.#onClose);
    // A stream that is over already emits nothing any more.
    if (body.destroyed && !body.readableEnded) this.#onClose();
    if (body.readableEnded) this.#onEnd();
  }

  /** The next bytes, or null at the end. */
  async next(): Promise<Buffer | null> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const chunk = this.#body.read() as Buffer | null; // no encoding is set
      if (chunk !== null) return chunk;
      if (this.#isEnded) return null;
      if (this.#failure !== undefined) continue;
      await new Promise<void>((resolve) => {
        const cancel = this.#options.timers.after(this.#options.idleMs, () => {
          this.#fail(
            new Refusal(
              'too-slow',
              'upload-idle',
              `no byte of the upload arrived for ${this.#options.idleMs / 1000} seconds`,
            ),
          );
        });
        this.#wake = () => {
          cancel();
          resolve();
        };
      });
    }
  }

  close(): void {
    this.#body.off('readable', this.#onReadable);
    this.#body.off('end', this.#onEnd);
    this.#body.off('close', this.#onClose);
    // The error listener stays: a sender may go away after the answer, and that is nobody's failure.
  }

  readonly #onReadable = () => this.#wake();
  readonly #onEnd = () => {
    this.#isEnded = true;
    this.#wake();
  };
  readonly #onError = (cause: unknown) => this.#fail(incomplete(cause));
  readonly #onClose = () => {
    if (!this.#isEnded) this.#fail(incomplete(undefined));
  };

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#wake();
  }
}

/** Leaves the flush of a small file to whoever gives it its name. Throws Refusal `disk-full`. */
async function flushAndClose(handle: FileHandle, writeback: Writeback | undefined): Promise<void> {
  try {
    await writeback?.finish(handle);
  } catch (error) {
    throw asDiskFull(error);
  } finally {
    await handle.close();
  }
}

function incomplete(cause: unknown): Refusal {
  return new Refusal('malformed', 'upload-incomplete', 'the upload ended before its last byte', undefined, {
    cause,
  });
}

function tooLarge(maxBytes: number): Refusal {
  return new Refusal('too-large', 'upload-too-large', `an upload may have ${maxBytes} bytes at most`, {
    max_bytes: maxBytes,
  });
}

/** @returns the refusal for a block of more than `maxBytes` */
export function blockTooLarge(maxBytes: number): Refusal {
  return new Refusal('too-large', 'block-too-large', `a block may have ${maxBytes} bytes at most`, {
    max_bytes: maxBytes,
  });
}

/** The refusal for an error that says that the disk is full; other errors come back as they are. */
export function asDiskFull(error: unknown): unknown {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  if (code !== 'ENOSPC' && code !== 'EDQUOT' && code !== 'SQLITE_FULL') return error;
  return new Refusal('disk-full', 'disk-full', "the server's disk is full", undefined, { cause: error });
}

async function diskOf(folder: string): Promise<{ total: number; free: number }> {
  const { blocks, bavail, bsize } = await statfs(folder);
  return { total: blocks * bsize, free: bavail * bsize };
}
