import { FileError } from '../errors.ts';

/** Our code for what the operating system says. */
const CODES: Readonly<Record<string, readonly [code: string, sentence: string]>> = {
  ENOENT: ['file-not-found', 'there is no such file or folder'],
  ENOTDIR: ['file-not-found', 'a part of the path is not a folder'],
  EACCES: ['file-access', 'permission denied'],
  EPERM: ['file-access', 'operation not permitted'],
  EROFS: ['file-access', 'the file system is read-only'],
  EISDIR: ['file-is-folder', 'this is a folder'],
  EEXIST: ['file-exists', 'it exists already'],
  EBUSY: ['file-busy', 'the system is using it'],
  ENOSPC: ['disk-full', 'the disk is full'],
  EDQUOT: ['disk-full', 'the disk quota is used up'],
  EMFILE: ['file-too-many-open', 'too many open files (raise the limit with "ulimit -n")'],
};

/** Turns an error of the file system into ours; errors of other kinds come back as they are. */
export function fileError(cause: unknown, path: string, action: 'read' | 'write'): unknown {
  const system = (cause as NodeJS.ErrnoException | undefined)?.code;
  if (system === undefined || !(cause instanceof Error) || !('syscall' in cause)) return cause;
  const [code, sentence] = CODES[system] ?? ['file-io', cause.message];
  return new FileError(code, `cannot ${action} ${path}: ${sentence}`, path, { cause });
}
