/** The folder of a relay: the files on their way, and the little that the servers cannot tell. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { makeFolder, readState, writeState } from '../state-file.ts';

export interface RelayState {
  /** Which run above a run below belongs to, by their numbers: sums of one never get into another. */
  readonly pair: { readonly below: number; readonly above: number } | null;
  /** The aggregation that was handed down last. */
  readonly handed: string | null;
}

const NOTHING: RelayState = { pair: null, handed: null };

export class RelayFolder {
  /** The sum that goes up. */
  readonly sum: string;
  /** What comes down. */
  readonly aggregation: string;
  readonly #statePath: string;
  #state = NOTHING;

  private constructor(path: string) {
    this.sum = join(path, 'sum.partial.safetensors');
    this.aggregation = join(path, 'aggregation.npy');
    this.#statePath = join(path, 'state.json');
  }

  /** Opens or makes the folder. Throws FileError. */
  static async open(path: string): Promise<RelayFolder> {
    const folder = new RelayFolder(path);
    await makeFolder(path);
    folder.#state = await readState(folder.#statePath, NOTHING);
    await folder.remember({}); // finds out now that nothing can be written
    return folder;
  }

  get state(): RelayState {
    return this.#state;
  }

  /** Changes the state; it is on the disk when this ends. */
  async remember(change: Partial<RelayState>): Promise<void> {
    this.#state = { ...this.#state, ...change };
    await writeState(this.#statePath, this.#state);
  }

  /** Removes the files of a round that is over. */
  async clear(): Promise<void> {
    for (const path of [this.sum, this.aggregation]) await rm(path, { force: true });
  }
}
