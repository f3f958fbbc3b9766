import type { AggregationBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import type { Domain } from './domain.ts';
import type { Leaf } from './leaves.ts';
import { Refusal, unknown } from './refusal.ts';

/** A finished aggregation, but for the link, which is made for each reader. */
export type Result = Omit<AggregationBody, 'download_url'>;

/** @throws Refusal `aggregation-unknown` */
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
    ])
    .where('aggregations.id', '=', id)
    .executeTakeFirst();
  if (row === undefined) throw unknown('aggregation', id);
  return row;
}

/**
 * The aggregation, if the leaf may have it: those of its own branch.
 *
 * @throws Refusal `aggregation-unknown`, `branch-other`
 */
export async function getResultFor(db: Database, id: string, leaf: Leaf): Promise<Result> {
  const result = await getResult(db, id);
  if (result.branch_id !== leaf.branch_id) {
    throw new Refusal('forbidden', 'branch-other', 'the aggregation belongs to another branch');
  }
  return result;
}

/** Notes that a leaf has the aggregation. */
export async function markFetched(domain: Domain, aggregationId: string, leafId: string): Promise<void> {
  await domain.db
    .insertInto('fetches')
    .values({ aggregation_id: aggregationId, leaf_id: leafId, fetched_at: domain.now() })
    .onConflict((conflict) => conflict.columns(['aggregation_id', 'leaf_id']).doNothing())
    .execute();
}
