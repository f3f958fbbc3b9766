/** What the demo and its processes say to one another. Sent by structured clone, so bytes stay bytes. */
import type { PackedError } from '../../aggregate/packed-errors.ts';
import type { Samples } from './digits.ts';

/** What both kinds of process need: everyone starts from the weights of the same seed. */
interface Training {
  readonly seed: number;
  readonly rounds: number;
  readonly samples: Samples;
  readonly heldOut: Samples;
}

/** Be a leaf: take part in the federation and, beside it, see how far the same training gets alone. */
export interface LeafTask extends Training {
  readonly type: 'leaf';
  /** Tells the leaves' random orders apart. */
  readonly stream: number;
  /** Holds `credentials.json`; updates and global models are kept here. */
  readonly folder: string;
}

/** Train on all data in one place, as many epochs as the leaves. */
export interface CentralTask extends Training {
  readonly type: 'central';
}

export type Task = LeafTask | CentralTask;

/** A round of a leaf is over, its metrics are at the server. */
interface LeafRound {
  readonly type: 'leaf-round';
  readonly round: number;
  readonly aggregationId: string;
}

interface CentralRound {
  readonly type: 'central-round';
  readonly round: number;
  /** Of the model trained on everything, on held-out digits, in [0, 1]. */
  readonly accuracy: number;
}

export interface Failed {
  readonly type: 'failed';
  readonly error: PackedError;
}

export type Message = LeafRound | CentralRound | Failed;
