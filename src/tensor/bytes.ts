import { FileError } from '../errors.ts';

/**
 * Where bytes come from and go to. Reading is positional, so that a layout can be found by touching a few kilobytes of
 * a large file and ranges can be read in any order.
 *
 * A source answers at once where it can (memory, synchronous file reads in a worker) and with a promise where it
 * cannot (Blob, asynchronous file reads): callers await only what is a promise, which keeps the fast hosts free of a
 * microtask for each block.
 */
export interface ByteSource {
  /** What error messages call this source: a path, a leaf's id. */
  readonly name: string;
  /** Length in bytes, fixed when the source was opened. */
  readonly byteLength: number;
  /**
   * Fills `target` with the bytes from `offset` on and returns how many were read: fewer than `target.length` only at
   * the end of the source.
   */
  readInto(offset: number, target: Uint8Array): number | Promise<number>;
  /** What another thread needs to read the same bytes; absent where only this one can. */
  readonly handle?: SourceHandle | undefined;
  /** Throws FileError `file-changed` when the bytes are no longer those of the opening, as far as the host can tell. */
  checkUnchanged?(): void;
  close(): void | Promise<void>;
}

/** A source as plain data for another thread of the same host, which knows how to open it. It stays its owner's. */
export type SourceHandle =
  | {
      readonly kind: 'file';
      readonly name: string;
      readonly byteLength: number;
      /** Open in this process, whichever thread opened it. */
      readonly descriptor: number;
    }
  | {
      /** A file that is opened when it is read, because there are too many to be open at a time. */
      readonly kind: 'pooled';
      readonly file: {
        readonly path: string;
        readonly name: string;
        readonly byteLength: number;
        readonly inode: number;
        readonly mtimeMs: number;
      };
    }
  | {
      readonly kind: 'blob';
      readonly name: string;
      readonly blob: Blob;
    }
  | {
      readonly kind: 'joined';
      readonly source: SourceHandle;
      readonly scratch: SourceHandle;
    };

/** A file-like target of known length that becomes visible as a whole or not at all. */
export interface ByteSink {
  /** Writes all of `bytes` at `offset`. The bytes may be reused by the caller as soon as the call (its promise) ends. */
  write(offset: number, bytes: Uint8Array): void | Promise<void>;
  /** What another thread needs to write there too; absent where only this one can. */
  readonly handle?: SinkHandle | undefined;
  /** Makes what was written visible under its name (atomically, where the host can). */
  commit(): void | Promise<void>;
  /** Removes what was written. Harmless after `commit`. */
  discard(): void | Promise<void>;
}

/** A sink as plain data for another thread of the same process. It stays its owner's. */
export interface SinkHandle {
  /** What errors call the target. */
  readonly path: string;
  readonly descriptor: number;
}

/** Room for bytes that are needed for a while, a temporary file or memory; `close` removes it. */
export interface Scratch extends ByteSource {
  write(offset: number, bytes: Uint8Array): void | Promise<void>;
}

/** Makes scratch room of a number of bytes. */
export type ScratchFactory = (byteLength: number) => Scratch | Promise<Scratch>;

/** A source over bytes in memory. The bytes are not copied and must not change while the source is used. */
export function memorySource(bytes: Uint8Array, name = 'memory'): ByteSource {
  return {
    name,
    byteLength: bytes.byteLength,
    readInto(offset, target) {
      const part = bytes.subarray(offset, offset + target.byteLength);
      target.set(part);
      return part.byteLength;
    },
    close() {},
  };
}

/** A sink into memory; `bytes` is the result after `commit`. */
export function memorySink(byteLength: number): ByteSink & { readonly bytes: Uint8Array } {
  const bytes = new Uint8Array(byteLength);
  return {
    bytes,
    write(offset, part) {
      bytes.set(part, offset);
    },
    commit() {},
    discard() {},
  };
}

/** Scratch room in memory. */
export function memoryScratch(byteLength: number): Scratch {
  const room = new Uint8Array(byteLength);
  return {
    ...memorySource(room, 'scratch'),
    write(offset, bytes) {
      room.set(bytes, offset);
    },
  };
}

/**
 * A source, and scratch room behind it: an offset beyond the end of the source is one in the scratch room. Closing it
 * closes the scratch room only.
 */
export function joinSources(source: ByteSource, scratch: ByteSource): ByteSource {
  const border = source.byteLength;
  const handle =
    source.handle === undefined || scratch.handle === undefined
      ? undefined
      : ({ kind: 'joined', source: source.handle, scratch: scratch.handle } as const);
  return {
    name: source.name,
    byteLength: border + scratch.byteLength,
    handle,
    checkUnchanged: () => source.checkUnchanged?.(),
    readInto(offset, target) {
      if (offset >= border) return scratch.readInto(offset - border, target);
      if (offset + target.byteLength <= border) return source.readInto(offset, target);
      return readBoth(offset, target);
    },
    close: () => scratch.close(),
  };

  /** Neighbouring tensors are read in one span, which may lie in both. */
  async function readBoth(offset: number, target: Uint8Array): Promise<number> {
    const head = border - offset;
    const read = await source.readInto(offset, target.subarray(0, head));
    return read < head ? read : head + (await scratch.readInto(0, target.subarray(head)));
  }
}

/**
 * Fills `target` from `offset` on.
 *
 * @throws FileError `file-changed` when the source ends before
 */
export async function readAll(source: ByteSource, offset: number, target: Uint8Array): Promise<void> {
  const read = source.readInto(offset, target);
  const count = typeof read === 'number' ? read : await read;
  if (count !== target.byteLength) throw changed(source, offset + count);
}

/**
 * Begins to fill `target`, which lies in an arena as a rule. What has to be waited for is added to `waits`.
 *
 * @throws FileError `file-changed` when the source ends before, here or by the promise
 */
export function startRead(
  source: ByteSource,
  offset: number,
  target: Uint8Array,
  waits: Promise<unknown>[],
): void {
  const check = (count: number) => {
    if (count !== target.byteLength) throw changed(source, offset + count);
  };
  const reading = source.readInto(offset, target);
  if (typeof reading === 'number') check(reading);
  else waits.push(reading.then(check));
}

/** The error for a source that has become shorter since its layout was read. */
function changed(source: ByteSource, offset: number): FileError {
  return new FileError(
    'file-changed',
    `${source.name} ended at byte ${offset} while it was read: it has changed since it was opened`,
    source.name,
  );
}
