import type { Domain } from './domain.ts';

/** So many ids are looked up at once; engines limit the parameters of a statement. */
const BATCH = 500;

/**
 * Removes blobs that no row speaks of: those of uploads whose process died between the blob and the row, and of updates
 * that were given up just before it died. Run while nobody uploads; the number of removed blobs is returned.
 */
export async function sweepBlobs({ db, blobs }: Domain): Promise<number> {
  let count = 0;
  const sweep = async (ids: readonly string[]) => {
    const updates = await db
      .selectFrom('updates')
      .select('id')
      .where('id', 'in', ids)
      .where('removed_at', 'is', null)
      .execute();
    const aggregations = await db
      .selectFrom('aggregations')
      .select('id')
      .where('id', 'in', ids)
      .where('removed_at', 'is', null)
      .execute();
    const averages = await db.selectFrom('averages').select('id').where('id', 'in', ids).execute();
    const sums = await db
      .selectFrom('sums')
      .select('id')
      .where('id', 'in', ids)
      .where('removed_at', 'is', null)
      .execute();
    const states = await db
      .selectFrom('aggregations')
      .select('state_id as id')
      .where('state_id', 'in', ids)
      .execute();
    const known = new Set(
      [...updates, ...aggregations, ...averages, ...sums, ...states].map((row) => row.id),
    );
    for (const id of ids) {
      if (known.has(id)) continue;
      await blobs.remove(id);
      count++;
    }
  };
  let batch: string[] = [];
  for await (const id of blobs.list()) {
    batch.push(id);
    if (batch.length < BATCH) continue;
    await sweep(batch);
    batch = [];
  }
  if (batch.length > 0) await sweep(batch);
  return count;
}
