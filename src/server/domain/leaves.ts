import { randomUUID } from 'node:crypto';
import type { LeafBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import { prepared } from '../store/prepared.ts';
import { hashToken, isToken, newToken } from '../tokens.ts';
import type { Domain } from './domain.ts';
import { checkName } from './names.ts';
import { Refusal, unknown } from './refusal.ts';
import { followSettlement, policyOfRound, type Round, roundInProgress, settleRound } from './rounds.ts';
import { currentRun } from './runs.ts';
import { standingOf } from './standing.ts';
import { type Branch, lockBranch } from './trees.ts';

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
    const branch = await lockBranch(tx, fields.branch_id);
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
        access_hash: null,
        created_at: domain.now(),
        revoked_at: null,
      })
      .execute();
    await joinDraw(tx, branch, id);
  });
  return { ...leafOfRow((await findLeaf(domain.db, id))!), token }; // inserted above
}

/** Where an open round asks fewer leaves than it wants, it asks who joins as well: nobody else could fill it. */
async function joinDraw(tx: Database, branch: Branch, leafId: string): Promise<void> {
  const round = await openRoundOf(tx, branch);
  if (round === undefined || round.sample === null) return;
  const drawn = JSON.parse(round.sample) as string[]; // written by openRound
  const { sample } = await policyOfRound(tx, round);
  if (drawn.length >= sample!.leaves) return; // it has drawn
  await tx
    .updateTable('rounds')
    .set({ sample: JSON.stringify([...drawn, leafId].sort()) })
    .where('id', '=', round.id)
    .execute();
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
  const { leaf, settled } = await domain.db.transaction().execute(async (tx) => {
    const found = await findLeaf(tx, id);
    if (found === undefined) throw unknown('leaf', id);
    const now = domain.now();
    await tx
      .updateTable('leaves')
      .set({ revoked_at: now })
      .where('id', '=', id)
      .where('revoked_at', 'is', null)
      .execute();
    return { leaf: found, settled: await settleWithout(tx, found, now) };
  });
  domain.signals.emit(`notices:${leaf.branch_id}`);
  if (settled !== undefined) await followSettlement(domain, settled.branchId, settled.roundId, settled);
  return leaf;
}

/** A round that waited for nobody else closes. */
async function settleWithout(tx: Database, leaf: LeafRow, now: number) {
  const round = await openRoundOf(tx, await lockBranch(tx, leaf.branch_id));
  if (round === undefined) return undefined;
  return {
    branchId: round.branch_id,
    roundId: round.id,
    ...(await settleRound(tx, round, await standingOf(tx, round), now)),
  };
}

async function openRoundOf(tx: Database, branch: Branch): Promise<Round | undefined> {
  const run = await currentRun(tx, branch);
  return run && run.status !== 'stop' ? roundInProgress(tx, run.id) : undefined;
}

/** Whether the leaf's token has been taken back. */
export async function isRevoked(db: Database, id: string): Promise<boolean> {
  const [leaf] = await revocation(db, { id });
  return leaf === undefined || leaf.revoked_at !== null;
}

const revocation = prepared((db, { id }: { readonly id: string }) =>
  db.selectFrom('leaves').select('revoked_at').where('id', '=', id),
);

/** @throws Refusal `leaf-unknown`, `token-invalid`, `token-revoked` */
export async function authenticateLeaf(db: Database, id: string, token: string): Promise<Leaf> {
  const row = await findLeaf(db, id);
  if (row === undefined) throw unknown('leaf', id);
  if (!isToken(token, row.token_hash)) throw invalid(id);
  return unrevoked(row);
}

/** Which token a leaf came with: its own for good, or the one that a login gave it for a while. */
export type TokenKind = 'session' | 'access';

/**
 * The same where both tokens are taken.
 *
 * @throws Refusal `leaf-unknown`, `token-invalid`, `token-revoked`
 */
export async function identifyLeaf(
  db: Database,
  id: string,
  token: string,
): Promise<{ readonly leaf: Leaf; readonly kind: TokenKind }> {
  const row = await findLeaf(db, id);
  if (row === undefined) throw unknown('leaf', id);
  const kind = kindOf(token, row);
  if (kind === undefined) throw invalid(id);
  return { leaf: unrevoked(row), kind };
}

/**
 * Gives a leaf an access token, which takes the place of the one before: a leaf is one process, and one that ended
 * without a word must not leave a working token behind.
 *
 * @param password the leaf's session token
 * @returns the leaf, the token, and what is kept of it
 * @throws Refusal `branch-unknown`, `leaf-unknown`, `token-invalid`, `token-revoked`
 */
export async function logIn(
  domain: Domain,
  place: { readonly tree_id: string; readonly branch_id: string },
  name: string,
  password: string,
): Promise<{ readonly leaf: Leaf; readonly accessToken: string; readonly accessHash: string }> {
  return domain.db.transaction().execute(async (tx) => {
    const branch = await lockBranch(tx, place.branch_id);
    if (branch.tree_id !== place.tree_id) throw unknown('branch', place.branch_id);
    const row = await leafRows(tx)
      .where('leaves.branch_id', '=', branch.id)
      .where('leaves.name', '=', name)
      .executeTakeFirst();
    if (row === undefined) throw unknownName(name);
    if (!isToken(password, row.token_hash)) throw invalid(row.id);
    const leaf = unrevoked(row);
    const accessToken = newToken();
    const accessHash = hashToken(accessToken);
    await tx.updateTable('leaves').set({ access_hash: accessHash }).where('id', '=', leaf.id).execute();
    return { leaf, accessToken, accessHash };
  });
}

/**
 * Takes the access token of a leaf back. Without one nothing changes.
 *
 * @param user id or name of the leaf, as the versions of the client have it; a name may stand in several branches, and
 *   the token tells which one is meant
 * @param token either of its tokens
 * @throws Refusal `leaf-unknown`, `token-invalid`, `token-revoked`
 */
export async function logOut(domain: Domain, user: string, token: string): Promise<Leaf> {
  return domain.db.transaction().execute(async (tx) => {
    const rows = await leafRows(tx)
      .where(({ or, eb }) => or([eb('leaves.id', '=', user), eb('leaves.name', '=', user)]))
      .execute();
    if (rows.length === 0) throw unknownName(user);
    const row = rows.find((candidate) => kindOf(token, candidate) !== undefined);
    if (row === undefined) throw invalid(user);
    const leaf = unrevoked(row);
    await tx.updateTable('leaves').set({ access_hash: null }).where('id', '=', leaf.id).execute();
    return leaf;
  });
}

/** The refusal for a leaf whose token has been taken back. */
export function revoked(id: string): Refusal {
  return new Refusal('unauthenticated', 'token-revoked', `the session token of leaf ${id} was revoked`);
}

function invalid(user: string): Refusal {
  return new Refusal('unauthenticated', 'token-invalid', `this is not the token of leaf ${quoted(user)}`);
}

function unknownName(name: string): Refusal {
  return new Refusal('missing', 'leaf-unknown', `there is no leaf with the name ${quoted(name)}`);
}

/** A name from a request, as it may stand in a message. */
function quoted(name: string): string {
  return JSON.stringify(name.slice(0, 64));
}

type LeafRow = NonNullable<Awaited<ReturnType<typeof findLeaf>>>;

function kindOf(token: string, row: LeafRow): TokenKind | undefined {
  if (isToken(token, row.token_hash)) return 'session';
  return row.access_hash !== null && isToken(token, row.access_hash) ? 'access' : undefined;
}

/** @throws Refusal `token-revoked` */
function unrevoked(row: LeafRow): Leaf {
  if (row.revoked_at !== null) throw revoked(row.id);
  return leafOfRow(row);
}

function leafOfRow({ id, name, branch_id, tree_id, user_id }: LeafRow): Leaf {
  return { id, name, branch_id, tree_id, user_id };
}

async function findLeaf(db: Database, id: string) {
  const [row] = await leafById(db, { id });
  return row;
}

const leafById = prepared((db, { id }: { readonly id: string }) => leafRows(db).where('leaves.id', '=', id));

function leafRows(db: Database) {
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
      'leaves.access_hash',
      'leaves.revoked_at',
    ]);
}
