/** What operators do to a round by hand: close it early, leave a leaf out, have it aggregated again, give it up. */
import type { RoundBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import { checkTotal } from './contract.ts';
import type { Domain } from './domain.ts';
import { leastOf, policyOf, strategyOf } from './policy.ts';
import { Refusal, unknown } from './refusal.ts';
import { getRound } from './round-view.ts';
import {
  closeRound,
  discardRound,
  followSettlement,
  forgetSum,
  leaveOut,
  openNext,
  policyOfRound,
  type Round,
  settleRound,
  tellOfOpen,
  tooFew,
} from './rounds.ts';
import { checkNotSuperseded } from './rules.ts';
import { membersOf, type Standing, standingOf } from './standing.ts';
import { exactWeighting } from './sums.ts';
import { branchesBelow, lockBranch } from './trees.ts';

/**
 * Closes an open round with what is there.
 *
 * @throws Refusal `round-unknown`, `round-not-open`, `round-minimum` (of the branch's present policy),
 *   `strategy-too-few-inputs`
 */
export async function closeNow(domain: Domain, id: string): Promise<RoundBody> {
  const { branchId, removed } = await domain.db.transaction().execute(async (tx) => {
    const round = await roundIn(tx, id, ['open']);
    const standing = await checkEnough(tx, round);
    const removed = await closeRound(tx, round, standing, 'minimum', domain.now());
    return { branchId: round.branch_id, removed };
  });
  await followSettlement(domain, branchId, id, { isClosed: true, removed });
  return getRound(domain.db, id);
}

/** Whether an operator may have a round aggregated as it is; how it stands. */
async function checkEnough(tx: Database, round: Round): Promise<Standing> {
  const branch = await lockBranch(tx, round.branch_id);
  const least = leastOf(policyOf(branch, branch.aggregation_target));
  const standing = await standingOf(tx, round);
  const { contributions, members, incomplete } = standing;
  if (contributions.byMinimum < least) throw tooFew(contributions.byMinimum, least);
  const { name, minimumInputs = 1 } = strategyOf((await policyOfRound(tx, round)).strategy);
  const count = members.length - incomplete.byMinimum.length;
  if (count < minimumInputs) {
    throw new Refusal(
      'conflict',
      'strategy-too-few-inputs',
      `"${name}" needs ${minimumInputs} updates, there are ${count}`,
      { minimum_inputs: minimumInputs, updates: count },
    );
  }
  return standing;
}

/**
 * Leaves a leaf out of a round that is open or has failed: what it has contributed is given up, and an open round takes
 * no other update of it.
 *
 * @throws Refusal `round-unknown`, `round-finished`, `leaf-unknown`, `branch-other`
 */
export async function excludeLeaf(domain: Domain, roundId: string, leafId: string): Promise<RoundBody> {
  const { branchId, isClosed, removed } = await domain.db.transaction().execute(async (tx) => {
    const round = await roundIn(tx, roundId, ['open', 'failed']);
    const leaf = await tx
      .selectFrom('leaves')
      .select(['id', 'branch_id'])
      .where('id', '=', leafId)
      .executeTakeFirst();
    if (leaf === undefined) throw unknown('leaf', leafId);
    const branches = await branchesBelow(tx, round.branch_id);
    if (!branches.some((branch) => branch.id === leaf.branch_id)) {
      throw new Refusal('forbidden', 'branch-other', 'the leaf belongs to another branch than the round');
    }
    const now = domain.now();
    await tx
      .insertInto('exclusions')
      .values({ round_id: roundId, leaf_id: leafId, excluded_at: now })
      .onConflict((conflict) => conflict.columns(['round_id', 'leaf_id']).doNothing())
      .execute();
    const members = await membersOf(tx, roundId);
    const out = await leaveOut(
      tx,
      members.filter((member) => member.leaf_id === leafId).map((member) => member.id),
      'excluded',
      now,
    );
    if (round.status !== 'open') {
      const removed = [...out, ...(await forgetSum(tx, roundId))]; // the leaf is in it
      return { branchId: round.branch_id, isClosed: false, removed };
    }
    const settled = await settleRound(tx, round, await standingOf(tx, round), now);
    return { branchId: round.branch_id, ...settled, removed: [...out, ...settled.removed] };
  });
  await followSettlement(domain, branchId, roundId, { isClosed, removed });
  return getRound(domain.db, roundId);
}

/**
 * Lets a failed round be aggregated again, under the same id.
 *
 * @returns the round, whose branch's aggregations are to be taken up
 * @throws Refusal `round-unknown`, `round-not-failed`, `round-minimum` (of the branch's present policy),
 *   `strategy-too-few-inputs`, `weighting-total`, `round-superseded`
 */
export async function retryRound(domain: Domain, id: string): Promise<RoundBody> {
  const branchId = await domain.db.transaction().execute(async (tx) => {
    const round = await roundIn(tx, id, ['failed']);
    await checkNotSuperseded(tx, round);
    await checkEnough(tx, round);
    checkTotal((await membersOf(tx, id)).map(exactWeighting));
    await tx
      .updateTable('rounds')
      .set({ status: 'aggregating', failure: null, done_at: null })
      .where('id', '=', id)
      .execute();
    return round.branch_id;
  });
  await followSettlement(domain, branchId, id, { isClosed: true, removed: [] });
  return getRound(domain.db, id);
}

/**
 * Gives up a round that is open, so that the next one opens, or waits for a server above, or has failed.
 *
 * @throws Refusal `round-unknown`, `round-finished`
 */
export async function giveUpRound(domain: Domain, id: string): Promise<RoundBody> {
  const { branchId, removed } = await domain.db.transaction().execute(async (tx) => {
    const round = await roundIn(tx, id, ['open', 'summed', 'failed']);
    const now = domain.now();
    const removed = await discardRound(tx, id, now);
    if (round.status === 'open') await openNext(tx, round, now);
    else await tellOfOpen(tx, round, now);
    return { branchId: round.branch_id, removed };
  });
  await followSettlement(domain, branchId, id, { isClosed: false, removed });
  return getRound(domain.db, id);
}

/** The round, if it is in one of these states. Throws Refusal `round-unknown`, `round-not-…`, of several `round-finished`. */
async function roundIn(
  tx: Database,
  id: string,
  states: readonly ('open' | 'summed' | 'failed')[],
): Promise<Round> {
  const round = await tx.selectFrom('rounds').selectAll().where('id', '=', id).executeTakeFirst();
  if (round === undefined) throw unknown('round', id);
  await lockBranch(tx, round.branch_id);
  if (states.some((state) => state === round.status)) return round;
  const code = states.length === 1 ? `round-not-${states[0]}` : 'round-finished';
  throw new Refusal(
    'conflict',
    code,
    `the round is ${round.status}, not ${states.join(', ').replace(/, (\w+)$/, ' or $1')}`,
  );
}
