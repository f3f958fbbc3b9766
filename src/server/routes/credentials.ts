import { isUtf8 } from 'node:buffer';
import type { FastifyRequest } from 'fastify';
import { authenticateLeaf, identifyLeaf, type Leaf, type TokenKind } from '../domain/leaves.ts';
import { authenticateOperator, type Operator } from '../domain/operators.ts';
import { Refusal, unknown } from '../domain/refusal.ts';
import type { Database } from '../store/database.ts';

/** What ids look like: UUIDs of version 4 in lower case. */
const ID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** Whether a text can be an id. */
export function isId(text: string): boolean {
  return ID.test(text);
}

/**
 * The id in the path, checked: whatever else stands there never gets any further.
 *
 * @throws Refusal `…-unknown`
 */
export function pathId(request: FastifyRequest, kind: string): string {
  const { id } = request.params as { id: string }; // every pattern that asks has `:id`
  if (!isId(id)) throw unknown(kind, JSON.stringify(id.slice(0, 64)));
  return id;
}

/**
 * The operator who asks; a viewer may only look.
 *
 * @throws Refusal `credentials-missing`, `operator-required`, `role-viewer`, `token-…`
 */
export async function operatorOf(db: Database, request: FastifyRequest): Promise<Operator> {
  const token = bearer(request);
  if (token.includes(':')) {
    throw new Refusal('forbidden', 'operator-required', 'this is for operators, not for leaves');
  }
  const operator = await authenticateOperator(db, token);
  if (operator.role === 'viewer' && request.method !== 'GET') {
    throw new Refusal('forbidden', 'role-viewer', 'a viewer may look, but not change anything');
  }
  return operator;
}

/**
 * The leaf that asks, by `Bearer <leaf id>:<session token>`.
 *
 * @throws Refusal `credentials-missing`, `leaf-required`, `leaf-unknown`, `token-…`
 */
export async function leafOf(db: Database, request: FastifyRequest): Promise<Leaf> {
  const credentials = bearer(request);
  if (!credentials.includes(':')) {
    throw new Refusal('forbidden', 'leaf-required', 'this is for leaves: send <leaf id>:<session token>');
  }
  return leafByPair(db, credentials);
}

/** The leaf whose id stands in the path, which must be the one that asks. Throws Refusal `leaf-other` besides. */
export async function leafOfPath(db: Database, request: FastifyRequest): Promise<Leaf> {
  const leaf = await leafOf(db, request);
  if (pathId(request, 'leaf') !== leaf.id) {
    throw new Refusal('forbidden', 'leaf-other', 'the credentials belong to another leaf');
  }
  return leaf;
}

/** A leaf or an operator, whoever asks. */
export async function anyoneOf(
  db: Database,
  request: FastifyRequest,
): Promise<{ readonly leaf: Leaf | undefined }> {
  if (bearer(request).includes(':')) return { leaf: await leafOf(db, request) };
  await operatorOf(db, request);
  return { leaf: undefined };
}

/**
 * The leaf that asks, by `Basic base64(<leaf id>:<token>)`, and which of its tokens it has sent.
 *
 * @throws Refusal `credentials-missing`, `leaf-unknown`, `token-…`
 */
export async function basicLeafOf(
  db: Database,
  request: FastifyRequest,
): Promise<{ readonly leaf: Leaf; readonly kind: TokenKind }> {
  const { user, password } = basicPair(request);
  if (!isId(user)) throw unknown('leaf', JSON.stringify(user.slice(0, 64)));
  return identifyLeaf(db, user, password);
}

/**
 * User and password as they were sent. The last colon parts them: our tokens have none, names of leaves may.
 *
 * @throws Refusal `credentials-missing`
 */
export function basicPair(request: FastifyRequest): { readonly user: string; readonly password: string } {
  const bytes = Buffer.from(scheme(request, 'Basic'), 'base64');
  // Python's requests sends names in Latin-1.
  const credentials = isUtf8(bytes) ? bytes.toString('utf8') : bytes.toString('latin1');
  const colon = credentials.lastIndexOf(':');
  return { user: credentials.slice(0, Math.max(0, colon)), password: credentials.slice(colon + 1) };
}

function leafByPair(db: Database, credentials: string): Promise<Leaf> {
  const colon = credentials.indexOf(':');
  const id = credentials.slice(0, Math.max(0, colon));
  if (!isId(id)) throw unknown('leaf', JSON.stringify(id.slice(0, 64)));
  return authenticateLeaf(db, id, credentials.slice(colon + 1));
}

function bearer(request: FastifyRequest): string {
  return scheme(request, 'Bearer');
}

function scheme(request: FastifyRequest, name: string): string {
  const header = request.headers.authorization;
  const [actual, value] = header?.split(' ', 2) ?? [];
  if (actual?.toLowerCase() !== name.toLowerCase() || value === undefined || value === '') {
    throw new Refusal('unauthenticated', 'credentials-missing', `send the header Authorization: ${name} …`);
  }
  return value;
}
