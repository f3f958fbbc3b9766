/**
 * Files of interrupted downloads: `.<name>.<key>.<owner>.part` beside their target, where the key is the digest of what
 * is being downloaded and the owner the process that does it. A later process finds the file by its key and takes it
 * over, unless its owner still runs: two writers of one file could spoil each other's bytes after they were checked.
 */
import { createHash } from 'node:crypto';
import { type FileHandle, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import type { PartialSink } from '../client/file-access.ts';
import { guardFile, NAME_CHARACTERS, readFully, syncPath, targetOf, writeFully } from './files.ts';
import { Writeback } from './writeback.ts';

/** What lies about for longer belongs to nobody: a download that is still wanted is asked for again sooner. */
const KEEP_MS = 7 * 24 * 3600_000;

/** Digits of the key in the name: enough to tell apart, and the digest of the whole is checked in the end. */
const KEY_DIGITS = 16;

/** A process id means something on its own machine only. */
const HOST = createHash('sha256').update(hostname()).digest('hex').slice(0, 8);

/** Files that this very process is writing, by their paths. */
const busy = new Set<string>();
let count = 0;

/** Opens a sink that becomes the file at `to` on commit, and survives a power cut then. Throws FileError. */
export async function openPartialSink(to: string, key: string): Promise<PartialSink> {
  const path = targetOf(to);
  const part = join(dirname(path), `${prefixOf(path, key)}${HOST}-${process.pid}-${++count}.part`);
  busy.add(part);
  try {
    const found = await guardFile(path, 'write', () => findOrphan(path, key));
    if (found !== undefined) await guardFile(path, 'write', () => rename(found, part));
    const handle = await guardFile(path, 'write', () =>
      open(part, found === undefined ? 'wx+' : 'r+', 0o666),
    );
    return sinkOf(path, part, handle, found === undefined ? 0 : (await handle.stat()).size);
  } catch (error) {
    busy.delete(part);
    throw error;
  }
}

function sinkOf(path: string, part: string, handle: FileHandle, bytesThere: number): PartialSink {
  let isOpen = true;
  /** Committed or kept: nothing of it is ours any more. */
  let isOver = false;
  const writeback = new Writeback(bytesThere);
  const closeOnce = async () => {
    if (!isOpen) return;
    isOpen = false;
    busy.delete(part);
    await writeback.idle();
    await handle.close();
  };
  return {
    bytesThere,
    write: (offset, bytes) =>
      guardFile(path, 'write', async () => {
        await writeFully(handle, offset, bytes);
        writeback.wrote(bytes.byteLength, handle);
      }),
    readInto: (offset, target) => guardFile(path, 'read', () => readFully(handle, offset, target)),
    commit: () =>
      guardFile(path, 'write', async () => {
        await writeback.finish(handle);
        await closeOnce();
        await rename(part, path);
        isOver = true;
        await syncPath(dirname(path));
      }),
    async discard() {
      await closeOnce();
      if (!isOver) await rm(part, { force: true });
      isOver = true;
    },
    keep: (byteLength) =>
      guardFile(path, 'write', async () => {
        if (isOpen) await handle.truncate(byteLength);
        await closeOnce();
        isOver = true;
      }),
  };
}

function prefixOf(path: string, key: string): string {
  return `.${basename(path).slice(0, NAME_CHARACTERS)}.${key.slice(0, KEY_DIGITS)}.`;
}

/** The file of an owner that is gone, the largest of several; what nobody came back for is removed on the way. */
async function findOrphan(path: string, key: string): Promise<string | undefined> {
  const folder = dirname(path);
  const prefix = prefixOf(path, key);
  const ours = prefixOf(path, '').slice(0, -1); // any key
  let best: { readonly file: string; readonly size: number } | undefined;
  for (const name of await readdir(folder)) {
    const owner = /^[0-9a-f]{16}\.([0-9a-f]{8})-(\d+)-\d+\.part$/.exec(name.slice(ours.length));
    if (!name.startsWith(ours) || owner === null) continue;
    const file = join(folder, name);
    if (busy.has(file) || owner[1] !== HOST || isRunning(Number(owner[2]))) continue;
    const { size, mtimeMs } = await stat(file);
    if (name.startsWith(prefix) && size > (best?.size ?? -1)) best = { file, size };
    else if (mtimeMs < Date.now() - KEEP_MS) await rm(file, { force: true });
  }
  return best?.file;
}

/** Another process with this id; our own id without an entry in `busy` is that of an earlier life. */
function isRunning(pid: number): boolean {
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
