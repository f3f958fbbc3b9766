import { randomUUID } from 'node:crypto';
import type { Selectable } from 'kysely';
import type { BranchBody, TreeBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import type { BranchesTable } from '../store/schema.ts';
import type { Domain } from './domain.ts';
import { checkName } from './names.ts';
import type { Operator } from './operators.ts';
import { Refusal, unknown } from './refusal.ts';

/** A round folds its updates side by side in a few MiB; more leaves than this belong into several branches. */
const MAX_TARGET = 10_000;

export async function createTree(domain: Domain, owner: Operator, name: string): Promise<TreeBody> {
  const tree = { id: randomUUID(), name: checkName(name), user_id: owner.id, created_at: domain.now() };
  await domain.db.insertInto('trees').values(tree).execute();
  return tree;
}

export async function listTrees(domain: Domain): Promise<TreeBody[]> {
  return domain.db.selectFrom('trees').selectAll().orderBy('created_at').orderBy('id').execute();
}

export interface NewBranch {
  readonly name: string;
  readonly tree_id: string;
  readonly aggregation_target: number;
  readonly parent_id?: string | null | undefined;
}

/** @throws Refusal `tree-unknown`, `name-invalid`, `target-invalid`, `parent-unsupported` */
export async function createBranch(domain: Domain, fields: NewBranch): Promise<BranchBody> {
  const target = fields.aggregation_target;
  if (!Number.isInteger(target) || target < 1 || target > MAX_TARGET) {
    throw new Refusal(
      'unprocessable',
      'target-invalid',
      `the aggregation target is a whole number from 1 to ${MAX_TARGET}`,
    );
  }
  if (fields.parent_id != null) {
    throw new Refusal(
      'unprocessable',
      'parent-unsupported',
      'branches below branches are not served yet: create the branch without a parent',
    );
  }
  const tree = await domain.db
    .selectFrom('trees')
    .select('id')
    .where('id', '=', fields.tree_id)
    .executeTakeFirst();
  if (tree === undefined) throw unknown('tree', fields.tree_id);
  const branch = {
    id: randomUUID(),
    name: checkName(fields.name),
    tree_id: fields.tree_id,
    parent_id: null,
    aggregation_target: target,
    run_id: null,
    notice_number: 0,
    created_at: domain.now(),
  };
  await domain.db.insertInto('branches').values(branch).execute();
  return branchBody(branch);
}

export async function listBranches(domain: Domain): Promise<BranchBody[]> {
  const rows = await domain.db
    .selectFrom('branches')
    .selectAll()
    .orderBy('created_at')
    .orderBy('id')
    .execute();
  return rows.map(branchBody);
}

/** @throws Refusal `branch-unknown` */
export async function getBranch(domain: Domain, id: string): Promise<BranchBody> {
  return branchBody(await lockBranch(domain.db, id));
}

/**
 * Reads a branch inside a transaction that is going to change its run, its rounds or its outbox; whoever does that comes
 * through here first. SQLite has one writer anyway; an engine with many takes the row's lock at this place.
 *
 * @throws Refusal `branch-unknown`
 */
export async function lockBranch(tx: Database, id: string): Promise<Selectable<BranchesTable>> {
  const row = await tx.selectFrom('branches').selectAll().where('id', '=', id).executeTakeFirst();
  if (row === undefined) throw unknown('branch', id);
  return row;
}

function branchBody(row: Selectable<BranchesTable>): BranchBody {
  const { id, name, tree_id, parent_id, aggregation_target, created_at } = row;
  return { id, name, tree_id, parent_id, aggregation_target, created_at };
}
