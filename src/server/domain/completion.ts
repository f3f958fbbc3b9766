/**
 * What makes a round done, in one transaction: the row of its aggregation, the notice to all leaves if it is the newest of
 * its run, and the end of what nobody needs any more.
 */
import type { StrategyBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import { writeNotice } from './notices.ts';
import { policyOf } from './policy.ts';
import { giveUpUpdates, type Round } from './rounds.ts';

/** An aggregation whose blob is durable. */
export interface Completion {
  readonly leaves: number;
  readonly totalWeighting: number;
  readonly byteLength: number;
  readonly sha256: string;
  /** Blob of the optimiser's state that belongs to it. */
  readonly stateId: string | null;
  /** What was used. */
  readonly strategy: StrategyBody;
  /** When this server took up the work, in milliseconds since the epoch; null where that stands in the round already. */
  readonly startedAt: number | null;
  /** Of the aggregation by this server. */
  readonly seconds: number | null;
  readonly bytesRead: number | null;
  /** What it took to bring it to the disk. */
  readonly writeSeconds: number | null;
}

/**
 * Marks a round as done, under the id that was fixed when it closed; inside a transaction.
 *
 * @param keepUpdates for so many rounds after its own an update is kept
 * @returns blobs to remove once the transaction is committed
 */
export async function completeRound(
  tx: Database,
  round: Round,
  completion: Completion,
  keepUpdates: number,
  now: number,
): Promise<string[]> {
  const id = round.aggregation_id!; // it is closed
  const { leaves, totalWeighting, byteLength, sha256, stateId, strategy } = completion;
  const { startedAt, seconds, bytesRead, writeSeconds } = completion;
  const run = await tx
    .selectFrom('runs')
    .select('number')
    .where('id', '=', round.run_id)
    .executeTakeFirstOrThrow();
  await tx
    .insertInto('aggregations')
    .values({
      id,
      round_id: round.id,
      branch_id: round.branch_id,
      leaves,
      total_weighting: totalWeighting,
      byte_length: byteLength,
      sha256,
      created_at: now,
      state_id: stateId,
      removed_at: null,
    })
    .execute();
  await tx
    .updateTable('rounds')
    .set({
      status: 'done',
      ...(startedAt === null ? {} : { started_at: startedAt }),
      total_weighting: totalWeighting,
      aggregation_seconds: seconds,
      strategy: JSON.stringify(strategy),
      bytes_read: bytesRead,
      write_seconds: writeSeconds,
      done_at: now,
      closes_at: null, // of one that waited for the server above
    })
    .where('id', '=', round.id)
    .execute();
  // Leaves take what they hear of last for the model to go on from: an older round that was retried is for the record.
  const isNewest = !(await hasLaterDone(tx, round));
  if (isNewest) {
    await writeNotice(
      tx,
      round.branch_id,
      round.run_id,
      {
        message_type: 'aggregation_status',
        body: { aggregation_id: id },
        aggregation_id: id,
        run: run.number,
        round: round.number,
      },
      now,
    );
  }
  return [
    ...(isNewest ? await forgetStates(tx, round.branch_id, id) : []),
    ...(await prune(tx, round, keepUpdates, now)),
    ...(await pruneHistory(tx, round, now)),
  ];
}

async function hasLaterDone(tx: Database, { run_id, number }: Round): Promise<boolean> {
  const later = await tx
    .selectFrom('rounds')
    .select('id')
    .where('run_id', '=', run_id)
    .where('status', '=', 'done')
    .where('number', '>', number)
    .limit(1)
    .executeTakeFirst();
  return later !== undefined;
}

/**
 * Gives up the states of optimisers of a branch but for that of the newest aggregation, from which the next round goes on.
 *
 * @returns blobs to remove once the transaction is committed
 */
export async function forgetStates(tx: Database, branchId: string, newest = ''): Promise<string[]> {
  const old = await tx
    .selectFrom('aggregations')
    .select(['id', 'state_id'])
    .where('branch_id', '=', branchId)
    .where('state_id', 'is not', null)
    .where('id', '!=', newest)
    .execute();
  for (const { id } of old) {
    await tx.updateTable('aggregations').set({ state_id: null }).where('id', '=', id).execute();
  }
  return old.flatMap(({ state_id }) => state_id ?? []);
}

/** Gives up aggregations beyond those that the branch's policy keeps, the newest first, and means of branches with their rounds. */
async function pruneHistory(tx: Database, { branch_id }: Round, now: number): Promise<string[]> {
  const branch = await tx
    .selectFrom('branches')
    .selectAll()
    .where('id', '=', branch_id)
    .executeTakeFirstOrThrow();
  const { keep_aggregations: keep } = policyOf(branch, branch.aggregation_target);
  if (keep === null) return [];
  const kept = await tx
    .selectFrom('aggregations')
    .innerJoin('rounds', 'rounds.id', 'aggregations.round_id')
    .innerJoin('runs', 'runs.id', 'rounds.run_id')
    .select(['aggregations.id', 'aggregations.round_id'])
    .where('aggregations.branch_id', '=', branch_id)
    .where('aggregations.removed_at', 'is', null)
    .orderBy('runs.number', 'desc')
    .orderBy('rounds.number', 'desc')
    .execute();
  const removed: string[] = [];
  for (const { id, round_id } of kept.slice(keep)) {
    await tx.updateTable('aggregations').set({ removed_at: now }).where('id', '=', id).execute();
    const averages = await tx
      .deleteFrom('averages')
      .where('round_id', '=', round_id)
      .returning('averages.id')
      .execute();
    removed.push(id, ...averages.map((average) => average.id));
  }
  return removed;
}

/** Gives up the updates of rounds that are done and older than what is kept, those of earlier runs too. */
async function prune(tx: Database, newest: Round, keepUpdates: number, now: number): Promise<string[]> {
  const old = await tx
    .selectFrom('updates')
    .crossJoin('rounds') // in this order: what is kept is little
    .whereRef('rounds.id', '=', 'updates.round_id')
    .select('rounds.id')
    .distinct()
    .where('updates.removed_at', 'is', null)
    .where('rounds.branch_id', '=', newest.branch_id)
    .where('rounds.status', '=', 'done')
    .where(({ or, eb }) =>
      or([eb('rounds.run_id', '!=', newest.run_id), eb('rounds.number', '<=', newest.number - keepUpdates)]),
    )
    .execute();
  return giveUpUpdates(
    tx,
    old.map((round) => round.id),
    now,
  );
}
