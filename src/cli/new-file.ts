/** Files that a command makes and must not put in the place of others. */
import { open, rm } from 'node:fs/promises';
import { fileError } from '../node/file-errors.ts';

/**
 * Takes a path that must be free, does what is to be written there, and gives it back where that fails: so whoever could not
 * have kept the result finds out before the work.
 *
 * @throws FileError `file-exists` and others
 */
export async function intoNewFile<T>(path: string, mode: number, work: () => Promise<T>): Promise<T> {
  try {
    await (await open(path, 'wx', mode)).close();
  } catch (cause) {
    throw fileError(cause, path, 'write');
  }
  try {
    return await work();
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  }
}
