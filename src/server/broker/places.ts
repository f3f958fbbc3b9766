/** Which leaves have a place at the broker, with what password, and what they hear there. */
import type { Database } from '../store/database.ts';

export interface Place {
  readonly id: string;
  readonly branch_id: string;
  /** Of the token that is the password at the broker. */
  readonly passwordHash: string;
  readonly hearsRun: boolean;
  readonly isRevoked: boolean;
}

/** The places of a branch, or of one leaf: all leaves with a token, and those that lost theirs but not yet their place. */
export async function readPlaces(
  db: Database,
  where: { readonly branchId: string } | { readonly leafId: string },
): Promise<Place[]> {
  let query = db
    .selectFrom('leaves')
    .leftJoin('broker_leaves', 'broker_leaves.leaf_id', 'leaves.id')
    .select([
      'leaves.id',
      'leaves.branch_id',
      'leaves.token_hash',
      'leaves.revoked_at',
      'broker_leaves.leaf_id as place',
      'broker_leaves.password_hash',
      'broker_leaves.hears_run',
    ])
    .where((is) => is.or([is('leaves.revoked_at', 'is', null), is('broker_leaves.leaf_id', 'is not', null)]));
  query =
    'leafId' in where
      ? query.where('leaves.id', '=', where.leafId)
      : query.where('leaves.branch_id', '=', where.branchId);
  const rows = await query.orderBy('leaves.id').execute();
  return rows.map((row) => ({
    id: row.id,
    branch_id: row.branch_id,
    passwordHash: row.password_hash ?? row.token_hash,
    hearsRun: row.hears_run === 1,
    isRevoked: row.revoked_at !== null,
  }));
}

/** Notes that a leaf has a place. A session that begins sets its password and hears nothing of the run. */
export async function keepPlace(
  db: Database,
  leafId: string,
  session?: { readonly passwordHash: string | undefined },
): Promise<void> {
  const values = { password_hash: session?.passwordHash ?? null, hears_run: 0 };
  await db
    .insertInto('broker_leaves')
    .values({ leaf_id: leafId, ...values })
    .onConflict((conflict) => {
      const same = conflict.column('leaf_id');
      return session === undefined ? same.doNothing() : same.doUpdateSet(values);
    })
    .execute();
}

/** Notes that a leaf hears of its run. */
export async function keepHearing(db: Database, leafId: string): Promise<void> {
  await keepPlace(db, leafId);
  await db.updateTable('broker_leaves').set({ hears_run: 1 }).where('leaf_id', '=', leafId).execute();
}

/** Notes that nothing of a leaf is left at the broker. */
export async function forgetPlace(db: Database, leafId: string): Promise<void> {
  await db.deleteFrom('broker_leaves').where('leaf_id', '=', leafId).execute();
}
