/**
 * Runs: `start` ⇄ `pause` → `stop`, at most one unstopped run of a branch, numbered from 1. A pause keeps the open round
 * and refuses uploads, a stop discards it. A round that has closed already is finished all the same.
 */
import { randomUUID } from 'node:crypto';
import type { Selectable } from 'kysely';
import type { RunBody, RunRecord, RunStatus } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import { prepared } from '../store/prepared.ts';
import type { BranchesTable, RunsTable } from '../store/schema.ts';
import type { Contract } from './contract.ts';
import type { Domain } from './domain.ts';
import { writeRunNotice } from './notices.ts';
import { checkPolicy, policyOf } from './policy.ts';
import { Refusal } from './refusal.ts';
import { activeLeaves, discardRound, followSettlement, openRound, roundInProgress } from './rounds.ts';
import { type Branch, branchesBelow, lockBranch, rootOf } from './trees.ts';

export type Run = Selectable<RunsTable>;

/** The run that was started last; undefined before the first. */
export async function currentRun(
  tx: Database,
  branch: Pick<Selectable<BranchesTable>, 'run_id'>,
): Promise<Run | undefined> {
  if (branch.run_id === null) return undefined;
  const [run] = await runById(tx, { id: branch.run_id });
  return run;
}

const runById = prepared((db, { id }: { readonly id: string }) =>
  db.selectFrom('runs').selectAll().where('id', '=', id),
);

/**
 * Starts, pauses or stops the run of a branch. Asking for the status that it has changes nothing.
 *
 * @throws Refusal `branch-unknown`, `branch-below` (its run is that of its root), `run-stopped` when there is no run to
 *   pause, `policy-minimum-leaves`
 */
export async function changeRun(domain: Domain, branchId: string, status: RunStatus): Promise<RunBody> {
  const { changedRound, removed } = await domain.db.transaction().execute(async (tx) => {
    const branch = await rootBranch(tx, branchId);
    const run = await currentRun(tx, branch);
    const present = run?.status ?? 'stop';
    const now = domain.now();
    if (present === status) return { changedRound: undefined, removed: [] };
    if (status === 'pause' && present === 'stop') {
      throw new Refusal('conflict', 'run-stopped', 'there is no run to pause: start one first');
    }
    if (status === 'start' && present === 'stop') {
      return { changedRound: (await startRun(tx, branch, run, null, now)).roundId, removed: [] };
    }
    const { id, number, paused_at } = run!; // only a branch without a run has nothing but `stop`
    await tx
      .updateTable('runs')
      .set({
        status,
        paused_at: status === 'pause' ? now : null,
        ...(status === 'stop' ? { stopped_at: now } : {}),
      })
      .where('id', '=', id)
      .execute();
    const round = await roundInProgress(tx, id);
    if (status === 'start' && round !== undefined && round.closes_at !== null) {
      const closes_at = round.closes_at + now - (paused_at ?? now); // time stood still
      await tx.updateTable('rounds').set({ closes_at }).where('id', '=', round.id).execute();
    }
    const removed = status === 'stop' && round !== undefined ? await discardRound(tx, round.id, now) : [];
    const places =
      status === 'stop' ? { round: 0, givenUpRound: round?.number } : { round: round?.number ?? 0 };
    await writeRunNotice(tx, branchId, { id, number, status, ...places }, now);
    return { changedRound: round?.id, removed };
  });
  if (changedRound !== undefined) {
    await followSettlement(domain, branchId, changedRound, { isClosed: false, removed });
  }
  return getRun(domain, branchId);
}

/**
 * Undoes what the first update of a run has fixed, because it was the wrong one: its round is given up, the next one is
 * open, and the next update fixes the contract anew. What a run has started with, or a round has closed with, is fixed for good.
 *
 * @throws Refusal `branch-unknown`, `run-stopped`, `model-fixed`
 */
export async function resetModel(domain: Domain, branchId: string): Promise<RunBody> {
  const { given, removed } = await domain.db.transaction().execute(async (tx) => {
    const branch = await rootBranch(tx, branchId);
    const run = await currentRun(tx, branch);
    const round = run && (await roundInProgress(tx, run.id));
    if (run === undefined || round === undefined) {
      throw new Refusal('conflict', 'run-stopped', 'there is no run whose model could be reset');
    }
    const closed = await tx
      .selectFrom('rounds')
      .select('number')
      .where('run_id', '=', run.id)
      .where('status', 'not in', ['open', 'discarded'])
      .orderBy('number')
      .limit(1)
      .executeTakeFirst();
    if (closed !== undefined) {
      throw new Refusal(
        'conflict',
        'model-fixed',
        `${closed.number === 0 ? 'the run has started with this model' : `round ${closed.number} has closed with this model`}: stop the run and start another one`,
      );
    }
    const now = domain.now();
    const removed = await discardRound(tx, round.id, now);
    await openRound(tx, branchId, run.id, round.number + 1, now);
    await tx.updateTable('runs').set({ contract: null }).where('id', '=', run.id).execute();
    const { id, number, status } = run;
    const places = { round: round.number + 1, givenUpRound: round.number };
    await writeRunNotice(tx, branchId, { id, number, status, ...places }, now);
    return { given: round.id, removed };
  });
  await followSettlement(domain, branchId, given, { isClosed: false, removed });
  return getRun(domain, branchId);
}

/** A query for the newest round of a run, to be narrowed. */
function newestOf(tx: Database, runId: string) {
  return tx.selectFrom('rounds').where('run_id', '=', runId).orderBy('number', 'desc').limit(1);
}

/** @throws Refusal `branch-unknown` */
export async function getRun(domain: Domain, branchId: string): Promise<RunBody> {
  return domain.db.transaction().execute(async (tx) => {
    const branch = await lockBranch(tx, branchId);
    const run = await currentRun(tx, branch);
    const round = run && run.status !== 'stop' ? await roundInProgress(tx, run.id) : undefined;
    const updates =
      round &&
      (await tx
        .selectFrom('updates')
        .select(({ fn }) => fn.countAll<number | string>().as('count'))
        .where('round_id', '=', round.id)
        .where('left_out', 'is', null)
        .executeTakeFirstOrThrow());
    const newest =
      run &&
      (await newestOf(tx, run.id).select('aggregation_id').where('status', '=', 'done').executeTakeFirst());
    // A failed round whose aggregation had begun may still have it, by a retry.
    const givenUp =
      run &&
      (await newestOf(tx, run.id)
        .select('number')
        .where('status', 'in', ['discarded', 'failed'])
        .where(({ or, eb }) => or([eb('status', '=', 'discarded'), eb('started_at', 'is', null)]))
        .executeTakeFirst());
    return {
      branch_id: branchId,
      run_status: run?.status ?? 'stop',
      run_number: run?.number ?? 0,
      round: round?.number ?? 0,
      updates: Number(updates?.count ?? 0),
      aggregation_target: branch.aggregation_target,
      aggregation_id: newest?.aggregation_id ?? null,
      given_up_round: givenUp?.number ?? null,
      sample: round?.sample == null ? null : (JSON.parse(round.sample) as string[]), // written by openRound
      closes_at: round?.closes_at ?? null,
    };
  });
}

/** The runs of a branch, newest first. Throws Refusal `branch-unknown`. */
export async function listRuns(domain: Domain, branchId: string): Promise<RunRecord[]> {
  const root = await rootOf(domain.db, await lockBranch(domain.db, branchId));
  const runs = await domain.db
    .selectFrom('runs')
    .select(['number as run_number', 'status as run_status', 'started_at', 'stopped_at'])
    .select(({ selectFrom, fn }) => {
      const done = selectFrom('rounds')
        .whereRef('run_id', '=', 'runs.id')
        .where('rounds.status', '=', 'done');
      return [
        done.where('rounds.number', '>', 0).select(fn.countAll<number | string>().as('count')).as('rounds'),
        done.orderBy('rounds.number', 'desc').limit(1).select('aggregation_id').as('aggregation_id'),
      ];
    })
    .where('branch_id', '=', root.id)
    .orderBy('number', 'desc')
    .execute();
  return runs.map((run) => ({ ...run, rounds: Number(run.rounds) }));
}

/** The branch, which must be a root. Throws Refusal `branch-unknown`, `branch-below`. */
export async function rootBranch(tx: Database, branchId: string): Promise<Branch> {
  const branch = await lockBranch(tx, branchId);
  if (branch.parent_id === null) return branch;
  const root = await rootOf(tx, branch);
  throw new Refusal('conflict', 'branch-below', `the run of this branch is that of its root ${root.id}`, {
    root_id: root.id,
  });
}

/** Opens run and round. @param contract of an initial model. Throws Refusal `policy-minimum-leaves`. */
export async function startRun(
  tx: Database,
  branch: Branch,
  last: Run | undefined,
  contract: Contract | null,
  now: number,
): Promise<{ readonly runId: string; readonly roundId: string; readonly number: number }> {
  checkPolicy(policyOf(branch, branch.aggregation_target), (await activeLeaves(tx, branch.id)).length);
  const id = randomUUID();
  const number = (last?.number ?? 0) + 1;
  await tx
    .insertInto('runs')
    .values({
      id,
      branch_id: branch.id,
      number,
      status: 'start',
      contract: contract === null ? null : JSON.stringify(contract),
      started_at: now,
      stopped_at: null,
      paused_at: null,
    })
    .execute();
  for (const below of await branchesBelow(tx, branch.id)) {
    await tx.updateTable('branches').set({ run_id: id }).where('id', '=', below.id).execute();
  }
  const roundId = await openRound(tx, branch.id, id, 1, now);
  await writeRunNotice(tx, branch.id, { id, number, status: 'start', round: 1 }, now);
  return { runId: id, roundId, number };
}
