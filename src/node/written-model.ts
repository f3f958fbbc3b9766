/**
 * The model that this thread has written last, with its digest: a round of a server optimiser starts from the model of the
 * round before, and to hash it once more would take a seventh of the step.
 */
import { type BigIntStats, fstatSync, statSync } from 'node:fs';
import type { ByteSource } from '../tensor/bytes.ts';

interface WrittenModel {
  /** What tells that a file is still the one that was written: it may have been renamed, not written to. */
  readonly identity: string;
  readonly sha256: string;
}

let last: WrittenModel | null = null;

/** Remembers a model file that was written by this thread just now, in place of the one before. */
export function rememberModel(path: string, sha256: string): void {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false }); // another process may have taken it away
  last = stat === undefined ? null : { identity: identify(stat), sha256 };
}

/** The SHA-256 of an open file in lower-case hexadecimal, null unless it is the model that was written last. */
export function digestOfWritten({ handle }: Pick<ByteSource, 'handle'>): string | null {
  if (last === null || handle?.kind !== 'file') return null;
  return last.identity === identify(fstatSync(handle.descriptor, { bigint: true })) ? last.sha256 : null;
}

function identify({ dev, ino, size, mtimeNs }: BigIntStats): string {
  return [dev, ino, size, mtimeNs].join();
}
