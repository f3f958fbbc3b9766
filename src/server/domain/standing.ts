/**
 * How a round stands: what counts towards its end, and what may still come.
 *
 * A branch counts the updates of its own leaves, and each branch below it that is complete as one. It is complete when it
 * has its target, or, where the clock or an operator closes the round, its minimum. The target shrinks when leaves that
 * it needs were excluded or revoked while the round was open, so that nobody waits for them.
 */
import type { Database } from '../store/database.ts';
import { prepared } from '../store/prepared.ts';
import { policyOf } from './policy.ts';
import type { Round } from './rounds.ts';
import { type Branch, branchesBelow, withBelow } from './trees.ts';

/** An update of a round that has not been given up. */
export interface Member {
  readonly id: string;
  readonly leaf_id: string;
  readonly branch_id: string;
  readonly weighting: number;
  /** Of an exact partial sum: its exact total in units of 2^-116, in decimal digits. */
  readonly sum_total: string | null;
  /** 1 for a difference to the global model. */
  readonly is_difference: number;
}

/** Somebody who may contribute to rounds of a branch. */
export interface BranchLeaf {
  readonly id: string;
  readonly name: string;
  readonly branch_id: string;
  readonly created_at: number;
  readonly revoked_at: number | null;
}

/** Somebody who may contribute to a round. */
interface Expected extends Pick<BranchLeaf, 'id' | 'name' | 'branch_id'> {
  /** Excluded, or revoked while the round was open. */
  readonly isLost: boolean;
}

export interface Standing {
  /** What counts towards the root's target and minimum when both are asked for at once. */
  readonly contributions: { readonly byTarget: number; readonly byMinimum: number };
  /** The root's target, or what can be had of it. */
  readonly target: number;
  readonly members: readonly Member[];
  /** Members of branches that have too few to count. */
  readonly incomplete: { readonly byTarget: readonly Member[]; readonly byMinimum: readonly Member[] };
}

/** How an open round stands now. */
export async function standingOf(tx: Database, round: Round): Promise<Standing> {
  const branches = await branchesBelow(tx, round.branch_id);
  const members = await membersOf(tx, round.id);
  const lost = await lostLeaves(tx, round);
  // Only where somebody is lost it matters who there is.
  const leaves = lost.size === 0 ? [] : await expectedLeaves(tx, round, branches);
  const came = new Set(members.map((member) => member.leaf_id));
  const targets = new Map<string, number>();
  // From below, so that a branch knows what the branches below it can be.
  for (const branch of [...branches].reverse()) {
    const own = branch.id === round.branch_id ? policyOf(round, branch.aggregation_target) : branch;
    const target = own.aggregation_target;
    const mine = leaves.filter((leaf) => leaf.branch_id === branch.id);
    const gone = mine.filter((leaf) => leaf.isLost && !came.has(leaf.id)).length;
    const below = branches.filter(({ parent_id }) => parent_id === branch.id).length;
    const possible = mine.length - gone + below;
    const isShort = gone > 0 && possible < target && possible + gone >= target;
    targets.set(branch.id, isShort ? Math.max(1, possible) : target);
  }
  const minimumOf = (branch: Branch) =>
    policyOf(branch, branch.aggregation_target).minimum ?? targets.get(branch.id)!;
  const byTarget = count(branches, members, (branch) => targets.get(branch.id)!);
  const byMinimum = count(branches, members, minimumOf);
  return {
    contributions: { byTarget: byTarget.contributions, byMinimum: byMinimum.contributions },
    target: targets.get(round.branch_id)!,
    members,
    incomplete: { byTarget: byTarget.incomplete, byMinimum: byMinimum.incomplete },
  };
}

async function expectedLeaves(tx: Database, round: Round, branches: readonly Branch[]): Promise<Expected[]> {
  const excluded = await excludedLeaves(tx, [round.id]);
  return expectedOf(round, await leavesOf(tx, branches), excluded.get(round.id)!);
}

/** Updates of a round that count or may count. */
export function membersOf(tx: Database, roundId: string): Promise<Member[]> {
  return membersOfRound(tx, { roundId });
}

const membersOfRound = prepared((db, { roundId }: { readonly roundId: string }) =>
  db
    .selectFrom('updates')
    .innerJoin('leaves', 'leaves.id', 'updates.leaf_id')
    .select([
      'updates.id',
      'updates.leaf_id',
      'updates.weighting',
      'updates.sum_total',
      'updates.is_difference',
      'leaves.branch_id',
    ])
    .where('updates.round_id', '=', roundId)
    .where('updates.left_out', 'is', null)
    .orderBy('updates.leaf_id'),
);

/** The bytes of a round's small updates, which have no blobs, by their ids. */
export async function heldBytes(db: Database, roundId: string) {
  const rows = await db
    .selectFrom('updates')
    .select(['id', 'bytes'])
    .where('round_id', '=', roundId)
    .where('bytes', 'is not', null)
    .execute();
  return new Map(rows.map(({ id, bytes }) => [id, bytes]));
}

/** All who are or have been leaves of these branches, by name. */
export function leavesOf(tx: Database, branches: readonly Pick<Branch, 'id'>[]): Promise<BranchLeaf[]> {
  const ids = branches.map((branch) => branch.id);
  return tx
    .selectFrom('leaves')
    .select(['id', 'name', 'branch_id', 'created_at', 'revoked_at'])
    .where('branch_id', 'in', ids)
    .orderBy('name')
    .execute();
}

/** Who is asked in a round: the leaves that were drawn, or all who were there while it was open. */
export function expectedOf(
  round: Round,
  leaves: readonly BranchLeaf[],
  excluded: ReadonlySet<string>,
): Expected[] {
  const drawn = round.sample === null ? undefined : new Set(JSON.parse(round.sample) as string[]); // written by openRound
  const { opened_at, closed_at } = round;
  return leaves
    .filter((leaf) => leaf.created_at <= (closed_at ?? Number.MAX_SAFE_INTEGER))
    .filter((leaf) => leaf.revoked_at === null || leaf.revoked_at >= opened_at)
    .filter((leaf) => drawn === undefined || drawn.has(leaf.id))
    .map(({ id, name, branch_id, revoked_at }) => {
      return { id, name, branch_id, isLost: revoked_at !== null || excluded.has(id) };
    });
}

/** The leaves that operators have left out of rounds, by round. */
export async function excludedLeaves(
  tx: Database,
  rounds: readonly string[],
): Promise<ReadonlyMap<string, ReadonlySet<string>>> {
  const rows = await tx
    .selectFrom('exclusions')
    .select(['round_id', 'leaf_id'])
    .where('round_id', 'in', rounds)
    .execute();
  const byRound = new Map(rounds.map((id) => [id, new Set<string>()]));
  for (const { round_id, leaf_id } of rows) byRound.get(round_id)!.add(leaf_id);
  return byRound;
}

/** Whether an operator has left a leaf out of a round. */
export async function isExcluded(tx: Database, roundId: string, leafId: string): Promise<boolean> {
  return (await exclusion(tx, { roundId, leafId })).length > 0;
}

const exclusion = prepared((db, { roundId, leafId }: { readonly roundId: string; readonly leafId: string }) =>
  db.selectFrom('exclusions').select('leaf_id').where('round_id', '=', roundId).where('leaf_id', '=', leafId),
);

async function lostLeaves(tx: Database, round: Round): Promise<ReadonlySet<string>> {
  const { id, branch_id, opened_at } = round;
  return new Set((await lostSince(tx, { id, branch_id, opened_at })).map((row) => row.id));
}

const lostSince = prepared((db, round: Pick<Round, 'id' | 'branch_id' | 'opened_at'>) =>
  withBelow(db, round.branch_id)
    .selectFrom('below')
    .crossJoin('leaves')
    .whereRef('leaves.branch_id', '=', 'below.id')
    .select('leaves.id as id')
    .where('leaves.revoked_at', '>=', round.opened_at)
    .unionAll(db.selectFrom('exclusions').select('leaf_id as id').where('round_id', '=', round.id)),
);

/** Counts from the leaves up; `needOf` says what makes a branch complete. */
function count(
  branches: readonly Branch[],
  members: readonly Member[],
  needOf: (branch: Branch) => number,
): { readonly contributions: number; readonly incomplete: readonly Member[] } {
  const [root] = branches as [Branch];
  const counts = new Map(branches.map((branch) => [branch.id, 0]));
  for (const { branch_id } of members) counts.set(branch_id, (counts.get(branch_id) ?? 0) + 1);
  const isComplete = new Set([root.id]);
  for (const branch of [...branches].reverse()) {
    if (branch.parent_id === null || branch.id === root.id) continue;
    if (counts.get(branch.id)! < needOf(branch)) continue;
    isComplete.add(branch.id);
    counts.set(branch.parent_id, counts.get(branch.parent_id)! + 1);
  }
  // What does not reach the root does not count, however complete it is below.
  const reaches = new Set([root.id]);
  for (const { id, parent_id } of branches) {
    if (parent_id !== null && isComplete.has(id) && reaches.has(parent_id)) reaches.add(id);
  }
  return {
    contributions: counts.get(root.id)!,
    incomplete: members.filter(({ branch_id }) => !reaches.has(branch_id)),
  };
}
