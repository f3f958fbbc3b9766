import type { OwnUpdateBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import type { Leaf } from './leaves.ts';

/** More than anybody looks back for; of a digest there are few. */
const LIST_LIMIT = 1000;

/**
 * The updates of a leaf, newest first, and what has become of their rounds: so a sender that has lost its memory finds out
 * whether what it holds counts already.
 */
export async function listOwnUpdates(db: Database, leaf: Leaf, sha256?: string): Promise<OwnUpdateBody[]> {
  const all = db
    .selectFrom('updates')
    .innerJoin('rounds', 'rounds.id', 'updates.round_id')
    .innerJoin('runs', 'runs.id', 'rounds.run_id')
    .select([
      'updates.id as file_id',
      'runs.number as run_number',
      'rounds.number as round',
      'rounds.status as round_status',
      'updates.weighting',
      'updates.sha256',
      'updates.received_at',
      'updates.left_out',
      'rounds.aggregation_id',
      'updates.idempotency_key',
    ])
    .where('updates.leaf_id', '=', leaf.id)
    .orderBy('updates.received_at', 'desc')
    .orderBy('updates.id')
    .limit(LIST_LIMIT);
  const rows = await (sha256 === undefined ? all : all.where('updates.sha256', '=', sha256)).execute();
  return rows.map((row) => ({
    ...row,
    aggregation_id: row.round_status === 'done' ? row.aggregation_id : null,
  }));
}
