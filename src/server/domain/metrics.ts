import { randomUUID } from 'node:crypto';
import type { MetricsBody, MetricsChange, MetricsMode } from '../../wire/cambium.ts';
import type { Domain } from './domain.ts';
import type { Leaf } from './leaves.ts';
import { Refusal } from './refusal.ts';
import { getResultFor } from './results.ts';
import { lockBranch } from './trees.ts';

const MODES: readonly MetricsMode[] = ['train', 'test', 'non-federated'];

/**
 * Stores what a leaf measured on an aggregation.
 *
 * @param idempotencyKey the same key of the same leaf is the same report, and counts once
 * @throws Refusal `metrics-mode`, `aggregation-unknown`, `branch-other`
 */
export async function addMetrics(
  domain: Domain,
  leaf: Leaf,
  aggregationId: string,
  { mode, data }: MetricsChange,
  idempotencyKey?: string,
): Promise<MetricsBody> {
  if (!MODES.includes(mode)) {
    throw new Refusal('unprocessable', 'metrics-mode', `the mode of metrics is one of ${MODES.join(', ')}`);
  }
  await getResultFor(domain.db, aggregationId, leaf);
  const metrics = { aggregation_id: aggregationId, leaf_id: leaf.id, mode, received_at: domain.now() };
  await domain.db
    .insertInto('metrics')
    .values({
      id: randomUUID(),
      ...metrics,
      data: JSON.stringify(data),
      idempotency_key: idempotencyKey ?? null,
    })
    .onConflict((conflict) => conflict.columns(['leaf_id', 'idempotency_key']).doNothing())
    .execute();
  return { ...metrics, data };
}

/** The metrics of a branch's aggregations in the order of arrival. Throws Refusal `branch-unknown`. */
export async function listMetrics(domain: Domain, branchId: string): Promise<MetricsBody[]> {
  await lockBranch(domain.db, branchId);
  const rows = await domain.db
    .selectFrom('metrics')
    .innerJoin('aggregations', 'aggregations.id', 'metrics.aggregation_id')
    .select([
      'metrics.aggregation_id',
      'metrics.leaf_id',
      'metrics.mode',
      'metrics.data',
      'metrics.received_at',
    ])
    .where('aggregations.branch_id', '=', branchId)
    .orderBy('metrics.received_at')
    .orderBy('metrics.id')
    .execute();
  return rows.map((row) => ({ ...row, data: JSON.parse(row.data) as unknown }));
}
