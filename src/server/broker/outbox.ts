/**
 * The outbox as the broker's side reads it: how far each branch has been handed over, and what a leaf is owed.
 *
 * A notice counts as handed over when the broker has confirmed it; a process that dies in between hands it over again.
 * That is not delivery yet: a leaf has an aggregation when it has fetched it, and until then a broker may lose it.
 */
import type { Notice } from '../../wire/cambium.ts';
import type { NumberedNotice } from '../domain/notices.ts';
import type { Database } from '../store/database.ts';

export type Arrangement = 'tree' | 'root';

/**
 * Branches that this broker has not served yet begin at their present end: their past would come as a flood. What of it
 * a leaf is still owed it gets when its queue is made. Branches made later begin at 0 without a row.
 */
export async function startCursors(db: Database): Promise<void> {
  await db.transaction().execute(async (tx) => {
    const branches = await tx.selectFrom('branches').select(['id', 'notice_number']).execute();
    for (const { id, notice_number } of branches) {
      for (const arrangement of ['tree', 'root'] as const) {
        await tx
          .insertInto('broker_cursors')
          .values({ branch_id: id, arrangement, number: notice_number })
          .onConflict((conflict) => conflict.columns(['branch_id', 'arrangement']).doNothing())
          .execute();
      }
    }
  });
}

/** The number of the last notice that the broker has. */
export async function cursorOf(db: Database, branchId: string, arrangement: Arrangement): Promise<number> {
  const row = await db
    .selectFrom('broker_cursors')
    .select('number')
    .where('branch_id', '=', branchId)
    .where('arrangement', '=', arrangement)
    .executeTakeFirst();
  return row?.number ?? 0;
}

/** Notes that the broker has everything up to a number. */
export async function moveCursor(
  db: Database,
  branchId: string,
  arrangement: Arrangement,
  number: number,
): Promise<void> {
  await db
    .insertInto('broker_cursors')
    .values({ branch_id: branchId, arrangement, number })
    .onConflict((conflict) => conflict.columns(['branch_id', 'arrangement']).doUpdateSet({ number }))
    .execute();
}

/**
 * The aggregations of the present run, up to a number, that a leaf has not fetched, oldest first: those that came after
 * the one it fetched last and after the leaf itself. The newest is owed to a leaf that is younger, too.
 */
export async function owedTo(
  db: Database,
  leaf: { readonly id: string; readonly branch_id: string },
  upTo: number,
  limit: number,
): Promise<NumberedNotice[]> {
  const rows = await db
    .selectFrom('notices')
    .innerJoin('branches', 'branches.id', 'notices.branch_id')
    .innerJoin('leaves', (join) => join.on('leaves.id', '=', leaf.id))
    .select(['notices.number', 'notices.data', 'notices.created_at', 'leaves.created_at as leaf_since'])
    .where('notices.branch_id', '=', leaf.branch_id)
    .whereRef('notices.run_id', '=', 'branches.run_id')
    .where('notices.event', '=', 'aggregation_status')
    .where('notices.number', '<=', upTo)
    .orderBy('notices.number', 'desc')
    .limit(limit)
    .execute();
  const owed: NumberedNotice[] = [];
  for (const row of rows) {
    const data = JSON.parse(row.data) as Notice; // written by writeNotice
    if (data.message_type !== 'aggregation_status' || (await hasFetched(db, leaf.id, data.aggregation_id)))
      break;
    if (owed.length > 0 && row.created_at < row.leaf_since) break;
    owed.push({ number: row.number, data });
  }
  return owed.reverse();
}

async function hasFetched(db: Database, leafId: string, aggregationId: string): Promise<boolean> {
  const row = await db
    .selectFrom('fetches')
    .select('leaf_id')
    .where('aggregation_id', '=', aggregationId)
    .where('leaf_id', '=', leafId)
    .executeTakeFirst();
  return row !== undefined;
}
