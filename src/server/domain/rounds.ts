/**
 * Rounds: open → aggregating → done | failed, with a server above open → aggregating → summed → done. An open one that its
 * run's stop ends, or that an operator gives up, and a failed one that is given up become discarded; an open one whose time
 * is over with too few is failed. A run has exactly one open round as long as it is not stopped.
 */
import { randomUUID } from 'node:crypto';
import type { Selectable } from 'kysely';
import type { PolicyBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import { prepared } from '../store/prepared.ts';
import type { RoundsTable } from '../store/schema.ts';
import type { Contract } from './contract.ts';
import type { Domain } from './domain.ts';
import { announce, writeRunNotice } from './notices.ts';
import { drawLeaves, leastOf, policyOf } from './policy.ts';
import { Refusal } from './refusal.ts';
import type { Standing } from './standing.ts';
import { branchesBelow, lockBranch } from './trees.ts';

export type Round = Selectable<RoundsTable>;

/** Opens a round of a root branch under its present policy; its id is returned. */
export async function openRound(
  tx: Database,
  branchId: string,
  runId: string,
  number: number,
  now: number,
): Promise<string> {
  const id = randomUUID();
  const terms = await termsOf(tx, branchId, runId, number, now);
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
      started_at: null,
      strategy: null,
      bytes_read: null,
      write_seconds: null,
      minimum_at: null,
      ...terms,
    })
    .execute();
  return id;
}

/** What a round takes from its branch's policy when it opens. */
export async function termsOf(
  tx: Database,
  branchId: string,
  runId: string,
  number: number,
  now: number,
): Promise<Pick<Round, 'policy' | 'sample' | 'closes_at'>> {
  const branch = await lockBranch(tx, branchId);
  const policy = policyOf(branch, branch.aggregation_target);
  const { sample, deadline_ms } = policy;
  return {
    policy: JSON.stringify(policy),
    closes_at: await endAfter(tx, runId, deadline_ms, now),
    sample:
      sample === null
        ? null
        : JSON.stringify(
            drawLeaves(await activeLeaves(tx, branchId), sample.leaves, sample.seed ?? runId, number),
          ),
  };
}

/** When a time that begins now is over, as the run counts it: whatever begins in a pause begins with its end. */
async function endAfter(tx: Database, runId: string, ms: number | null, now: number): Promise<number | null> {
  if (ms === null) return null;
  const run = await tx
    .selectFrom('runs')
    .select('paused_at')
    .where('id', '=', runId)
    .executeTakeFirstOrThrow();
  return (run.paused_at ?? now) + ms;
}

/** Ids of the leaves of a branch and of all branches below it that have not been revoked. */
export async function activeLeaves(tx: Database, branchId: string): Promise<string[]> {
  const branches = await branchesBelow(tx, branchId);
  const rows = await tx
    .selectFrom('leaves')
    .select('id')
    .where(
      'branch_id',
      'in',
      branches.map((branch) => branch.id),
    )
    .where('revoked_at', 'is', null)
    .execute();
  return rows.map((row) => row.id);
}

/** The policy that a round was opened with. */
export async function policyOfRound(tx: Database, round: Round): Promise<PolicyBody> {
  if (round.policy !== null) return policyOf(round, 0); // the target stands in it
  const branch = await tx
    .selectFrom('branches')
    .select(['aggregation_target'])
    .where('id', '=', round.branch_id)
    .executeTakeFirstOrThrow();
  return policyOf(round, branch.aggregation_target);
}

/** The contract of the run of a round that has an update. */
export async function contractOfRound(tx: Database, round: Round): Promise<Contract> {
  const run = await tx
    .selectFrom('runs')
    .select('contract')
    .where('id', '=', round.run_id)
    .executeTakeFirstOrThrow();
  return JSON.parse(run.contract!) as Contract; // fixed by an update of the round at the latest
}

/** The open round of a run. */
export async function roundInProgress(tx: Database, runId: string): Promise<Round | undefined> {
  const [round] = await openRoundOf(tx, { runId });
  return round;
}

const openRoundOf = prepared((db, { runId }: { readonly runId: string }) =>
  db.selectFrom('rounds').selectAll().where('run_id', '=', runId).where('status', '=', 'open').limit(1),
);

/** What has become of an open round when something in it has changed. */
export interface Settlement {
  readonly isClosed: boolean;
  /** Whether the clock may end it, or the round after it, at another time than before. */
  readonly hasNewEnd: boolean;
  /** Blobs to remove once the transaction is committed. */
  readonly removed: readonly string[];
}

/** What follows the commit of a settlement: listeners are woken, and what is to be aggregated is taken up. */
export async function followSettlement(
  domain: Domain,
  branchId: string,
  roundId: string,
  { isClosed, removed }: Pick<Settlement, 'isClosed' | 'removed'>,
): Promise<void> {
  for (const blob of removed) await domain.blobs.remove(blob);
  await announce(domain, branchId, roundId);
  if (isClosed) domain.signals.emit('closed', branchId);
}

/**
 * Closes a round that has its target, or begins the grace of one that has its minimum. Where an exclusion has taken the
 * minimum away, there is no grace any more, and the deadline begins anew.
 */
export async function settleRound(
  tx: Database,
  round: Round,
  standing: Standing,
  now: number,
): Promise<Settlement> {
  const policy = await policyOfRound(tx, round);
  const { contributions, target } = standing;
  // Under an exclusion the target may have come down to what the minimum forbids.
  if (contributions.byTarget >= target && contributions.byTarget >= leastOf(policy)) {
    const removed = await closeRound(tx, round, standing, 'target', now);
    return { isClosed: true, hasNewEnd: true, removed };
  }
  const { grace_ms, deadline_ms, minimum } = policy;
  const hadMinimum = round.minimum_at !== null;
  const hasMinimum = minimum !== null && contributions.byMinimum >= minimum;
  if (grace_ms === null || hasMinimum === hadMinimum) {
    return { isClosed: false, hasNewEnd: false, removed: [] };
  }
  const end = await endAfter(tx, round.run_id, hasMinimum ? grace_ms : deadline_ms, now);
  const closes_at = hasMinimum ? Math.min(end!, round.closes_at ?? Infinity) : end; // there is a grace
  const minimum_at = hasMinimum ? now : null;
  await tx.updateTable('rounds').set({ minimum_at, closes_at }).where('id', '=', round.id).execute();
  return { isClosed: false, hasNewEnd: true, removed: [] };
}

/**
 * Closes an open round: its members are frozen, the aggregation has its id, and the next round is open. The aggregation
 * itself is done afterwards, as often as it takes, under that id.
 *
 * @param by what makes a branch below complete: its target, or its minimum where the round ends early
 * @returns blobs of updates that do not count, to remove once the transaction is committed
 */
export async function closeRound(
  tx: Database,
  round: Round,
  { incomplete }: Pick<Standing, 'incomplete'>,
  by: 'target' | 'minimum',
  now: number,
): Promise<string[]> {
  const left = by === 'target' ? incomplete.byTarget : incomplete.byMinimum;
  const removed = await leaveOut(
    tx,
    left.map((member) => member.id),
    'branch-incomplete',
    now,
  );
  await tx
    .updateTable('rounds')
    .set({ status: 'aggregating', aggregation_id: randomUUID(), closed_at: now, closes_at: null })
    .where('id', '=', round.id)
    .execute();
  await openRound(tx, round.branch_id, round.run_id, round.number + 1, now);
  return removed;
}

/** Marks updates as not counting; their blobs are returned. */
export async function leaveOut(
  tx: Database,
  ids: readonly string[],
  left_out: 'excluded' | 'branch-incomplete',
  now: number,
): Promise<string[]> {
  if (ids.length === 0) return [];
  await tx
    .updateTable('updates')
    .set({ left_out, removed_at: now, bytes: null })
    .where('id', 'in', ids)
    .where('removed_at', 'is', null)
    .execute();
  return [...ids];
}

/** Opens the round after one that gave no aggregation, and tells the leaves, who would wait for one. */
export async function openNext(tx: Database, round: Round, now: number): Promise<void> {
  await openRound(tx, round.branch_id, round.run_id, round.number + 1, now);
  await tellOfOpen(tx, round, now);
}

/** Tells the leaves that no aggregation will come of a round, and which one is open now, if its run goes on. */
export async function tellOfOpen(tx: Database, round: Round, now: number): Promise<void> {
  const open = await roundInProgress(tx, round.run_id);
  if (open === undefined) return;
  const run = await tx
    .selectFrom('runs')
    .selectAll()
    .where('id', '=', round.run_id)
    .executeTakeFirstOrThrow();
  await writeRunNotice(
    tx,
    round.branch_id,
    { id: run.id, number: run.number, status: run.status, round: open.number, givenUpRound: round.number },
    now,
  );
}

/** The refusal for a round that has not what its policy asks for. */
export function tooFew(count: number, least: number): Refusal {
  const message = `${count} of at least ${least} contributions are there`;
  return new Refusal('conflict', 'round-minimum', message, { contributions: count, minimum: least });
}

/** Gives up a round and its updates; returns the blobs to remove once the transaction is committed. */
export async function discardRound(tx: Database, roundId: string, now: number): Promise<string[]> {
  await tx
    .updateTable('rounds')
    .set({ status: 'discarded', closed_at: now, closes_at: null })
    .where('id', '=', roundId)
    .execute();
  return giveUpUpdates(tx, [roundId], now);
}

/** Takes back the sum of a round that is to get another one; returns the blobs to remove once the transaction is committed. */
export async function forgetSum(tx: Database, roundId: string): Promise<string[]> {
  const sums = await tx.selectFrom('sums').select('id').where('round_id', '=', roundId).execute();
  await tx.deleteFrom('sums').where('round_id', '=', roundId).execute();
  return sums.map(({ id }) => id);
}

/** Marks the updates of rounds and their sums as removed; returns the blobs to remove once the transaction is committed. */
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
    .where('bytes', 'is', null)
    .execute();
  await tx
    .updateTable('updates')
    .set({ removed_at: now, bytes: null })
    .where('round_id', 'in', roundIds)
    .where('removed_at', 'is', null)
    .execute();
  await tx.deleteFrom('sum_leaves').where('round_id', 'in', roundIds).execute();
  const sums = await tx
    .selectFrom('sums')
    .select('id')
    .where('round_id', 'in', roundIds)
    .where('removed_at', 'is', null)
    .execute();
  await tx.updateTable('sums').set({ removed_at: now }).where('round_id', 'in', roundIds).execute();
  return [...rows, ...sums].map((row) => row.id);
}
