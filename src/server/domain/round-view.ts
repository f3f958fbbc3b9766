/** Rounds as operators see them: who is asked, who came, who is missing, how long each step took. */
import type { ErrorBody, RoundBody, RoundStatus, StrategyBody, UpdateBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import { policyOf } from './policy.ts';
import { unknown } from './refusal.ts';
import { excludedLeaves, expectedOf, leavesOf } from './standing.ts';
import { branchesBelow, lockBranch, rootOf } from './trees.ts';

/** The newest rounds that a list shows, and no more: each is told with all its updates. */
const LIST_LIMIT = 1000;

/** @throws Refusal `round-unknown` */
export async function getRound(db: Database, id: string): Promise<RoundBody> {
  const round = await roundsWithRun(db).where('rounds.id', '=', id).executeTakeFirst();
  if (round === undefined) throw unknown('round', id);
  return (await roundBodies(db, round.branch_id, [round]))[0]!; // one for one
}

/** The rounds of a branch, newest first. Throws Refusal `branch-unknown`. */
export async function listRounds(
  db: Database,
  branchId: string,
  options: {
    readonly run?: number | undefined;
    readonly status?: RoundStatus | undefined;
    readonly limit?: number | undefined;
  } = {},
): Promise<RoundBody[]> {
  const { run, status, limit = LIST_LIMIT } = options;
  const root = await rootOf(db, await lockBranch(db, branchId));
  let query = roundsWithRun(db)
    .where('runs.branch_id', '=', root.id)
    .orderBy('runs.number', 'desc')
    .orderBy('rounds.number', 'desc')
    .limit(Math.min(limit, LIST_LIMIT));
  if (run !== undefined) query = query.where('runs.number', '=', run);
  if (status !== undefined) query = query.where('rounds.status', '=', status);
  return roundBodies(db, root.id, await query.execute());
}

function roundsWithRun(db: Database) {
  return db
    .selectFrom('rounds')
    .innerJoin('runs', 'runs.id', 'rounds.run_id')
    .leftJoin('aggregations', 'aggregations.id', 'rounds.aggregation_id')
    .selectAll('rounds')
    .select(['runs.number as run_number', 'aggregations.removed_at as aggregation_removed_at']);
}

type RoundRow = Awaited<ReturnType<ReturnType<typeof roundsWithRun>['execute']>>[number];

/** What there is to tell of rounds of a root branch, by as many statements as for one of them. */
async function roundBodies(db: Database, rootId: string, rounds: readonly RoundRow[]): Promise<RoundBody[]> {
  if (rounds.length === 0) return [];
  const ids = rounds.map((round) => round.id);
  const updates = await updatesByRound(db, ids);
  const excluded = await excludedLeaves(db, ids);
  const sums = await db
    .selectFrom('sums')
    .select(['round_id', 'id as file_id', 'leaves', 'total_weighting', 'byte_length', 'sha256'])
    .where('round_id', 'in', ids)
    .where('removed_at', 'is', null)
    .execute();
  const sumOf = new Map(sums.map(({ round_id, ...sum }) => [round_id, sum]));
  const branches = await branchesBelow(db, rootId);
  const leaves = await leavesOf(db, branches);
  return rounds.map((round) => {
    const came = updates.get(round.id)!;
    const left = excluded.get(round.id)!;
    const isThere = new Set(came.map((update) => update.leaf_id));
    // What a run starts with asks nobody.
    const expected = round.number === 0 ? [] : expectedOf(round, leaves, left);
    return {
      id: round.id,
      branch_id: round.branch_id,
      run_number: round.run_number,
      round: round.number,
      status: round.status,
      updates: came,
      aggregation_id: round.aggregation_id,
      aggregation_removed_at: round.aggregation_removed_at,
      total_weighting: round.total_weighting,
      aggregation_seconds: round.aggregation_seconds,
      opened_at: round.opened_at,
      closed_at: round.closed_at,
      done_at: round.done_at,
      failure: round.failure === null ? null : (JSON.parse(round.failure) as ErrorBody), // written by us
      policy: policyOf(round, branches[0]!.aggregation_target), // the root's, for rounds of older programs
      strategy: round.strategy === null ? null : (JSON.parse(round.strategy) as StrategyBody), // written by Aggregator
      missing: expected
        .filter((leaf) => !leaf.isLost && !isThere.has(leaf.id))
        .map((leaf) => ({ leaf_id: leaf.id, leaf_name: leaf.name })),
      excluded: [...left].sort(),
      closes_at: round.closes_at,
      started_at: round.started_at,
      bytes_read: round.bytes_read,
      sum: sumOf.get(round.id) ?? null,
      write_seconds: round.write_seconds,
    };
  });
}

/** The updates of rounds in the order of their arrival. */
async function updatesByRound(
  db: Database,
  rounds: readonly string[],
): Promise<ReadonlyMap<string, UpdateBody[]>> {
  const rows = await db
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
      'updates.staleness',
      'updates.left_out',
      'updates.sum_leaves',
      'updates.is_difference',
      'updates.norm',
      'updates.norm_base',
      'updates.receive_ms',
      'updates.examine_ms',
    ])
    .where('updates.round_id', 'in', rounds)
    .orderBy('updates.received_at')
    .orderBy('updates.id')
    .execute();
  const byRound = new Map<string, UpdateBody[]>(rounds.map((id) => [id, []]));
  for (const { round_id, is_difference, ...update } of rows) {
    byRound.get(round_id)!.push({ ...update, difference: is_difference === 1 });
  }
  return byRound;
}
