import type { RunStatus } from '../wire/cambium.ts';

/**
 * What a server speaks: `cambium`, our own API; and the generations of BranchKey, `login` (clients 2.0 to 2.2), `basic`
 * (2.3 to 2.8.0) and `bearer` (2.7 and later).
 */
export type Generation = 'cambium' | 'login' | 'basic' | 'bearer';

/** Weight files that can be updates: they have room for the weighting. */
export const UPDATE_FORMATS = ['npy-object', 'npz', 'safetensors'] as const;

export type UpdateFormat = (typeof UPDATE_FORMATS)[number];

/** The one format that servers of a generation take; ours take all. */
export function requiredFormat(generation: Generation): UpdateFormat | undefined {
  if (generation === 'cambium') return undefined;
  return generation === 'bearer' ? 'npz' : 'npy-object';
}

/** How a run stands, as the server told it; null where its generation does not tell. */
export interface RunDetails {
  readonly runStatus: RunStatus;
  readonly runNumber: number;
  /** The open round, from 1; 0 when no run is going. */
  readonly round: number | null;
  /** Updates accepted in the open round, and how many close it. */
  readonly updates: number | null;
  readonly aggregationTarget: number | null;
  /** The newest aggregation of the run, null before the first. */
  readonly aggregationId: string | null;
  /** The newest round of the run that no aggregation will come of; null where there is none. */
  readonly givenUpRound: number | null;
}
