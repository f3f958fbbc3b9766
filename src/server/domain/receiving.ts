/** Where an update of a leaf would go now: the run and the open round of its branch, or why there is no place for it. */
import type { PolicyBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import type { Leaf } from './leaves.ts';
import { Refusal } from './refusal.ts';
import { policyOfRound, type Round, roundInProgress } from './rounds.ts';
import { currentRun, type Run } from './runs.ts';
import { isExcluded } from './standing.ts';
import { lockBranch } from './trees.ts';

/** The open round, its run and its policy. */
export interface Place {
  readonly run: Run;
  readonly round: Round;
  readonly policy: PolicyBody;
}

/** @throws Refusal `run-paused`, `run-stopped` */
export async function receivingRun(tx: Database, leaf: Leaf): Promise<Place> {
  const branch = await lockBranch(tx, leaf.branch_id);
  const run = await currentRun(tx, branch);
  const round = run && (await roundInProgress(tx, run.id));
  if (run?.status === 'pause') {
    throw new Refusal('conflict', 'run-paused', `run ${run.number} is paused: upload when it goes on`);
  }
  if (run?.status !== 'start' || round === undefined) {
    throw new Refusal(
      'conflict',
      'run-stopped',
      run === undefined
        ? 'the branch has no run yet'
        : `run ${run.number} is stopped: wait for the next start`,
    );
  }
  return { run, round, policy: await policyOfRound(tx, round) };
}

/** Whether the open round wants anything of the leaf. Throws Refusal `leaf-excluded`, `leaf-not-sampled`. */
export async function checkAsked(tx: Database, { round }: Place, leaf: Leaf): Promise<void> {
  if (await isExcluded(tx, round.id, leaf.id)) {
    throw new Refusal(
      'conflict',
      'leaf-excluded',
      `an operator has left the leaf out of round ${round.number}`,
      {
        round: round.number,
      },
    );
  }
  const drawn = round.sample === null ? undefined : (JSON.parse(round.sample) as string[]); // written by openRound
  if (drawn !== undefined && !drawn.includes(leaf.id)) {
    throw new Refusal(
      'conflict',
      'leaf-not-sampled',
      `round ${round.number} asks other leaves: wait for the next`,
      {
        round: round.number,
      },
    );
  }
}
