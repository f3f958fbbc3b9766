/** Changes of a branch: its policy, its place in the tree, its end. */
import type { BranchBody, BranchChange } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import { forgetStates } from './completion.ts';
import type { Domain } from './domain.ts';
import { checkPolicy, policyOf } from './policy.ts';
import { Refusal } from './refusal.ts';
import {
  activeLeaves,
  discardRound,
  followSettlement,
  giveUpUpdates,
  type Round,
  roundInProgress,
  settleRound,
  termsOf,
} from './rounds.ts';
import { currentRun } from './runs.ts';
import { membersOf, standingOf } from './standing.ts';
import {
  branchesBelow,
  checkBelow,
  checkNoRun,
  getBranch,
  lockBranch,
  moveBranch,
  policyChange,
  rootOf,
} from './trees.ts';

/**
 * Changes what is named, or nothing at all. A policy holds from the next round on, and at once for an open round that has
 * no update yet; that of a branch below another one at once.
 *
 * @throws Refusal `branch-unknown`, those of `moveBranch` and `checkPolicy`, `policy-of-root`, `policy-sample-tree`
 */
export async function changeBranch(domain: Domain, id: string, change: BranchChange): Promise<BranchBody> {
  const changed = await domain.db.transaction().execute(async (tx) => {
    if (change.parent_id !== undefined) await moveBranch(tx, await lockBranch(tx, id), change.parent_id);
    const fields = policyChange(change);
    if (Object.keys(fields).length === 0) return undefined;
    const branch = await lockBranch(tx, id);
    const policy = { ...policyOf(branch, branch.aggregation_target), ...fields };
    const run = await currentRun(tx, branch);
    const isGoing = run !== undefined && run.status !== 'stop';
    checkPolicy(policy, isGoing ? (await activeLeaves(tx, id)).length : undefined);
    if (branch.parent_id !== null) checkBelow(policy);
    else if (policy.sample !== null && (await branchesBelow(tx, id)).length > 1) {
      throw new Refusal(
        'conflict',
        'policy-sample-tree',
        'with branches below no leaves are drawn: one of them might be left without any',
      );
    }
    const { aggregation_target, ...rest } = policy;
    await tx
      .updateTable('branches')
      .set({ aggregation_target, policy: JSON.stringify(rest) })
      .where('id', '=', id)
      .execute();
    const round = isGoing ? await roundInProgress(tx, run.id) : undefined;
    if (round === undefined) return undefined;
    if (branch.parent_id === null) {
      await renewTerms(tx, round, domain.now());
      return { round, isClosed: false, removed: [] };
    }
    // A branch that asks for less now may be what its root has waited for.
    return { round, ...(await settleRound(tx, round, await standingOf(tx, round), domain.now())) };
  });
  if (changed !== undefined) {
    await followSettlement(domain, changed.round.branch_id, changed.round.id, changed);
  }
  return getBranch(domain, id);
}

/** Lets an open round that nobody has come to begin anew under the present policy. */
async function renewTerms(tx: Database, round: Round, now: number): Promise<void> {
  if ((await membersOf(tx, round.id)).length > 0) return;
  const terms = await termsOf(tx, round.branch_id, round.run_id, round.number, now);
  await tx.updateTable('rounds').set(terms).where('id', '=', round.id).execute();
}

/**
 * Takes a branch away; its leaves are revoked, what has been aggregated stays. Failed rounds are discarded, for nobody can
 * retry them any more.
 *
 * @returns the leaves that lost their token
 * @throws Refusal `branch-unknown`, `run-open`, `branch-parent` while there are branches below it, `round-unfinished`
 */
export async function deleteBranch(domain: Domain, id: string): Promise<string[]> {
  const { leaves, removed } = await domain.db.transaction().execute(async (tx) => {
    const branch = await lockBranch(tx, id);
    await checkNoRun(tx, await rootOf(tx, branch));
    if ((await branchesBelow(tx, id)).length > 1) {
      throw new Refusal('conflict', 'branch-parent', 'there are branches below it: take those away first');
    }
    const now = domain.now();
    const removed = await giveUpRounds(tx, id, now);
    const leaves = await tx
      .updateTable('leaves')
      .set({ revoked_at: now })
      .where('branch_id', '=', id)
      .where('revoked_at', 'is', null)
      .returning('id')
      .execute();
    await tx.updateTable('branches').set({ deleted_at: now }).where('id', '=', id).execute();
    return { leaves, removed };
  });
  for (const blob of removed) await domain.blobs.remove(blob);
  return leaves.map((leaf) => leaf.id);
}

/** Gives up all that rounds to come would have needed; returns the blobs to remove. Throws Refusal `round-unfinished`. */
async function giveUpRounds(tx: Database, branchId: string, now: number): Promise<string[]> {
  const rounds = await tx
    .selectFrom('rounds')
    .select(['id', 'number', 'status'])
    .where('branch_id', '=', branchId)
    .where(({ or, eb, selectFrom }) =>
      or([
        eb('status', 'in', ['aggregating', 'summed', 'failed']),
        eb('id', 'in', selectFrom('updates').select('round_id').where('removed_at', 'is', null)),
      ]),
    )
    .execute();
  const unfinished = rounds.find(({ status }) => status === 'aggregating' || status === 'summed');
  if (unfinished !== undefined) {
    const { number, status } = unfinished;
    const what =
      status === 'summed' ? 'waits for the server above: discard it, or wait' : 'is being aggregated: wait';
    throw new Refusal('conflict', 'round-unfinished', `round ${number} ${what}`, { round: number });
  }
  const removed: string[] = [];
  for (const { id, status } of rounds) {
    removed.push(
      ...(status === 'failed' ? await discardRound(tx, id, now) : await giveUpUpdates(tx, [id], now)),
    );
  }
  return [...removed, ...(await forgetStates(tx, branchId))];
}
