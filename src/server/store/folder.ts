/**
 * The data directory: `state.db`, `blobs/`, `spool/`, `uploads/`, `operator.json`, `lock`. Nobody but its owner may read it.
 *
 * The file `lock` is empty and stays: what keeps a second server out is the system's lock on it, which a process cannot
 * take to its grave.
 */
import { randomBytes } from 'node:crypto';
import { chmod, mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { CambiumError } from '../../errors.ts';
import { syncPath } from '../../node/files.ts';
import type { OperatorFile } from '../../wire/cambium.ts';
import { type Database, openDatabase, takeLock } from './database.ts';

/** A data directory that this process owns until `close`. */
export interface DataFolder {
  readonly path: string;
  readonly blobs: string;
  readonly spool: string;
  /** Uploads that have begun; unlike the spool they outlive a restart. */
  readonly uploads: string;
  readonly operatorFile: string;
  readonly db: Database;
  close(): Promise<void>;
}

/**
 * Opens the directory, which is made if it is missing, and empties the spool: what lies there belongs to uploads that
 * never got a receipt.
 *
 * @throws CambiumError `data-locked` when another process serves it, `state-newer`; UnavailableError
 */
export async function openDataFolder(dataDir: string): Promise<DataFolder> {
  const path = resolve(dataDir);
  const blobs = join(path, 'blobs');
  const spool = join(path, 'spool');
  const uploads = join(path, 'uploads');
  const lock = join(path, 'lock');
  for (const folder of [path, blobs, spool, uploads]) {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await chmod(folder, 0o700);
  }
  const state = join(path, 'state.db');
  await makePrivate(lock);
  await makePrivate(state);
  const unlock = await takeLock(lock);
  if (unlock === undefined) {
    throw new CambiumError('data-locked', `${path} is served by another process: stop it first`);
  }
  try {
    const db = await openDatabase(state);
    await syncPath(path);
    for (const name of await readdir(spool)) await rm(join(spool, name), { recursive: true, force: true });
    return {
      path,
      blobs,
      spool,
      uploads,
      operatorFile: join(path, 'operator.json'),
      db,
      async close() {
        await db.destroy();
        unlock();
      },
    };
  } catch (error) {
    unlock();
    throw error;
  }
}

/** Makes an empty file that only its owner may read, unless it is there. */
async function makePrivate(path: string): Promise<void> {
  try {
    // Never opened when it exists: closing it would give back the locks that this process may have on it.
    await (await open(path, 'wx', 0o600)).close();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

/** Reads `operator.json`; undefined when it is not there. */
export async function readOperatorFile(path: string): Promise<OperatorFile | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as OperatorFile; // written by writeOperatorFile
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Writes `operator.json` so that it is there whole or as it was. */
export async function writeOperatorFile(path: string, content: OperatorFile): Promise<void> {
  const part = `${path}.${randomBytes(6).toString('hex')}.part`;
  await writeFile(part, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o600, flush: true });
  await rename(part, path);
}
