import { type CambiumError, ProtocolError, UnavailableError } from '../errors.ts';
import { TransientFailure } from './retry.ts';

/** What Node's codes say to people. Browsers tell nothing but "failed". */
const SENTENCES: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there',
  ENOTFOUND: 'the host name is unknown',
  EAI_AGAIN: 'the host name could not be looked up',
  EHOSTUNREACH: 'the host cannot be reached',
  ENETUNREACH: 'the network cannot be reached',
  ECONNRESET: 'the connection broke',
  EPIPE: 'the connection broke',
  UND_ERR_SOCKET: 'the connection broke',
};

const TIMEOUTS: ReadonlySet<string> = new Set([
  'ETIMEDOUT',
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
]);

/** Certificates do not become valid by trying again. */
const TLS = /^(CERT_|ERR_TLS_|ERR_SSL_|UNABLE_TO_|SELF_SIGNED_CERT|DEPTH_ZERO_SELF_SIGNED)/;

/**
 * Turns what fetch rejects with into an error of ours, wrapped in TransientFailure where another try makes sense.
 *
 * @param where the request in words, without its query, which may be signed
 */
export function networkError(cause: unknown, where: string): CambiumError | TransientFailure {
  const code = systemCode(cause);
  const said = messages(cause);
  if (said.includes('unexpected redirect')) {
    return new ProtocolError('protocol-redirect', `${where}: redirected; give the final address`, { cause });
  }
  if (said.includes('bad port')) {
    const sentence = `${where}: fetch refuses this port, as browsers do; let the server listen at another`;
    return new UnavailableError('unavailable-server', sentence, { cause });
  }
  if (TLS.test(code)) {
    const remedy = /EXPIRED|NOT_YET_VALID/.test(code) ? "; is this machine's clock right?" : '';
    const what =
      code === 'ERR_SSL_WRONG_VERSION_NUMBER' ? 'no TLS is spoken there' : 'the certificate was not accepted';
    const sentence = `${where}: ${what} (${code})${remedy}`;
    return new UnavailableError('unavailable-tls', sentence, { cause });
  }
  if (code.startsWith('HPE_')) {
    return new ProtocolError('protocol-http', `${where}: the answer is not HTTP (${code})`, { cause });
  }
  if (TIMEOUTS.has(code)) {
    return new TransientFailure(new UnavailableError('timeout', `${where}: no answer in time`, { cause }));
  }
  const sentence =
    SENTENCES[code] ?? (code === '' ? 'the connection failed' : `the connection failed (${code})`);
  return new TransientFailure(new UnavailableError('unavailable-server', `${where}: ${sentence}`, { cause }));
}

/** The first code in the chain of causes; empty when there is none. */
function systemCode(error: unknown): string {
  for (const link of chain(error)) {
    const code = (link as { code?: unknown }).code;
    if (typeof code === 'string') return code;
  }
  return '';
}

function messages(error: unknown): string[] {
  return [...chain(error)].map((link) => link.message);
}

function* chain(error: unknown): Generator<Error> {
  const seen = new Set<unknown>();
  for (let link = error; link instanceof Error && !seen.has(link); link = link.cause) {
    seen.add(link);
    yield link;
  }
}
