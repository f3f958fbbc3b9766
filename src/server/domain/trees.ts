/**
 * Trees and branches. A branch below another one shares the run of its root: the root's rounds fold the updates of all
 * leaves below it, and what comes of them goes to all of these.
 */
import { randomUUID } from 'node:crypto';
import type { Selectable } from 'kysely';
import type { BranchBody, BranchChange, PolicyBody, TreeBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import { prepared } from '../store/prepared.ts';
import type { BranchesTable } from '../store/schema.ts';
import type { Domain } from './domain.ts';
import { checkName } from './names.ts';
import type { Operator } from './operators.ts';
import { checkPolicy, DEFAULT_POLICY, policyOf } from './policy.ts';
import { Refusal, unknown } from './refusal.ts';

/** Branches above a leaf; each costs a look on the way of every update. */
const MAX_DEPTH = 16;

export type Branch = Selectable<BranchesTable>;

export async function createTree(domain: Domain, owner: Operator, name: string): Promise<TreeBody> {
  const tree = { id: randomUUID(), name: checkName(name), user_id: owner.id, created_at: domain.now() };
  await domain.db.insertInto('trees').values(tree).execute();
  return tree;
}

export async function listTrees(domain: Domain): Promise<TreeBody[]> {
  return domain.db.selectFrom('trees').selectAll().orderBy('created_at').orderBy('id').execute();
}

export interface NewBranch extends Partial<PolicyBody> {
  readonly name: string;
  readonly tree_id: string;
  readonly aggregation_target: number;
  readonly parent_id?: string | null | undefined;
}

/**
 * @throws Refusal `tree-unknown`, `branch-unknown`, `name-invalid`, `parent-tree`, `branch-depth`, and those of
 *   `checkPolicy`
 */
export async function createBranch(domain: Domain, fields: NewBranch): Promise<BranchBody> {
  const { name, tree_id, parent_id = null, ...changes } = fields;
  const policy: PolicyBody = { ...DEFAULT_POLICY, ...changes };
  checkPolicy(policy);
  const branch = await domain.db.transaction().execute(async (tx) => {
    const tree = await tx.selectFrom('trees').select('id').where('id', '=', tree_id).executeTakeFirst();
    if (tree === undefined) throw unknown('tree', tree_id);
    const root = parent_id === null ? undefined : await checkParent(tx, parent_id, tree_id);
    if (parent_id !== null) checkBelow(policy);
    const { aggregation_target, ...rest } = policy;
    const row = {
      id: randomUUID(),
      name: checkName(name),
      tree_id,
      parent_id,
      aggregation_target,
      policy: JSON.stringify(rest),
      run_id: root?.run_id ?? null,
      notice_number: 0,
      created_at: domain.now(),
      deleted_at: null,
    };
    await tx.insertInto('branches').values(row).execute();
    return row;
  });
  return branchBody(branch);
}

export async function listBranches(domain: Domain): Promise<BranchBody[]> {
  const rows = await domain.db
    .selectFrom('branches')
    .selectAll()
    .where('deleted_at', 'is', null)
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
 * Puts a branch below another one, or none.
 *
 * @throws Refusal `branch-unknown`, `parent-tree`, `parent-cycle`, `branch-depth`, `run-open` while a run is going on
 *   above it or below the new parent, `policy-of-root`
 */
export async function moveBranch(tx: Database, branch: Branch, parentId: string | null): Promise<void> {
  if (parentId === branch.parent_id) return;
  await checkNoRun(tx, await rootOf(tx, branch));
  if (parentId !== null) {
    const below = await branchesBelow(tx, branch.id);
    if (below.some(({ id }) => id === parentId)) {
      throw new Refusal('conflict', 'parent-cycle', 'a branch cannot stand below itself', {
        parent_id: parentId,
      });
    }
    checkBelow(policyOf(branch, branch.aggregation_target));
    await checkNoRun(tx, await checkParent(tx, parentId, branch.tree_id));
  }
  await tx
    .updateTable('branches')
    .set({ parent_id: parentId, run_id: null })
    .where('id', '=', branch.id)
    .execute();
}

/**
 * Reads a branch inside a transaction that is going to change its run, its rounds or its outbox; whoever does that comes
 * through here first. SQLite has one writer anyway; an engine with many takes the row's lock at this place.
 *
 * @throws Refusal `branch-unknown`
 */
export async function lockBranch(tx: Database, id: string): Promise<Branch> {
  const [row] = await branchById(tx, { id });
  if (row === undefined || row.deleted_at !== null) throw unknown('branch', id);
  return row;
}

const branchById = prepared((db, { id }: { readonly id: string }) =>
  db.selectFrom('branches').selectAll().where('id', '=', id),
);

/** The branch at the top, whose runs and rounds are those of all branches below it. */
export async function rootOf(tx: Database, branch: Branch): Promise<Branch> {
  let root = branch;
  while (root.parent_id !== null) root = await lockBranch(tx, root.parent_id);
  return root;
}

/** Ids of the branches from one to its root. */
export async function lineOf(tx: Database, id: string): Promise<string[]> {
  const line: string[] = [];
  for (let at: string | null = id; at !== null; ) {
    const branch = await lockBranch(tx, at);
    line.push(at);
    at = branch.parent_id;
  }
  return line;
}

/** A branch and all that stand below it, from the top. Throws Refusal `branch-unknown`. */
export async function branchesBelow(tx: Database, id: string): Promise<Branch[]> {
  const found = await branchesInOrder(tx, { id });
  if (found.length === 0) throw unknown('branch', id);
  return found;
}

const branchesInOrder = prepared((db, { id }: { readonly id: string }) =>
  withBelow(db, id)
    .selectFrom('below')
    .crossJoin('branches')
    .whereRef('branches.id', '=', 'below.id')
    .selectAll('branches')
    .orderBy('below.depth')
    .orderBy('branches.id'),
);

/**
 * A query on `below`: ids of a branch and of all below it, with how deep they stand. What is joined to it is joined by
 * `crossJoin`, which SQLite takes as an order: it does not know how few they are, and would look through the other table.
 */
export function withBelow(db: Database, id: string) {
  return db.withRecursive('below(id, depth)', (db) =>
    db
      .selectFrom('branches')
      .select(({ val }) => ['id', val<number>(0).as('depth')])
      .where('id', '=', id)
      .where('deleted_at', 'is', null)
      .unionAll(
        db
          .selectFrom('branches')
          .innerJoin('below', 'below.id', 'branches.parent_id')
          .select(({ eb }) => ['branches.id as id', eb('below.depth', '+', 1).as('depth')])
          .where('branches.deleted_at', 'is', null),
      ),
  );
}

/** The root of a new parent. */
async function checkParent(tx: Database, parentId: string, treeId: string): Promise<Branch> {
  const parent = await lockBranch(tx, parentId);
  if (parent.tree_id !== treeId) {
    throw new Refusal('unprocessable', 'parent-tree', 'the parent belongs to another tree');
  }
  if ((await lineOf(tx, parentId)).length >= MAX_DEPTH) {
    throw new Refusal('unprocessable', 'branch-depth', `branches stand at most ${MAX_DEPTH} deep`);
  }
  const root = await rootOf(tx, parent);
  if (policyOf(root, root.aggregation_target).sample !== null) {
    throw new Refusal(
      'conflict',
      'policy-sample-tree',
      'the root draws its leaves by lot, and a branch below it might be left without any',
    );
  }
  return root;
}

/** What only a root decides. Throws Refusal `policy-of-root`. */
export function checkBelow(policy: PolicyBody): void {
  const { aggregation_target: _target, minimum: _minimum, ...rest } = policy;
  const { minimum: _default, ...defaults } = DEFAULT_POLICY;
  if (JSON.stringify(sorted(rest)) === JSON.stringify(sorted(defaults))) return;
  throw new Refusal(
    'unprocessable',
    'policy-of-root',
    'a branch below another one has a target and a minimum of its own; the rest is for its root to say',
  );
}

function sorted(policy: object): [string, unknown][] {
  return Object.entries(policy).sort(([a], [b]) => (a < b ? -1 : 1));
}

/** Throws Refusal `run-open`. */
export async function checkNoRun(tx: Database, { run_id }: Branch): Promise<void> {
  if (run_id === null) return;
  const run = await tx
    .selectFrom('runs')
    .select(['number', 'status'])
    .where('id', '=', run_id)
    .executeTakeFirstOrThrow();
  if (run.status === 'stop') return;
  throw new Refusal('conflict', 'run-open', `run ${run.number} is going on: stop it first`);
}

function branchBody(row: Branch): BranchBody {
  const { id, name, tree_id, parent_id, aggregation_target, created_at } = row;
  const policy = policyOf(row, aggregation_target);
  return { id, name, tree_id, parent_id, aggregation_target, policy, created_at };
}

/** Fields of `BranchChange` that are of the policy. */
export function policyChange({ parent_id: _, ...change }: BranchChange): Partial<PolicyBody> {
  return change;
}
