import { CambiumError } from '../errors.ts';
import type { Generation } from './dialect.ts';

/**
 * What a leaf is known by. A credentials file holds each fact in the spellings of several clients; one spelling of id
 * and token is enough, and where there are two they must agree. Other members are ignored.
 */
export interface Credentials {
  /** Base URL of the server; the option `connection.server` overrides it. */
  readonly server?: string | undefined;
  /** The id of the leaf, in our files and from 2.7 on. */
  readonly id?: string | undefined;
  /** The same, up to 2.8. */
  readonly leaf_id?: string | undefined;
  /** What proves who the leaf is, in our files and from 2.7 on: keep it secret. */
  readonly session_token?: string | undefined;
  /** The same, from 2.3 to 2.8. */
  readonly leaf_session_token?: string | undefined;
  /** The name of the leaf, in our files and from 2.7 on. */
  readonly name?: string | undefined;
  /** The same, up to 2.8. */
  readonly leaf_name?: string | undefined;
  /** The tree that the branch belongs to. */
  readonly tree_id?: string | undefined;
  /** The branch that the leaf belongs to. */
  readonly branch_id?: string | undefined;
  /** The owner of the tree. */
  readonly owner_id?: string | undefined;
  /** Of clients up to 2.2, with name, tree_id and branch_id. */
  readonly leaf_password?: string | undefined;
  /** Of our servers: `amqp://host:port` or `amqps:…`; missing where there is no broker. This and the next three in Node only. */
  readonly broker_url?: string | undefined;
  /** The host of the broker, up to 2.8. */
  readonly response_host?: string | undefined;
  /** The port there. Default 5672. */
  readonly port?: number | string | undefined;
  /** The branch's password at the broker, of 2.0.x. */
  readonly queue_password?: string | undefined;
  /** What 2.4 to 2.5 send metrics with; not used, as is the next. */
  readonly performance_analyser_username?: string | undefined;
  readonly performance_analyser_password?: string | undefined;
}

/** The same facts in one spelling; the optional ones are told by the server too. */
export interface LeafIdentity {
  readonly generation: Generation;
  readonly server: string | undefined;
  /** Empty in the login generation until the login. */
  readonly leafId: string;
  readonly sessionToken: string;
  readonly leafName: string | null;
  readonly treeId: string | null;
  readonly branchId: string | null;
  readonly userId: string | null;
  /** In the login generation. */
  readonly password: string | null;
}

/** What a header can carry; everything the server makes is far inside. */
const HEADER_SAFE = /^[\x21-\x7e]+$/;

/**
 * Reads credentials in any of their spellings. The object is not kept.
 *
 * @throws CambiumError `credentials-missing` (naming what), `credentials-conflict`, `credentials-invalid`
 */
export function readCredentialFields(credentials: Credentials, wanted?: Generation): LeafIdentity {
  if (typeof credentials !== 'object' || credentials === null) {
    throw new CambiumError('credentials-invalid', `credentials must be an object, not ${typeof credentials}`);
  }
  const leafId = pick(credentials, 'id', 'leaf_id');
  const sessionToken = pick(credentials, 'session_token', 'leaf_session_token');
  const generation = wanted ?? generationOf(credentials);
  if (generation === 'login') return readLogin(credentials);
  const missing = [
    ...(leafId === null ? ['id (or leaf_id)'] : []),
    ...(sessionToken === null ? ['session_token (or leaf_session_token)'] : []),
  ];
  if (leafId === null || sessionToken === null) {
    throw lacking(missing);
  }
  // No value in the message: a misplaced token must not end up in a log.
  if (!HEADER_SAFE.test(leafId) || leafId.includes(':')) {
    throw new CambiumError('credentials-invalid', 'the id of the leaf holds characters that no id has');
  }
  if (!HEADER_SAFE.test(sessionToken)) {
    throw new CambiumError('credentials-invalid', 'the session token holds characters that no token has');
  }
  const branchId = pick(credentials, 'branch_id');
  if (generation === 'bearer' && branchId === null) throw lacking(['branch_id']);
  return {
    generation,
    server: pick(credentials, 'server') ?? DOCUMENTED_SERVERS[generation],
    leafId,
    sessionToken,
    leafName: pick(credentials, 'name', 'leaf_name'),
    treeId: pick(credentials, 'tree_id'),
    branchId,
    userId: pick(credentials, 'owner_id'),
    password: null,
  };
}

/** Where the documentation of each generation says that its service is. */
const DOCUMENTED_SERVERS: Readonly<Record<Generation, string | undefined>> = {
  cambium: undefined,
  login: 'https://api.branchkey.com',
  basic: 'https://api.branchkey.com',
  bearer: 'https://app.branchkey.com',
};

/**
 * What credentials are made for. Those of our servers name the server or hold every spelling, also where somebody took the
 * server out: their secrets must not go to BranchKey's. Those of BranchKey hold just what their client reads.
 */
function generationOf(credentials: Credentials): Generation {
  const has = (...members: readonly (keyof Credentials)[]) =>
    members.every((member) => (credentials[member] ?? '') !== '');
  if (has('server') || has('session_token', 'leaf_session_token')) return 'cambium';
  if (has('leaf_password')) return 'login';
  if (has('leaf_session_token') && !has('session_token')) return 'basic';
  if (has('id', 'name', 'session_token', 'owner_id', 'tree_id', 'branch_id') && !has('leaf_session_token')) {
    return 'bearer';
  }
  return 'cambium';
}

function readLogin(credentials: Credentials): LeafIdentity {
  const leafName = pick(credentials, 'leaf_name', 'name');
  const password = pick(credentials, 'leaf_password');
  const treeId = pick(credentials, 'tree_id');
  const branchId = pick(credentials, 'branch_id');
  const facts = { leaf_name: leafName, leaf_password: password, tree_id: treeId, branch_id: branchId };
  const missing = Object.entries(facts).flatMap(([name, value]) => (value === null ? [name] : []));
  if (missing.length > 0) throw lacking(missing);
  if (leafName?.includes(':')) {
    throw new CambiumError('credentials-invalid', 'the name of the leaf holds a colon, which ends a name');
  }
  const server = pick(credentials, 'server') ?? DOCUMENTED_SERVERS.login;
  return {
    generation: 'login',
    server,
    leafId: '',
    sessionToken: '',
    leafName,
    treeId,
    branchId,
    userId: null,
    password,
  };
}

function lacking(missing: readonly string[]): CambiumError {
  return new CambiumError(
    'credentials-missing',
    `the credentials lack ${missing.join(' and ')}; "cambium leaf create" writes a complete file`,
  );
}

/** What proves a request of the leaf, once it has a token. */
export function authorizationOf({ generation, leafId, sessionToken }: LeafIdentity): string | undefined {
  if (sessionToken === '') return undefined;
  if (generation === 'login' || generation === 'basic') return basicAuthorization(leafId, sessionToken);
  return `Bearer ${leafId}:${sessionToken}`;
}

/** RFC 7617, in UTF-8. */
export function basicAuthorization(user: string, password: string): string {
  return `Basic ${btoa(String.fromCharCode(...new TextEncoder().encode(`${user}:${password}`)))}`;
}

/** The one value that the spellings of a fact have; null when none is given. */
function pick(credentials: Credentials, ...spellings: readonly (keyof Credentials)[]): string | null {
  let value: string | null = null;
  for (const spelling of spellings) {
    const given: unknown = credentials[spelling];
    if (given === undefined || given === null || given === '') continue;
    if (typeof given !== 'string') {
      throw new CambiumError('credentials-invalid', `${spelling} must be a text, not ${typeof given}`);
    }
    if (value !== null && value !== given) {
      throw new CambiumError('credentials-conflict', `${spellings.join(' and ')} differ: keep one of them`);
    }
    value = given;
  }
  return value;
}
