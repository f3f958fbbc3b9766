import { randomUUID } from 'node:crypto';
import type { LeafBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import { hashToken, isToken, newToken } from '../tokens.ts';
import type { Domain } from './domain.ts';
import { checkName } from './names.ts';
import { Refusal, unknown } from './refusal.ts';
import { lockBranch } from './trees.ts';

/** A leaf whose token has been checked. */
export interface Leaf {
  readonly id: string;
  readonly name: string;
  readonly branch_id: string;
  readonly tree_id: string;
  /** The owner of the tree. */
  readonly user_id: string;
}

/**
 * Makes a leaf. The token is told here and never again.
 *
 * @throws Refusal `branch-unknown`, `name-invalid`, `leaf-name-taken`
 */
export async function createLeaf(
  domain: Domain,
  fields: { readonly name: string; readonly branch_id: string },
): Promise<Leaf & { readonly token: string }> {
  const name = checkName(fields.name);
  const id = randomUUID();
  const token = newToken();
  await domain.db.transaction().execute(async (tx) => {
    await lockBranch(tx, fields.branch_id);
    const taken = await tx
      .selectFrom('leaves')
      .select('id')
      .where('branch_id', '=', fields.branch_id)
      .where('name', '=', name)
      .executeTakeFirst();
    if (taken !== undefined) {
      throw new Refusal(
        'conflict',
        'leaf-name-taken',
        `the branch has a leaf with the name ${JSON.stringify(name)} already`,
      );
    }
    await tx
      .insertInto('leaves')
      .values({
        id,
        name,
        branch_id: fields.branch_id,
        token_hash: hashToken(token),
        created_at: domain.now(),
        revoked_at: null,
      })
      .execute();
  });
  const { token_hash: _, revoked_at: __, ...leaf } = (await findLeaf(domain.db, id))!; // inserted above
  return { ...leaf, token };
}

export async function listLeaves(domain: Domain, branchId?: string): Promise<LeafBody[]> {
  let query = domain.db
    .selectFrom('leaves')
    .innerJoin('branches', 'branches.id', 'leaves.branch_id')
    .select([
      'leaves.id',
      'leaves.name',
      'leaves.branch_id',
      'branches.tree_id',
      'leaves.created_at',
      'leaves.revoked_at',
    ]);
  if (branchId !== undefined) query = query.where('leaves.branch_id', '=', branchId);
  return query.orderBy('leaves.created_at').orderBy('leaves.id').execute();
}

/**
 * Takes a leaf's token back, at once and for good; what it has contributed stays.
 *
 * @throws Refusal `leaf-unknown`
 */
export async function revokeLeaf(
  domain: Domain,
  id: string,
): Promise<Pick<Leaf, 'id' | 'branch_id' | 'tree_id'>> {
  const leaf = await findLeaf(domain.db, id);
  if (leaf === undefined) throw unknown('leaf', id);
  await domain.db
    .updateTable('leaves')
    .set({ revoked_at: domain.now() })
    .where('id', '=', id)
    .where('revoked_at', 'is', null)
    .execute();
  domain.signals.emit(`notices:${leaf.branch_id}`);
  return leaf;
}

/** Whether the leaf's token has been taken back. */
export async function isRevoked(db: Database, id: string): Promise<boolean> {
  const leaf = await findLeaf(db, id);
  return leaf === undefined || leaf.revoked_at !== null;
}

/** @throws Refusal `leaf-unknown`, `token-invalid`, `token-revoked` */
export async function authenticateLeaf(db: Database, id: string, token: string): Promise<Leaf> {
  const row = await findLeaf(db, id);
  if (row === undefined) throw unknown('leaf', id);
  if (!isToken(token, row.token_hash)) {
    throw new Refusal('unauthenticated', 'token-invalid', `this is not the session token of leaf ${id}`);
  }
  if (row.revoked_at !== null) {
    throw revoked(id);
  }
  return {
    id: row.id,
    name: row.name,
    branch_id: row.branch_id,
    tree_id: row.tree_id,
    user_id: row.user_id,
  };
}

/** The refusal for a leaf whose token has been taken back. */
export function revoked(id: string): Refusal {
  return new Refusal('unauthenticated', 'token-revoked', `the session token of leaf ${id} was revoked`);
}

function findLeaf(db: Database, id: string) {
  return db
    .selectFrom('leaves')
    .innerJoin('branches', 'branches.id', 'leaves.branch_id')
    .innerJoin('trees', 'trees.id', 'branches.tree_id')
    .select([
      'leaves.id',
      'leaves.name',
      'leaves.branch_id',
      'branches.tree_id',
      'trees.user_id',
      'leaves.token_hash',
      'leaves.revoked_at',
    ])
    .where('leaves.id', '=', id)
    .executeTakeFirst();
}
