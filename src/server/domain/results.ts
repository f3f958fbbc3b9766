import type { AggregationBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import type { Domain } from './domain.ts';
import type { Leaf } from './leaves.ts';
import { Refusal, unknown } from './refusal.ts';
import { lineOf } from './trees.ts';

/** A finished aggregation, but for the link, which is made for each reader. */
export type Result = Omit<AggregationBody, 'download_url'>;

/** @throws Refusal `aggregation-unknown`, `aggregation-removed` */
export async function getResult(db: Database, id: string): Promise<Result> {
  const row = await db
    .selectFrom('aggregations')
    .innerJoin('rounds', 'rounds.id', 'aggregations.round_id')
    .innerJoin('runs', 'runs.id', 'rounds.run_id')
    .select([
      'aggregations.id as aggregation_id',
      'aggregations.branch_id',
      'runs.number as run_number',
      'rounds.number as round',
      'aggregations.leaves',
      'aggregations.total_weighting',
      'aggregations.byte_length',
      'aggregations.sha256',
      'aggregations.created_at',
      'aggregations.removed_at',
    ])
    .where('aggregations.id', '=', id)
    .executeTakeFirst();
  if (row === undefined) return getAverage(db, id);
  const { removed_at, ...result } = row;
  if (removed_at !== null) {
    throw new Refusal(
      'missing',
      'aggregation-removed',
      `the aggregation of round ${row.round} is not kept any more`,
    );
  }
  return result;
}

/** The mean of one branch of a round. */
async function getAverage(db: Database, id: string): Promise<Result> {
  const row = await db
    .selectFrom('averages')
    .innerJoin('rounds', 'rounds.id', 'averages.round_id')
    .innerJoin('runs', 'runs.id', 'rounds.run_id')
    .select([
      'averages.id as aggregation_id',
      'averages.branch_id',
      'runs.number as run_number',
      'rounds.number as round',
      'averages.leaves',
      'averages.total_weighting',
      'averages.byte_length',
      'averages.sha256',
      'averages.created_at',
    ])
    .where('averages.id', '=', id)
    .executeTakeFirst();
  if (row === undefined) throw unknown('aggregation', id);
  return row;
}

/**
 * The aggregation, if the leaf may have it: those of its own branch and of the branches above.
 *
 * @throws Refusal `aggregation-unknown`, `aggregation-removed`, `branch-other`
 */
export async function getResultFor(db: Database, id: string, leaf: Leaf): Promise<Result> {
  const result = await getResult(db, id);
  if (!(await lineOf(db, leaf.branch_id)).includes(result.branch_id)) {
    throw new Refusal('forbidden', 'branch-other', 'the aggregation belongs to another branch');
  }
  return result;
}

/** Notes that a leaf has the aggregation. */
export async function markFetched(domain: Domain, aggregationId: string, leafId: string): Promise<void> {
  const round = await domain.db
    .selectFrom('aggregations')
    .innerJoin('rounds', 'rounds.id', 'aggregations.round_id')
    .select(['rounds.run_id', 'rounds.number'])
    .where('aggregations.id', '=', aggregationId)
    .executeTakeFirst();
  if (round === undefined) return; // the mean of a branch, which nobody waits for
  await domain.db
    .insertInto('fetches')
    .values({
      aggregation_id: aggregationId,
      leaf_id: leafId,
      fetched_at: domain.now(),
      run_id: round.run_id,
      round: round.number,
    })
    .onConflict((conflict) => conflict.columns(['aggregation_id', 'leaf_id']).doNothing())
    .execute();
}
