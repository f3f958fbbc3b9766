import { createReadStream } from 'node:fs';
import { constants, copyFile, link, mkdir, readdir, rename, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { syncPath } from '../../node/files.ts';

/** Where weights live, under the ids of updates and aggregations. */
export interface Blobs {
  /** A path under which a job can read the blob. */
  path(id: string): string;
  /** A path on which a job may build the blob that `put` then takes over. */
  workPath(id: string): string;
  /** Takes over a finished file. When it returns the blob outlives a power cut. */
  put(id: string, file: string): Promise<void>;
  /**
   * Makes a blob of a finished file, which stays under its own path as well: it may be read there while its bytes are brought
   * to the disk. When it returns the blob outlives a power cut.
   */
  keep(id: string, file: string): Promise<void>;
  /** Puts the bytes of a blob under a path of the work folder too. Whoever replaces the file leaves the blob as it is. */
  borrow(id: string, file: string): Promise<void>;
  /** Removes a blob; one that is not there is no error. */
  remove(id: string): Promise<void>;
  /** The bytes from `start` up to and including `end`. */
  read(id: string, range?: { readonly start: number; readonly end: number }): Readable;
  /** All ids. */
  list(): AsyncIterable<string>;
}

/**
 * Blobs as files: `<folder>/<first two digits of the id>/<id>`.
 *
 * @param work a folder of the same file system, which is emptied when the server starts
 */
export function fileBlobs(folder: string, work: string): Blobs {
  const shelf = (id: string) => join(folder, id.slice(0, 2));
  const path = (id: string) => join(shelf(id), id);
  /** Shelves that are there and will be after a power cut. */
  const shelves = new Map<string, Promise<void>>();
  const makeShelf = async (name: string) => {
    await mkdir(name, { recursive: true, mode: 0o700 });
    await syncPath(folder);
  };
  /** Gives the blob its name by `place`, and brings it to the disk. */
  const settle = async (id: string, place: (target: string) => Promise<void>) => {
    const name = shelf(id);
    const made = shelves.get(name) ?? makeShelf(name);
    shelves.set(name, made);
    await made.catch((error: unknown) => {
      shelves.delete(name);
      throw error;
    });
    await place(path(id));
    // Nobody knows the id before this returns: content and name may get to the disk in any order, and together.
    await Promise.all([syncPath(path(id)), syncPath(name)]);
  };
  return {
    path,
    workPath: (id) => join(work, `${id}.work`),
    put: (id, file) => settle(id, (target) => rename(file, target)),
    keep: (id, file) => settle(id, (target) => linkOrCopy(file, target)),
    borrow: (id, file) => linkOrCopy(path(id), file),
    remove: (id) => removeFile(path(id)),
    read: (id, range) => createReadStream(path(id), { ...range, highWaterMark: 256 << 10 }),
    async *list() {
      for (const name of await readdir(folder)) yield* await readdir(join(folder, name));
    },
  };
}

/** What file systems say that know one name of a file only. */
const NO_LINKS = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK']);

/** A second name for a file, or a copy where it can have only one. */
async function linkOrCopy(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch (error) {
    if (!NO_LINKS.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
    await copyFile(from, to, constants.COPYFILE_EXCL);
  }
}

/** Removes a file; one that is not there is no error. (`rm` looks first whether it is a folder.) */
export async function removeFile(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
