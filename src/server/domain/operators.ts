import type { Database } from '../store/database.ts';
import { hashToken, isToken } from '../tokens.ts';
import { Refusal } from './refusal.ts';

/** Who may change trees, branches, leaves and runs; a viewer may only look. */
export interface Operator {
  readonly id: string;
  readonly name: string;
  readonly role: 'operator' | 'viewer';
}

/** Stores an operator. The token itself is not kept. */
export async function addOperator(
  db: Database,
  { token, ...operator }: Operator & { readonly token: string },
  now: number,
): Promise<void> {
  await db
    .insertInto('operators')
    .values({ ...operator, token_hash: hashToken(token), created_at: now, revoked_at: null })
    .execute();
}

/** Whether anybody can operate this server. */
export async function hasOperators(db: Database): Promise<boolean> {
  const row = await db.selectFrom('operators').select('id').limit(1).executeTakeFirst();
  return row !== undefined;
}

/**
 * Finds the operator of a token. Operators are few, so all of them are compared.
 *
 * @throws Refusal `token-invalid`, `token-revoked`
 */
export async function authenticateOperator(db: Database, token: string): Promise<Operator> {
  const rows = await db.selectFrom('operators').selectAll().execute();
  const row = rows.find((candidate) => isToken(token, candidate.token_hash));
  if (row === undefined) {
    throw new Refusal('unauthenticated', 'token-invalid', 'no operator has this token');
  }
  if (row.revoked_at !== null) {
    throw new Refusal('unauthenticated', 'token-revoked', 'this token was revoked');
  }
  return { id: row.id, name: row.name, role: row.role };
}
