/** A small state as a file of JSON, complete or not at all. */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { fileError } from '../node/file-errors.ts';

/** Makes a folder for files that are nobody else's business. Throws FileError. */
export async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw fileError(cause, path, 'write');
  }
}

/** Writes a state; it is on the disk when this ends. Throws FileError. */
export async function writeState(path: string, state: object): Promise<void> {
  const next = `${path}.next`;
  try {
    await writeFile(next, `${JSON.stringify(state)}\n`, { mode: 0o600, flush: true });
    await rename(next, path);
  } catch (cause) {
    throw fileError(cause, path, 'write');
  }
}

/** Reads a state. What cannot be read is as good as none, and what it lacks is taken from `nothing`. */
export async function readState<T extends object>(path: string, nothing: T): Promise<T> {
  try {
    return { ...nothing, ...(JSON.parse(await readFile(path, 'utf8')) as Partial<T>) };
  } catch {
    return nothing;
  }
}
