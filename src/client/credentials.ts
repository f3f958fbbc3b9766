import { CambiumError } from '../errors.ts';

/**
 * What a leaf is known by. A credentials file holds each fact in the spellings of several clients; one spelling of id
 * and token is enough, and where there are two they must agree. Other members are ignored.
 */
export interface Credentials {
  /** Base URL of the server; `ClientOptions.server` overrides it. */
  readonly server?: string | undefined;
  readonly id?: string | undefined;
  readonly leaf_id?: string | undefined;
  readonly session_token?: string | undefined;
  readonly leaf_session_token?: string | undefined;
  readonly name?: string | undefined;
  readonly leaf_name?: string | undefined;
  readonly tree_id?: string | undefined;
  readonly branch_id?: string | undefined;
  readonly owner_id?: string | undefined;
}

/** The same facts in one spelling; the optional ones are told by the server too. */
export interface LeafIdentity {
  readonly server: string | undefined;
  readonly leafId: string;
  readonly sessionToken: string;
  readonly leafName: string | null;
  readonly treeId: string | null;
  readonly branchId: string | null;
  readonly userId: string | null;
}

/** What a header can carry; everything the server makes is far inside. */
const HEADER_SAFE = /^[\x21-\x7e]+$/;

/**
 * Reads credentials in any of their spellings. The object is not kept.
 *
 * @throws CambiumError `credentials-missing` (naming what), `credentials-conflict`, `credentials-invalid`
 */
export function readCredentialFields(credentials: Credentials): LeafIdentity {
  if (typeof credentials !== 'object' || credentials === null) {
    throw new CambiumError('credentials-invalid', `credentials must be an object, not ${typeof credentials}`);
  }
  const leafId = pick(credentials, 'id', 'leaf_id');
  const sessionToken = pick(credentials, 'session_token', 'leaf_session_token');
  const missing = [
    ...(leafId === null ? ['id (or leaf_id)'] : []),
    ...(sessionToken === null ? ['session_token (or leaf_session_token)'] : []),
  ];
  if (leafId === null || sessionToken === null) {
    throw new CambiumError(
      'credentials-missing',
      `the credentials lack ${missing.join(' and ')}; "cambium leaf create" writes a complete file`,
    );
  }
  // No value in the message: a misplaced token must not end up in a log.
  if (!HEADER_SAFE.test(leafId) || leafId.includes(':')) {
    throw new CambiumError('credentials-invalid', 'the id of the leaf holds characters that no id has');
  }
  if (!HEADER_SAFE.test(sessionToken)) {
    throw new CambiumError('credentials-invalid', 'the session token holds characters that no token has');
  }
  return {
    server: pick(credentials, 'server') ?? undefined,
    leafId,
    sessionToken,
    leafName: pick(credentials, 'name', 'leaf_name'),
    treeId: pick(credentials, 'tree_id'),
    branchId: pick(credentials, 'branch_id'),
    userId: pick(credentials, 'owner_id'),
  };
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
