/**
 * Runs: `start` ⇄ `pause` → `stop`, at most one unstopped run of a branch, numbered from 1. A pause keeps the open round
 * and refuses uploads, a stop discards it. A round that has closed already is finished all the same.
 */
import { randomUUID } from 'node:crypto';
import type { Selectable } from 'kysely';
import type { RunBody, RunStatus } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import type { BranchesTable, RunsTable } from '../store/schema.ts';
import type { Domain } from './domain.ts';
import { writeNotice } from './notices.ts';
import { Refusal } from './refusal.ts';
import { discardRound, openRound, roundInProgress } from './rounds.ts';
import { lockBranch } from './trees.ts';

export type Run = Selectable<RunsTable>;

/** The run that was started last; undefined before the first. */
export async function currentRun(
  tx: Database,
  branch: Pick<Selectable<BranchesTable>, 'run_id'>,
): Promise<Run | undefined> {
  if (branch.run_id === null) return undefined;
  return tx.selectFrom('runs').selectAll().where('id', '=', branch.run_id).executeTakeFirst();
}

/**
 * Starts, pauses or stops the run of a branch. Asking for the status that it has changes nothing.
 *
 * @throws Refusal `branch-unknown`, `run-stopped` when there is no run to pause
 */
export async function changeRun(domain: Domain, branchId: string, status: RunStatus): Promise<RunBody> {
  const { changedRound, removed } = await domain.db.transaction().execute(async (tx) => {
    const branch = await lockBranch(tx, branchId);
    const run = await currentRun(tx, branch);
    const present = run?.status ?? 'stop';
    if (present === status) return { changedRound: undefined, removed: [] };
    if (status === 'pause' && present === 'stop') {
      throw new Refusal('conflict', 'run-stopped', 'there is no run to pause: start one first');
    }
    if (status === 'start' && present === 'stop') {
      const next = await startRun(tx, branchId, (run?.number ?? 0) + 1, domain.now());
      return { changedRound: next, removed: [] };
    }
    const { id, number } = run!; // only a branch without a run has nothing but `stop`
    const now = domain.now();
    await tx
      .updateTable('runs')
      .set({ status, ...(status === 'stop' ? { stopped_at: now } : {}) })
      .where('id', '=', id)
      .execute();
    const round = await roundInProgress(tx, id);
    const removed = status === 'stop' && round !== undefined ? await discardRound(tx, round.id, now) : [];
    await writeRunNotice(tx, branchId, id, status, number, status === 'stop' ? 0 : (round?.number ?? 0), now);
    return { changedRound: round?.id, removed };
  });
  for (const id of removed) await domain.blobs.remove(id);
  if (changedRound !== undefined) {
    domain.signals.emit(`notices:${branchId}`);
    domain.signals.emit(`rounds:${branchId}`, changedRound);
  }
  return getRun(domain, branchId);
}

/**
 * Undoes what the first update of a run has fixed, because it was the wrong one: its round is given up, the next one is
 * open, and the next update fixes the contract anew. Once a round has closed the model is fixed for good.
 *
 * @throws Refusal `branch-unknown`, `run-stopped`, `model-fixed`
 */
export async function resetModel(domain: Domain, branchId: string): Promise<RunBody> {
  const { given, removed } = await domain.db.transaction().execute(async (tx) => {
    const branch = await lockBranch(tx, branchId);
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
      .limit(1)
      .executeTakeFirst();
    if (closed !== undefined) {
      throw new Refusal(
        'conflict',
        'model-fixed',
        `round ${closed.number} has closed with this model: stop the run and start another one`,
      );
    }
    const now = domain.now();
    const removed = await discardRound(tx, round.id, now);
    await openRound(tx, branchId, run.id, round.number + 1, now);
    await tx.updateTable('runs').set({ contract: null }).where('id', '=', run.id).execute();
    await writeRunNotice(tx, branchId, run.id, run.status, run.number, round.number + 1, now);
    return { given: round.id, removed };
  });
  for (const id of removed) await domain.blobs.remove(id);
  domain.signals.emit(`notices:${branchId}`);
  domain.signals.emit(`rounds:${branchId}`, given);
  return getRun(domain, branchId);
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
        .executeTakeFirstOrThrow());
    const newest =
      run &&
      (await tx
        .selectFrom('rounds')
        .select('aggregation_id')
        .where('run_id', '=', run.id)
        .where('status', '=', 'done')
        .orderBy('number', 'desc')
        .limit(1)
        .executeTakeFirst());
    return {
      branch_id: branchId,
      run_status: run?.status ?? 'stop',
      run_number: run?.number ?? 0,
      round: round?.number ?? 0,
      updates: Number(updates?.count ?? 0),
      aggregation_target: branch.aggregation_target,
      aggregation_id: newest?.aggregation_id ?? null,
    };
  });
}

/** Opens run and round; the id of the round is returned. */
async function startRun(tx: Database, branchId: string, number: number, now: number): Promise<string> {
  const id = randomUUID();
  await tx
    .insertInto('runs')
    .values({
      id,
      branch_id: branchId,
      number,
      status: 'start',
      contract: null,
      started_at: now,
      stopped_at: null,
    })
    .execute();
  await tx.updateTable('branches').set({ run_id: id }).where('id', '=', branchId).execute();
  const round = await openRound(tx, branchId, id, 1, now);
  await writeRunNotice(tx, branchId, id, 'start', number, 1, now);
  return round;
}

function writeRunNotice(
  tx: Database,
  branchId: string,
  runId: string,
  status: RunStatus,
  run: number,
  round: number,
  now: number,
): Promise<void> {
  return writeNotice(
    tx,
    branchId,
    runId,
    { message_type: 'run_status', body: { run_status: status }, run, round },
    now,
  );
}
