/** Rounds as operators see them: who is asked, who came, who is missing, how long each step took. */
import type { ErrorBody, RoundBody, RoundStatus, StrategyBody, UpdateBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import { unknown } from './refusal.ts';
import { policyOfRound } from './rounds.ts';
import { excludedLeaves, expectedLeaves } from './standing.ts';
import { lockBranch, rootOf } from './trees.ts';

/** The newest rounds that a list shows unless asked otherwise. */
const LIST_LIMIT = 1000;

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
  options: {
    readonly run?: number | undefined;
    readonly status?: RoundStatus | undefined;
    readonly limit?: number | undefined;
  } = {},
): Promise<RoundBody[]> {
  const root = await rootOf(db, await lockBranch(db, branchId));
  return roundBodies(db, (query) => {
    const { run, status, limit = LIST_LIMIT } = options;
    const ofBranch = query.where('rounds.branch_id', '=', root.id).limit(limit);
    const ofRun = run === undefined ? ofBranch : ofBranch.where('runs.number', '=', run);
    return status === undefined ? ofRun : ofRun.where('rounds.status', '=', status);
  });
}

function roundsWithRun(db: Database) {
  return db
    .selectFrom('rounds')
    .innerJoin('runs', 'runs.id', 'rounds.run_id')
    .leftJoin('aggregations', 'aggregations.id', 'rounds.aggregation_id')
    .selectAll('rounds')
    .select(['runs.number as run_number', 'aggregations.removed_at as aggregation_removed_at'])
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
      'updates.staleness',
      'updates.left_out',
      'updates.sum_leaves',
      'updates.is_difference',
      'updates.norm',
      'updates.norm_base',
      'updates.receive_ms',
      'updates.examine_ms',
    ])
    .where(
      'updates.round_id',
      'in',
      rounds.map((round) => round.id),
    )
    .orderBy('updates.received_at')
    .orderBy('updates.id')
    .execute();
  const sums = await db
    .selectFrom('sums')
    .select(['round_id', 'id as file_id', 'leaves', 'total_weighting', 'byte_length', 'sha256'])
    .where(
      'round_id',
      'in',
      rounds.map((round) => round.id),
    )
    .execute();
  const sumOf = new Map(sums.map(({ round_id, ...sum }) => [round_id, sum]));
  const byRound = new Map<string, UpdateBody[]>(rounds.map((round) => [round.id, []]));
  for (const { round_id, is_difference, ...update } of updates)
    byRound.get(round_id)!.push({ ...update, difference: is_difference === 1 });
  return Promise.all(
    rounds.map(async (round) => {
      const came = new Set(byRound.get(round.id)!.map((update) => update.leaf_id));
      const expected = round.number === 0 ? [] : await expectedLeaves(db, round);
      return {
        id: round.id,
        branch_id: round.branch_id,
        run_number: round.run_number,
        round: round.number,
        status: round.status,
        updates: byRound.get(round.id)!,
        aggregation_id: round.aggregation_id,
        aggregation_removed_at: round.aggregation_removed_at,
        total_weighting: round.total_weighting,
        aggregation_seconds: round.aggregation_seconds,
        opened_at: round.opened_at,
        closed_at: round.closed_at,
        done_at: round.done_at,
        failure: round.failure === null ? null : (JSON.parse(round.failure) as ErrorBody), // written by us
        policy: await policyOfRound(db, round),
        strategy: round.strategy === null ? null : (JSON.parse(round.strategy) as StrategyBody), // written by Aggregator
        missing: expected
          .filter((leaf) => !leaf.isLost && !came.has(leaf.id))
          .map((leaf) => ({ leaf_id: leaf.id, leaf_name: leaf.name })),
        excluded: [...(await excludedLeaves(db, round.id))].sort(),
        closes_at: round.closes_at,
        started_at: round.started_at,
        bytes_read: round.bytes_read,
        sum: sumOf.get(round.id) ?? null,
        write_seconds: round.write_seconds,
      };
    }),
  );
}
