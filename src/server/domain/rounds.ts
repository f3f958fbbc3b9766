/**
 * Rounds: open → aggregating → done | failed; an open one that its run's stop ends, and a failed one that an operator
 * gives up, become discarded. A run has exactly one open round as long as it is not stopped.
 */
import { randomUUID } from 'node:crypto';
import type { Selectable } from 'kysely';
import type { ErrorBody, RoundBody, UpdateBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import type { RoundsTable } from '../store/schema.ts';
import type { Domain } from './domain.ts';
import { Refusal, unknown } from './refusal.ts';
import { lockBranch } from './trees.ts';

export type Round = Selectable<RoundsTable>;

/** The newest rounds that a list shows unless asked otherwise. */
const LIST_LIMIT = 1000;

/** Opens a round; its id is returned. */
export async function openRound(
  tx: Database,
  branchId: string,
  runId: string,
  number: number,
  now: number,
): Promise<string> {
  const id = randomUUID();
  await tx
    .insertInto('rounds')
    .values({
      id,
      run_id: runId,
      branch_id: branchId,
      number,
      status: 'open',
      aggregation_id: null,
      total_weighting: null,
      aggregation_seconds: null,
      failure: null,
      opened_at: now,
      closed_at: null,
      done_at: null,
    })
    .execute();
  return id;
}

/** The open round of a run. */
export function roundInProgress(tx: Database, runId: string): Promise<Round | undefined> {
  return tx
    .selectFrom('rounds')
    .selectAll()
    .where('run_id', '=', runId)
    .where('status', '=', 'open')
    .executeTakeFirst();
}

/**
 * Closes an open round: its members are frozen, the aggregation has its id, and the next round is open. The aggregation
 * itself is done afterwards, as often as it takes, under that id.
 */
export async function closeRound(tx: Database, round: Round, now: number): Promise<void> {
  await tx
    .updateTable('rounds')
    .set({ status: 'aggregating', aggregation_id: randomUUID(), closed_at: now })
    .where('id', '=', round.id)
    .execute();
  await openRound(tx, round.branch_id, round.run_id, round.number + 1, now);
}

/** Gives up a round and its updates; returns the blobs to remove once the transaction is committed. */
export async function discardRound(tx: Database, roundId: string, now: number): Promise<string[]> {
  await tx
    .updateTable('rounds')
    .set({ status: 'discarded', closed_at: now })
    .where('id', '=', roundId)
    .execute();
  return giveUpUpdates(tx, [roundId], now);
}

/** Marks the updates of rounds as removed; returns the blobs to remove once the transaction is committed. */
export async function giveUpUpdates(
  tx: Database,
  roundIds: readonly string[],
  now: number,
): Promise<string[]> {
  if (roundIds.length === 0) return [];
  const rows = await tx
    .selectFrom('updates')
    .select('id')
    .where('round_id', 'in', roundIds)
    .where('removed_at', 'is', null)
    .execute();
  await tx
    .updateTable('updates')
    .set({ removed_at: now })
    .where('round_id', 'in', roundIds)
    .where('removed_at', 'is', null)
    .execute();
  return rows.map((row) => row.id);
}

/**
 * Lets a failed round be aggregated again, under the same id.
 *
 * @returns the round's branch, whose aggregations are to be taken up
 * @throws Refusal `round-unknown`, `round-not-failed`
 */
export async function retryRound(domain: Domain, id: string): Promise<RoundBody> {
  const branchId = await domain.db.transaction().execute(async (tx) => {
    const round = await failedRound(tx, id);
    await tx
      .updateTable('rounds')
      .set({ status: 'aggregating', failure: null, done_at: null })
      .where('id', '=', id)
      .execute();
    return round.branch_id;
  });
  domain.signals.emit(`rounds:${branchId}`, id);
  return getRound(domain.db, id);
}

/** @throws Refusal `round-unknown`, `round-not-failed` */
export async function giveUpRound(domain: Domain, id: string): Promise<RoundBody> {
  const { branchId, removed } = await domain.db.transaction().execute(async (tx) => {
    const round = await failedRound(tx, id);
    return { branchId: round.branch_id, removed: await discardRound(tx, id, domain.now()) };
  });
  for (const blob of removed) await domain.blobs.remove(blob);
  domain.signals.emit(`rounds:${branchId}`, id);
  return getRound(domain.db, id);
}

/** @throws Refusal `round-unknown` */
export async function getRound(db: Database, id: string): Promise<RoundBody> {
  const [round] = await roundBodies(db, (query) => query.where('rounds.id', '=', id).limit(1));
  if (round === undefined) throw unknown('round', id);
  return round;
}

/** The rounds of a branch, newest first. Throws Refusal `branch-unknown`. */
export async function listRounds(
  db: Database,
  branchId: string,
  options: { readonly run?: number | undefined; readonly limit?: number | undefined } = {},
): Promise<RoundBody[]> {
  await lockBranch(db, branchId);
  return roundBodies(db, (query) => {
    const ofBranch = query.where('rounds.branch_id', '=', branchId).limit(options.limit ?? LIST_LIMIT);
    return options.run === undefined ? ofBranch : ofBranch.where('runs.number', '=', options.run);
  });
}

async function failedRound(tx: Database, id: string): Promise<Round> {
  const round = await tx.selectFrom('rounds').selectAll().where('id', '=', id).executeTakeFirst();
  if (round === undefined) throw unknown('round', id);
  await lockBranch(tx, round.branch_id);
  if (round.status !== 'failed') {
    throw new Refusal('conflict', 'round-not-failed', `the round is ${round.status}, not failed`);
  }
  return round;
}

function roundsWithRun(db: Database) {
  return db
    .selectFrom('rounds')
    .innerJoin('runs', 'runs.id', 'rounds.run_id')
    .selectAll('rounds')
    .select('runs.number as run_number')
    .orderBy('runs.number', 'desc')
    .orderBy('rounds.number', 'desc');
}

type RoundQuery = ReturnType<typeof roundsWithRun>;

async function roundBodies(db: Database, narrow: (query: RoundQuery) => RoundQuery): Promise<RoundBody[]> {
  const rounds = await narrow(roundsWithRun(db)).execute();
  if (rounds.length === 0) return [];
  const updates = await db
    .selectFrom('updates')
    .innerJoin('leaves', 'leaves.id', 'updates.leaf_id')
    .select([
      'updates.round_id',
      'updates.id as file_id',
      'updates.leaf_id',
      'leaves.name as leaf_name',
      'updates.weighting',
      'updates.byte_length',
      'updates.sha256',
      'updates.received_at',
    ])
    .where(
      'updates.round_id',
      'in',
      rounds.map((round) => round.id),
    )
    .orderBy('updates.received_at')
    .orderBy('updates.id')
    .execute();
  const byRound = new Map<string, UpdateBody[]>(rounds.map((round) => [round.id, []]));
  for (const { round_id, ...update } of updates) byRound.get(round_id)!.push(update);
  return rounds.map((round) => ({
    id: round.id,
    branch_id: round.branch_id,
    run_number: round.run_number,
    round: round.number,
    status: round.status,
    updates: byRound.get(round.id)!,
    aggregation_id: round.aggregation_id,
    total_weighting: round.total_weighting,
    aggregation_seconds: round.aggregation_seconds,
    opened_at: round.opened_at,
    closed_at: round.closed_at,
    done_at: round.done_at,
    failure: round.failure === null ? null : (JSON.parse(round.failure) as ErrorBody), // written by Aggregator
  }));
}
