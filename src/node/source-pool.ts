/**
 * Sources over more files than a process may have open at a time. Files stay open while the system lets them; from the
 * first refusal on, those that were not read for the longest time are closed and opened again when they are needed.
 */
import * as fs from 'node:fs';
import { FileError, isCambiumError } from '../errors.ts';
import { type ByteSource, memorySource, type SourceHandle } from '../tensor/bytes.ts';
import { fileError } from './file-errors.ts';
import { guardFileSync, readFullySync, sizeOf, TO_READ } from './files.ts';
import type { AggregateInput } from './jobs.ts';

/** Descriptors that are left for the output, for scratch room and for the host itself. */
const RESERVE = 16;

/** Files that each thread keeps open once there are too many of them. */
export const KEPT = 64;

/** A file with what tells that it has not been replaced or changed. */
type PooledFile = Extract<SourceHandle, { kind: 'pooled' }>['file'];

export class SourcePool {
  /** Open files with their descriptors, the longest unread first. */
  readonly #open = new Map<PooledFile, number>();
  #capacity: number;

  /** @param capacity files that stay open at a time; as many as the system allows unless given */
  constructor(capacity = Number.POSITIVE_INFINITY) {
    this.#capacity = capacity;
  }

  /** Opens a file for positional reading. Throws FileError. */
  open(path: string, name = path): ByteSource {
    const descriptor = this.#descriptorOf(path);
    try {
      const stat = fs.fstatSync(descriptor);
      const { ino: inode, mtimeMs } = stat;
      const file = { path, name, byteLength: sizeOf(stat, path), inode, mtimeMs };
      this.#keep(file, descriptor);
      return new PooledSource(this, file);
    } catch (error) {
      fs.closeSync(descriptor);
      throw fileError(error, path, 'read');
    }
  }

  /** Opens an input of a job, which may be in memory. Throws FileError. */
  openInput({ path, bytes }: Pick<AggregateInput, 'path' | 'bytes'>, name = path): ByteSource {
    return bytes === undefined ? this.open(path, name) : memorySource(bytes, name);
  }

  /** A source that a pool on another thread has described. */
  reopen(file: PooledFile): ByteSource {
    return new PooledSource(this, file);
  }

  /** Makes sure that the system has some descriptors left for others. */
  reserve(): void {
    const taken: number[] = [];
    try {
      for (let i = 0; i < RESERVE; i++) taken.push(fs.openSync(process.execPath, 'r'));
    } catch {
      this.#shrink();
    } finally {
      for (const descriptor of taken) fs.closeSync(descriptor);
    }
  }

  /** Closes all files. */
  close(): void {
    for (const descriptor of this.#open.values()) fs.closeSync(descriptor);
    this.#open.clear();
  }

  /** What another thread needs to read a file: its descriptor serves every thread as long as no file has to be closed. */
  handleOf(file: PooledFile): SourceHandle {
    const descriptor = this.#open.get(file);
    if (descriptor === undefined || this.#capacity < Number.POSITIVE_INFINITY)
      return { kind: 'pooled', file };
    return { kind: 'file', name: file.name, byteLength: file.byteLength, descriptor };
  }

  /** The descriptor of a file, opened again where it was closed. Throws FileError. */
  use(file: PooledFile): number {
    let descriptor = this.#open.get(file);
    if (descriptor === undefined) {
      descriptor = this.#descriptorOf(file.path);
      try {
        checkSame(file, fs.fstatSync(descriptor));
      } catch (error) {
        fs.closeSync(descriptor);
        throw error;
      }
      this.#keep(file, descriptor);
    } else if (this.#capacity < Number.POSITIVE_INFINITY) {
      this.#open.delete(file);
      this.#open.set(file, descriptor);
    }
    return descriptor;
  }

  /** Closes a file. */
  drop(file: PooledFile): void {
    const descriptor = this.#open.get(file);
    if (descriptor !== undefined) fs.closeSync(descriptor);
    this.#open.delete(file);
  }

  #descriptorOf(path: string): number {
    for (let isSecond = false; ; isSecond = true) {
      try {
        return fs.openSync(path, TO_READ);
      } catch (cause) {
        const error = fileError(cause, path, 'read');
        const isFull = isCambiumError(error) && error.code === 'file-too-many-open';
        if (isSecond || !isFull || this.#open.size === 0) throw error;
        this.#shrink();
      }
    }
  }

  #shrink(): void {
    this.#capacity = Math.min(KEPT, Math.max(1, this.#open.size - 2 * RESERVE));
    this.#evict();
  }

  #keep(file: PooledFile, descriptor: number): void {
    this.#open.set(file, descriptor);
    this.#evict();
  }

  #evict(): void {
    for (const [file, descriptor] of this.#open) {
      if (this.#open.size <= this.#capacity) return;
      fs.closeSync(descriptor);
      this.#open.delete(file);
    }
  }
}

/** A file of a pool. Thousands of them share these methods; closures of each would take more than all else about it. */
class PooledSource implements ByteSource {
  readonly #pool: SourcePool;
  readonly #file: PooledFile;

  constructor(pool: SourcePool, file: PooledFile) {
    this.#pool = pool;
    this.#file = file;
  }

  get name(): string {
    return this.#file.name;
  }

  get byteLength(): number {
    return this.#file.byteLength;
  }

  get handle(): SourceHandle {
    return this.#pool.handleOf(this.#file);
  }

  readInto(offset: number, target: Uint8Array): number {
    return guardFileSync(this.#file.path, 'read', () =>
      readFullySync(this.#pool.use(this.#file), offset, target),
    );
  }

  checkUnchanged(): void {
    checkSame(this.#file, fs.fstatSync(this.#pool.use(this.#file)));
  }

  close(): void {
    this.#pool.drop(this.#file);
  }
}

/** @throws FileError `file-changed` */
function checkSame(file: PooledFile, { size, ino, mtimeMs }: fs.Stats): void {
  if (size === file.byteLength && ino === file.inode && mtimeMs === file.mtimeMs) return;
  throw new FileError('file-changed', `${file.name} was changed while it was read`, file.path);
}
