/**
 * Files as byte sources and sinks, asynchronous for threads that serve others and synchronous for workers, where a
 * positional read straight into the core's memory is the fastest way in.
 *
 * A sink writes to a hidden file in the folder of its target and renames it there on `commit`, so that a reader sees
 * the old content, or the new one, and never a part. Where the target is a link, it is the file behind it that is replaced.
 */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { FileError } from '../errors.ts';
import type { ByteSink, ByteSource } from '../tensor/bytes.ts';
import { fileError } from './file-errors.ts';

/** To open what is to be read: a pipe that nobody writes to would hold up the thread for ever, and no signal ends that. */
export const TO_READ = fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0); // which Windows has not

/** Of the target's name, so that ours stays below the 255 bytes that file systems allow. */
export const NAME_CHARACTERS = 60;

export interface FileSinkOptions {
  /** Flush the file and its folder to the disk before `commit` ends: needed where a receipt follows. Default false. */
  readonly durable?: boolean | undefined;
}

/** Opens a file for positional reading. Throws FileError. */
export async function openFileSource(path: string, name = path): Promise<ByteSource> {
  const handle = await guardFile(path, 'read', () => open(path, TO_READ));
  try {
    const stat = await guardFile(path, 'read', () => handle.stat());
    return {
      name,
      byteLength: sizeOf(stat, path),
      readInto: (offset, target) => guardFile(path, 'read', () => readFully(handle, offset, target)),
      close: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** The same, synchronous; for workers. Throws FileError. */
export function openFileSourceSync(path: string, name = path): ByteSource {
  const descriptor = guardFileSync(path, 'read', () => fs.openSync(path, TO_READ));
  const stat = () => guardFileSync(path, 'read', () => fs.fstatSync(descriptor));
  try {
    const opened = stat();
    const byteLength = sizeOf(opened, path);
    return {
      ...descriptorSource(descriptor, name, byteLength),
      handle: { kind: 'file', name, byteLength, descriptor },
      checkUnchanged() {
        const { size, mtimeMs } = stat();
        if (size === byteLength && mtimeMs === opened.mtimeMs) return;
        throw new FileError('file-changed', `${name} was changed while it was read`, path);
      },
      close: () => fs.closeSync(descriptor),
    };
  } catch (error) {
    fs.closeSync(descriptor);
    throw error;
  }
}

/**
 * A source over a file that is open in this process, whoever opened it: its owner closes it.
 *
 * @throws FileError when it is read
 */
export function descriptorSource(descriptor: number, name: string, byteLength: number): ByteSource {
  return {
    name,
    byteLength,
    readInto: (offset, target) =>
      guardFileSync(name, 'read', () => readFullySync(descriptor, offset, target)),
    close() {},
  };
}

/** Writes to a file that is open in this process. Throws FileError. */
export function writeToDescriptor(descriptor: number, path: string, offset: number, bytes: Uint8Array): void {
  guardFileSync(path, 'write', () => {
    for (let done = 0; done < bytes.byteLength; ) {
      done += fs.writeSync(descriptor, bytes, done, bytes.byteLength - done, offset + done);
    }
  });
}

/** A sink whose bytes can be read back and checked before they become visible. */
export type CheckedFileSink = ByteSink & Pick<ByteSource, 'readInto'>;

/** Opens a sink that becomes the file at `path` on commit. Throws FileError. */
export async function openFileSink(path: string, options: FileSinkOptions = {}): Promise<CheckedFileSink> {
  const target = targetOf(path);
  const part = partPath(target);
  const handle = await guardFile(path, 'write', () => open(part, 'wx+', 0o666));
  let isOpen = true;
  const closeOnce = async () => {
    if (!isOpen) return;
    isOpen = false;
    await handle.close();
  };
  return {
    write: (offset, bytes) => guardFile(path, 'write', () => writeFully(handle, offset, bytes)),
    readInto: (offset, target) => guardFile(path, 'read', () => readFully(handle, offset, target)),
    commit: () =>
      guardFile(path, 'write', async () => {
        if (options.durable) await handle.sync();
        await closeOnce();
        await rename(part, target);
        if (options.durable) await syncPath(dirname(target));
      }),
    async discard() {
      await closeOnce();
      await rm(part, { force: true });
    },
  };
}

/** The same, synchronous; for workers. Throws FileError. */
export function openFileSinkSync(path: string, options: FileSinkOptions = {}): CheckedFileSink {
  const target = targetOf(path);
  const part = partPath(target);
  const descriptor = guardFileSync(path, 'write', () => fs.openSync(part, 'wx+', 0o666));
  let isOpen = true;
  const closeOnce = () => {
    if (!isOpen) return;
    isOpen = false;
    fs.closeSync(descriptor);
  };
  return {
    handle: { path, descriptor },
    write: (offset, bytes) => writeToDescriptor(descriptor, path, offset, bytes),
    readInto: (offset, target) =>
      guardFileSync(path, 'read', () => readFullySync(descriptor, offset, target)),
    commit: () =>
      guardFileSync(path, 'write', () => {
        if (options.durable) fs.fsyncSync(descriptor);
        closeOnce();
        fs.renameSync(part, target);
        if (options.durable) syncFolderSync(dirname(target));
      }),
    discard() {
      closeOnce();
      fs.rmSync(part, { force: true });
    },
  };
}

/** Flushes a file, or a folder, so that a rename in it outlives a power cut. */
export async function syncPath(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function syncFolderSync(path: string): void {
  const descriptor = fs.openSync(path, 'r');
  try {
    fs.fsyncSync(descriptor);
  } finally {
    fs.closeSync(descriptor);
  }
}

/** Reads until `target` is full or the file ends; how many bytes that were. */
export async function readFully(handle: FileHandle, offset: number, target: Uint8Array): Promise<number> {
  let done = 0;
  while (done < target.byteLength) {
    const { bytesRead } = await handle.read(target, done, target.byteLength - done, offset + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}

/** Writes all of `bytes`. */
export async function writeFully(handle: FileHandle, offset: number, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.byteLength - done, offset + done);
    done += bytesWritten;
  }
}

/** As `readFully`, synchronous. Throws errors of the system. */
export function readFullySync(descriptor: number, offset: number, target: Uint8Array): number {
  let done = 0;
  while (done < target.byteLength) {
    const read = fs.readSync(descriptor, target, done, target.byteLength - done, offset + done);
    if (read === 0) break;
    done += read;
  }
  return done;
}

/**
 * The file that a path leads to, through links, or is to become. Told before the work: a rename onto a folder would fail
 * after it, and one onto a device or a pipe would put a file in its place.
 *
 * @throws FileError `file-is-folder`, `file-not-regular`
 */
export function targetOf(path: string): string {
  return guardFileSync(path, 'write', () => {
    const stat = fs.statSync(path, { throwIfNoEntry: false });
    if (stat === undefined) return path;
    if (stat.isFile()) return fs.realpathSync(path);
    if (stat.isDirectory())
      throw new FileError('file-is-folder', `cannot write ${path}: this is a folder`, path);
    throw new FileError('file-not-regular', `cannot write ${path}: not a regular file`, path);
  });
}

function partPath(path: string): string {
  const name = basename(path).slice(0, NAME_CHARACTERS);
  return join(dirname(path), `.${name}.${randomBytes(6).toString('hex')}.part`);
}

/** @throws FileError for what has no positions: folders, pipes */
export function sizeOf(stat: fs.Stats, path: string): number {
  if (stat.isDirectory())
    throw new FileError('file-is-folder', `cannot read ${path}: this is a folder`, path);
  if (!stat.isFile()) {
    throw new FileError(
      'file-not-regular',
      `cannot read ${path}: not a regular file (it has no positions)`,
      path,
    );
  }
  return stat.size;
}

/** Runs `work` on the file at `path`, with what the system says turned into FileError. */
export async function guardFile<T>(
  path: string,
  action: 'read' | 'write',
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw fileError(error, path, action);
  }
}

/** The same, synchronous. */
export function guardFileSync<T>(path: string, action: 'read' | 'write', work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw fileError(error, path, action);
  }
}
