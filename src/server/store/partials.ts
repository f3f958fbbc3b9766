/**
 * Uploads that come in blocks and outlive their connections, the sender's process and this one: `<id>.part` holds the
 * bytes that count, `<id>.json` says whose they are and what they will be.
 *
 * A block is written only when it is whole and its digest was right, so the length of the file is the offset to go on
 * from, also after a kill. They are flushed while the next ones arrive (node/writeback.ts): after a power cut the
 * file may be shorter by what was not flushed yet; or, on file systems that extend before they write, hold zeros there,
 * which the digest finds out.
 */
import { createHash, type Hash, randomUUID } from 'node:crypto';
import { type FileHandle, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { syncPath } from '../../node/files.ts';
import { Writeback } from '../../node/writeback.ts';
import { Refusal } from '../domain/refusal.ts';
import { asDiskFull } from './spool.ts';

/** An upload nobody has gone on with for so long is given up. Longer than any night, shorter than a full disk. */
const KEEP_MS = 24 * 3600_000;

/** Uploads that one leaf may have begun: one is the rule, more are leftovers; without a limit they could fill the disk. */
const MAX_PER_LEAF = 4;

/** What an upload is going to be. */
export interface UploadPlan {
  readonly leafId: string;
  readonly byteLength: number;
  /** Lower-case hexadecimal; null when the sender tells it in the end. */
  readonly sha256: string | null;
  readonly round: number | null;
  readonly idempotencyKey: string | null;
  /** Missing in uploads that older programs began. */
  readonly localSteps?: number | null;
}

/** An upload that has begun; the offset grows under its readers. */
export interface PartialUpload {
  readonly id: string;
  readonly plan: UploadPlan;
  readonly path: string;
  /** Bytes that are there and count. */
  readonly offset: number;
}

/** Adds blocks to an upload, through one descriptor. */
export interface BlockWriter {
  /**
   * Adds a block that is known to be right; an interrupted process leaves all of it or a part, a kill none of it undone. Its
   * parts must stay as they are until then.
   *
   * @param digested over all bytes up to the end of the block, where the caller has it anyway; it is kept
   * @throws Refusal `upload-offset` when the upload does not stand at `offset` (any more), `upload-unknown`, `disk-full`
   */
  append(offset: number, block: readonly Uint8Array[], digested?: Hash): Promise<void>;
  close(): Promise<void>;
}

interface State {
  readonly id: string;
  readonly plan: UploadPlan;
  readonly path: string;
  offset: number;
  touchedAt: number;
  /** Over the bytes that count; undefined when they were written by an earlier process. */
  hash: Hash | undefined;
  readonly writeback: Writeback;
  /** Writes one after the other. */
  queue: Promise<unknown>;
}

export interface PartialsOptions {
  readonly now: () => number;
  /** For tests: how a file is opened. */
  readonly openFile?: typeof open | undefined;
}

export class Partials {
  readonly #folder: string;
  readonly #options: PartialsOptions;
  readonly #states = new Map<string, State>();

  private constructor(folder: string, options: PartialsOptions) {
    this.#folder = folder;
    this.#options = options;
  }

  /** Takes up what an earlier process left in the folder, which belongs to this object alone. */
  static async open(folder: string, options: PartialsOptions): Promise<Partials> {
    const partials = new Partials(folder, options);
    const names = await readdir(folder);
    for (const name of names.filter((each) => each.endsWith('.json')))
      await partials.#recover(name.slice(0, -5));
    for (const name of names) {
      if (!partials.#states.has(name.replace(/\.(json|part)$/, '')))
        await rm(join(folder, name), { force: true });
    }
    await partials.#expire();
    return partials;
  }

  /** Begins an upload, or finds the one that was begun with the same plan: its bytes need not come again. */
  async begin(plan: UploadPlan): Promise<PartialUpload> {
    await this.#expire();
    const own = [...this.#states.values()].filter((each) => each.plan.leafId === plan.leafId);
    // Without a digest the sender compares what is there with what it has.
    const known = own.find(
      ({ plan: each }) =>
        (plan.sha256 === null || each.sha256 === plan.sha256) &&
        each.byteLength === plan.byteLength &&
        each.round === plan.round,
    );
    if (known !== undefined) return known;
    own.sort((a, b) => a.touchedAt - b.touchedAt);
    for (const old of own.slice(0, Math.max(0, own.length + 1 - MAX_PER_LEAF))) await this.remove(old.id);
    const id = randomUUID();
    const path = this.#path(id, 'part');
    try {
      await writeFile(path, '', { flag: 'wx', mode: 0o600 });
      await writeFile(this.#path(id, 'json'), JSON.stringify(plan), { flag: 'wx', mode: 0o600, flush: true });
      await syncPath(this.#folder);
    } catch (error) {
      throw asDiskFull(error);
    }
    const state = this.#add(id, plan, 0, this.#options.now());
    state.hash = createHash('sha256');
    return state;
  }

  find(id: string): PartialUpload | undefined {
    return this.#states.get(id);
  }

  /** The digest over the bytes that count, to be gone on with in a copy; and how many they are. */
  digestSoFar(id: string): Promise<{ readonly offset: number; readonly hash: Hash }> {
    return this.#inTurn(id, async (state) => {
      state.hash ??= await hashOf(state.path, state.offset);
      return { offset: state.offset, hash: state.hash.copy() };
    });
  }

  /** Opens an upload for the blocks of one request. The writer must be closed. Throws Refusal `upload-unknown`. */
  async openWriter(id: string): Promise<BlockWriter> {
    const state = this.#states.get(id);
    if (state === undefined) throw gone(id);
    const handle = await (this.#options.openFile ?? open)(state.path, 'r+').catch(rethrowFull);
    return {
      append: (offset, block, digested) =>
        this.#inTurn(id, (turn) => this.#append(turn, handle, offset, block, digested)),
      async close() {
        await state.queue.catch(() => {});
        await state.writeback.idle();
        await handle.close();
      },
    };
  }

  /**
   * Hands the whole file to `work`, under its digest and on the disk. The upload is over when `work` succeeds, and when
   * it fails for a reason for which `isFinal` holds, or the disk does; else it can be finished later.
   */
  async finish<T>(
    id: string,
    work: (path: string, sha256: string) => Promise<T>,
    isFinal: (error: unknown) => boolean,
  ): Promise<T> {
    return this.#inTurn(id, async (state) => {
      await this.#flush(state);
      state.hash ??= await hashOf(state.path, state.offset);
      const sha256 = state.hash.copy().digest('hex');
      let isOver = true;
      try {
        return await work(state.path, sha256);
      } catch (error) {
        isOver = isFinal(error) || !(await isThere(state.path));
        throw error;
      } finally {
        if (isOver) await this.#forget(state);
      }
    });
  }

  /** Gives an upload up. One that is not there is no error. */
  async remove(id: string): Promise<void> {
    const state = this.#states.get(id);
    if (state === undefined) return;
    await state.queue.catch(() => {});
    await this.#forget(state);
  }

  /** When nothing is being written any more. */
  async idle(): Promise<void> {
    for (const state of this.#states.values()) {
      await state.queue.catch(() => {});
      await state.writeback.idle();
    }
  }

  async #append(
    state: State,
    handle: FileHandle,
    offset: number,
    block: readonly Uint8Array[],
    digested: Hash | undefined,
  ): Promise<void> {
    if (state.offset !== offset) throw wrongOffset(state.offset, offset);
    const hash = digested ?? state.hash?.copy();
    let end: number;
    try {
      end = await writeAll(handle, block, offset);
      if (digested === undefined) for (const part of block) hash?.update(part);
    } catch (error) {
      // What was written behind the offset counts no more than before.
      await handle.truncate(offset).catch(() => {});
      throw asDiskFull(error);
    }
    state.writeback.wrote(end - offset, handle);
    Object.assign(state, { hash, offset: end, touchedAt: this.#options.now() });
  }

  /** Brings what is left to the disk. An upload of which a flush has failed is given up. Throws Refusal `disk-full`. */
  async #flush(state: State): Promise<void> {
    const handle = await (this.#options.openFile ?? open)(state.path, 'r+').catch(rethrowFull);
    try {
      await state.writeback.finish(handle);
    } catch (error) {
      // Nobody knows which of its bytes have got there: they have to come again.
      await this.#forget(state);
      throw asDiskFull(error);
    } finally {
      await handle.close();
    }
  }

  #inTurn<T>(id: string, work: (state: State) => Promise<T>): Promise<T> {
    const state = this.#states.get(id);
    if (state === undefined) return Promise.reject(gone(id));
    const turn = state.queue
      .catch(() => {})
      .then(() => {
        // It may have come to its end while this waited.
        if (!this.#states.has(id)) throw gone(id);
        return work(state);
      });
    state.queue = turn;
    return turn;
  }

  async #recover(id: string): Promise<void> {
    try {
      const plan = JSON.parse(await readFile(this.#path(id, 'json'), 'utf8')) as UploadPlan; // written by `begin`
      const { size, mtimeMs } = await stat(this.#path(id, 'part'));
      if (size <= plan.byteLength) this.#add(id, plan, size, mtimeMs);
    } catch {
      // A process that died while it began the upload: nobody was told of it.
    }
  }

  #add(id: string, plan: UploadPlan, offset: number, touchedAt: number): State {
    const state: State = {
      id,
      plan,
      path: this.#path(id, 'part'),
      offset,
      touchedAt,
      hash: undefined,
      writeback: new Writeback(offset),
      queue: Promise.resolve(),
    };
    this.#states.set(id, state);
    return state;
  }

  async #expire(): Promise<void> {
    const oldest = this.#options.now() - KEEP_MS;
    for (const state of this.#states.values()) if (state.touchedAt < oldest) await this.remove(state.id);
  }

  async #forget(state: State): Promise<void> {
    this.#states.delete(state.id);
    await state.writeback.idle();
    await rm(this.#path(state.id, 'json'), { force: true });
    await rm(state.path, { force: true });
  }

  #path(id: string, ending: 'json' | 'part'): string {
    return join(this.#folder, `${id}.${ending}`);
  }
}

function gone(id: string): Refusal {
  return new Refusal('missing', 'upload-unknown', `there is no upload ${id} (any more): begin it again`);
}

function wrongOffset(actual: number, given: number): Refusal {
  const message = `the upload stands at byte ${actual}, not at ${given}`;
  return new Refusal('conflict', 'upload-offset', message, { offset: actual });
}

function rethrowFull(error: unknown): never {
  throw asDiskFull(error);
}

/** Writes parts one behind the other, without joining them before; where they end. */
async function writeAll(handle: FileHandle, parts: readonly Uint8Array[], offset: number): Promise<number> {
  let end = offset;
  for (let left = parts; left.length > 0; ) {
    const { bytesWritten } = await handle.writev(left, end);
    end += bytesWritten;
    left = without(left, bytesWritten);
  }
  return end;
}

/** Parts without their first bytes: as a rule none. */
function without(parts: readonly Uint8Array[], byteLength: number): readonly Uint8Array[] {
  const rest: Uint8Array[] = [];
  let done = byteLength;
  for (const part of parts) {
    if (done < part.byteLength) rest.push(part.subarray(done));
    done = Math.max(0, done - part.byteLength);
  }
  return rest;
}

/** SHA-256 over the first bytes of a file. */
async function hashOf(path: string, byteLength: number): Promise<Hash> {
  const hash = createHash('sha256');
  if (byteLength === 0) return hash;
  const handle = await open(path, 'r');
  try {
    const range = { start: 0, end: byteLength - 1, highWaterMark: 1 << 20, autoClose: false };
    for await (const chunk of handle.createReadStream(range)) hash.update(chunk as Buffer); // no encoding is set
  } finally {
    await handle.close();
  }
  return hash;
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
