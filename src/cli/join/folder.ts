/** The folder in which a leaf works, and what it must remember over restarts. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { WeightsFormat } from '../../tensor/layout.ts';
import type { MetricsMode } from '../../wire/cambium.ts';
import { makeFolder, readState, writeState } from '../state-file.ts';

/** Where a leaf is in the federation: the run, the round (null where the server tells none), the model it began with. */
export interface Place {
  readonly run: number;
  readonly round: number | null;
  readonly aggregationId: string | null;
}

export interface JoinState {
  /** The newest round that has this leaf's update. */
  readonly contributed: Place | null;
  /** The round whose update is in the folder, complete and checked, and not yet sent. */
  readonly pending: Place | null;
  /** Metrics that are not yet sent. */
  readonly metrics: readonly {
    readonly aggregationId: string;
    readonly mode: MetricsMode;
    readonly data: unknown;
  }[];
}

const NOTHING: JoinState = { contributed: null, pending: null, metrics: [] };

const EXTENSIONS: Readonly<Record<WeightsFormat, string>> = {
  npy: 'npy',
  'npy-object': 'npy',
  npz: 'npz',
  safetensors: 'safetensors',
  torch: 'pt',
};

export class JoinFolder {
  /** The global model in the program's format. */
  readonly global: string;
  /** As it was downloaded. */
  readonly download: string;
  /** What the program writes. */
  readonly update: string;
  /** The same, when it has been checked and is in a format that the server takes. */
  readonly ready: string;
  readonly metrics: string;
  readonly #statePath: string;
  #state = NOTHING;

  private constructor(path: string, format: WeightsFormat) {
    const extension = EXTENSIONS[format];
    this.global = join(path, `global.${extension}`);
    this.download = join(path, 'download');
    this.update = join(path, `update.${extension}`);
    this.ready = join(path, 'ready');
    this.metrics = join(path, 'metrics.json');
    this.#statePath = join(path, 'state.json');
  }

  /** Opens or makes the folder. Throws FileError. */
  static async open(path: string, format: WeightsFormat): Promise<JoinFolder> {
    const folder = new JoinFolder(path, format);
    await makeFolder(path);
    // A state that cannot be read costs a round that is trained again, at worst.
    folder.#state = await readState(folder.#statePath, NOTHING);
    // Also finds out now, not after an hour of training, that nothing can be written.
    await folder.remember({});
    return folder;
  }

  get state(): JoinState {
    return this.#state;
  }

  /** Changes the state; it is on the disk when this ends. */
  async remember(change: Partial<JoinState>): Promise<void> {
    this.#state = { ...this.#state, ...change };
    await writeState(this.#statePath, this.#state);
  }

  /** Removes what an earlier round left. */
  async clear(...paths: readonly string[]): Promise<void> {
    for (const path of paths) await rm(path, { force: true, recursive: true });
  }
}
