/**
 * Reading Blobs in order.
 *
 * Each read of a slice asks another process, takes new memory there and here, and costs a millisecond whatever it brings.
 * A stream asks once: the browser fills a pipe ahead of us, and a BYOB reader empties it into one buffer that comes back
 * each time. In Chromium that is three times as fast as slices of 3 MB, and six times as fast as slices of 256 kB.
 */
import { blobSource, unreadable } from '../tensor/blob.ts';
import { type ByteSource, joinSources, type SourceHandle } from '../tensor/bytes.ts';

/** Reads below are those of layouts, here and there: a stream would fetch far more than they ask for. */
const LEAST_STREAMED = 64 << 10;

/** Bytes read and dropped rather than begin another stream: headers, and tensors that are read by themselves. */
const MOST_SKIPPED = 256 << 10;

/** Places of one Blob that are read in turn, each by a stream of its own: slots of a state, parts of an encoded update. */
const MOST_STREAMS = 4;

/** What a stream's buffer holds: it stays in the processor's cache between the pipe and the arena. */
const BUFFER = 256 << 10;

/** Sources that are streamed at a time. Each stream has a pipe of the browser's, of 2 MiB in Chromium. */
const MOST_STREAMED = 32;

/** Bytes of a block of one input that is streamed. The pipe goes on filling while blocks are combined. */
const STREAMED_BLOCK = 1 << 20;

/** Blocks of all inputs together where each read asks another process, which costs a millisecond whatever it brings. */
const SLICED_BLOCKS = 32 << 20;

/** Streams that are being read: Chromium collects one that nothing but its own promise refers to, and that never ends then. */
const reading = new Set<ReadableStreamBYOBReader>();

/** Whether this host's Blobs have streams that fill what they are given. */
const canStream = (() => {
  try {
    new Blob().stream().getReader({ mode: 'byob' }).releaseLock();
    return true;
  } catch {
    return false;
  }
})();

/** Whether the sources of a job are streamed when there are `count` of them. */
export function isStreamed(count: number): boolean {
  return canStream && count <= MOST_STREAMED;
}

/**
 * Whether other threads may begin in the middle of sources at little cost: not where they are streams of Blobs that are no
 * Files, see `BlobStream`. One thread that reads them once is faster then than two.
 */
export function canDivide(sources: readonly SourceHandle[]): boolean {
  return (
    !isStreamed(sources.length) ||
    sources.every((handle) => handle.kind === 'blob' && handle.blob instanceof File)
  );
}

/** Bytes of a block of one of `count` sources; undefined where the plan decides, of hundreds. */
export function blockFor(count: number): number | undefined {
  if (isStreamed(count)) return STREAMED_BLOCK;
  return count > 512 ? undefined : Math.min(4 << 20, Math.floor(SLICED_BLOCKS / count / 4096) * 4096);
}

/**
 * A Blob or File as a source for jobs, which read most of it in order.
 *
 * @param count sources of the job
 */
export function openBlob(blob: Blob, name: string, count: number): ByteSource {
  const source = blobSource(blob, name);
  if (!isStreamed(count)) return source;
  const streams: BlobStream[] = [];
  return {
    ...source,
    readInto(offset, target) {
      if (target.byteLength < LEAST_STREAMED) return source.readInto(offset, target);
      const at = streams.findIndex(({ end }) => offset >= end && offset - end <= MOST_SKIPPED);
      const stream = streams[at] ?? new BlobStream(blob, name, offset);
      if (at >= 0) streams.splice(at, 1);
      else if (streams.length === MOST_STREAMS) streams.shift()!.close();
      streams.push(stream); // behind those that were used before
      return stream.readInto(offset, target);
    },
    close() {
      for (const stream of streams.splice(0)) stream.close();
    },
  };
}

/** The source that a handle stands for, on another thread. `count` as for `openBlob`. */
export function openBlobHandle(handle: SourceHandle, count: number): ByteSource {
  switch (handle.kind) {
    case 'blob':
      return openBlob(handle.blob, handle.name, count);
    case 'joined':
      return joinSources(openBlobHandle(handle.source, count), openBlobHandle(handle.scratch, count));
    default:
      throw new RangeError(`no ${handle.kind} can be read here`);
  }
}

/** One place of a Blob that moves on as it is read. */
class BlobStream {
  readonly #blob: Blob;
  readonly #name: string;
  /** Where the stream itself began. */
  #from: number;
  /** Up to where it was emptied. */
  #at: number;
  #reader: ReadableStreamBYOBReader;
  #buffer = new ArrayBuffer(BUFFER);
  /** Up to where it will be when all reads that were asked for are done. */
  end: number;
  #line: Promise<unknown> = Promise.resolve();

  constructor(blob: Blob, name: string, offset: number) {
    this.#blob = blob;
    this.#name = name;
    // A slice of a Blob in memory is a copy of it, for which a private window soon has no room: of those the whole is read, up
    // to the place and on.
    this.#from = blob instanceof File && offset > MOST_SKIPPED ? offset : 0;
    this.#at = this.#from;
    this.end = offset;
    this.#reader = this.#open();
  }

  /** Reads behind what was asked for before; `offset` is at or beyond `end`. */
  readInto(offset: number, target: Uint8Array): Promise<number> {
    this.end = offset + target.byteLength;
    const read = this.#line.then(() => this.#read(offset, target));
    this.#line = read.catch(() => {});
    return read;
  }

  /** Ends it when what was asked for is done. */
  close(): void {
    this.#line.then(() => this.#reader.cancel()).catch(() => {}); // one that failed has told its reader
  }

  async #read(offset: number, target: Uint8Array): Promise<number> {
    try {
      return await this.#fill(offset, target);
    } catch (cause) {
      if (this.#from === 0) throw unreadable(this.#name, cause);
    }
    // A File in memory, and no room for the slice.
    this.#from = 0;
    this.#at = 0;
    this.#buffer = new ArrayBuffer(BUFFER); // the other one is lost with its stream
    this.#reader = this.#open();
    return this.#read(offset, target);
  }

  async #fill(offset: number, target: Uint8Array): Promise<number> {
    while (this.#at < offset) {
      if ((await this.#next(offset - this.#at)).byteLength === 0) return 0;
    }
    let filled = 0;
    while (filled < target.byteLength) {
      const bytes = await this.#next(target.byteLength - filled);
      if (bytes.byteLength === 0) break;
      target.set(bytes, filled);
      filled += bytes.byteLength;
    }
    return filled;
  }

  /** Some of the bytes that come next, `most` at most, until the next call; none at the end. */
  async #next(most: number): Promise<Uint8Array> {
    const reader = this.#reader;
    reading.add(reader);
    try {
      const view = new Uint8Array(this.#buffer, 0, Math.min(most, BUFFER));
      const { value } = await reader.read(view);
      if (value === undefined) return new Uint8Array(); // closed
      this.#buffer = value.buffer;
      this.#at += value.byteLength;
      return value;
    } finally {
      reading.delete(reader);
    }
  }

  #open(): ReadableStreamBYOBReader {
    const { size } = this.#blob;
    const part = this.#from === 0 ? this.#blob : this.#blob.slice(this.#from, size);
    return part.stream().getReader({ mode: 'byob' });
  }
}
