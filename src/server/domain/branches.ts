/** Changes of a branch: its policy, its place in the tree. */
import type { BranchBody, BranchChange } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import type { Domain } from './domain.ts';
import { announce } from './notices.ts';
import { checkPolicy, policyOf } from './policy.ts';
import { Refusal } from './refusal.ts';
import { activeLeaves, roundInProgress, termsOf } from './rounds.ts';
import { currentRun } from './runs.ts';
import { membersOf } from './standing.ts';
import {
  type Branch,
  branchesBelow,
  checkBelow,
  getBranch,
  lockBranch,
  moveBranch,
  policyChange,
} from './trees.ts';

/**
 * Changes what is named, or nothing at all. A policy holds from the next round on, and at once for an open round that has
 * no update yet.
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
    return isGoing && branch.parent_id === null ? renewTerms(tx, branch, run.id, domain.now()) : undefined;
  });
  if (changed !== undefined) await announce(domain, id, changed);
  return getBranch(domain, id);
}

/** Lets an open round that nobody has come to begin anew under the present policy. */
async function renewTerms(
  tx: Database,
  branch: Branch,
  runId: string,
  now: number,
): Promise<string | undefined> {
  const round = await roundInProgress(tx, runId);
  if (round === undefined || (await membersOf(tx, round.id)).length > 0) return undefined;
  const terms = await termsOf(tx, branch.id, runId, round.number, now);
  await tx.updateTable('rounds').set(terms).where('id', '=', round.id).execute();
  return round.id;
}
