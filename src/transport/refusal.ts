/** What is made of an answer that is no good one, without what nobody but the two sides may see. */
import {
  type CambiumError,
  type ExchangeFacts,
  ProtocolError,
  RefusedError,
  UnavailableError,
} from '../errors.ts';

/** Characters of a body that an error shows. */
const MAX_PREVIEW = 200;

/** What is shorter is no secret, and would tear words apart. */
const MIN_SECRET = 8;

/** A token that a body repeats begins within its preview and may end so far behind it. */
const MAX_SECRET = 1024;

/** What was asked, in words, and how to show what comes back. */
export interface Asked {
  readonly where: string;
  readonly conceal: (text: string) => string;
  /** Whether a file was asked for, at an address that the server gave. */
  readonly isLink: boolean;
}

/** The error that an answer with a bad status is. Its `code` is the server's own, where the server is ours. */
export function refusal(
  text: string,
  facts: ExchangeFacts & { readonly status: number },
  contentType: string | null,
  asked: Asked,
): CambiumError {
  const { where, conceal, isLink } = asked;
  const { status } = facts;
  const body = jsonObject(text);
  const message = body?.message ?? body?.error;
  if (typeof message === 'string') {
    const code = typeof body?.code === 'string' ? body.code : `http-${status}`;
    return new RefusedError(printable(code), printable(conceal(message)), status, facts);
  }
  const said = `${where}: answered ${status} with ${contentType ?? 'no content type'}`;
  if (status >= 500) return new UnavailableError('unavailable-server', said, facts);
  return isLink
    ? noFile(facts, contentType, asked)
    : new ProtocolError('protocol-not-json', `${said}; is this the address of a Cambium server?`, facts);
}

/** The error that a page in the place of a file is. */
export function noFile(
  facts: ExchangeFacts & { readonly status: number },
  contentType: string | null,
  { where }: Asked,
): ProtocolError {
  const shown = facts.preview === undefined ? '' : ` (${facts.preview})`;
  return new ProtocolError(
    'protocol-download',
    `${where}: the download link gave no file: answered ${facts.status} with ${contentType || 'no content type'}${shown}; ` +
      'it may have expired, or there is a log-in page in between',
    facts,
  );
}

/** The beginning of a body, for people. */
export function previewOf(text: string, conceal: (text: string) => string): string {
  return printable(conceal(text.slice(0, MAX_PREVIEW + MAX_SECRET))).slice(0, MAX_PREVIEW);
}

/** Takes out of a stranger's words what proves who asked, and queries of URLs, which may be signed. */
export function concealer(authorization: string | undefined): (text: string) => string {
  const value = authorization?.slice(authorization.indexOf(' ') + 1) ?? '';
  const plain = /^Basic /i.test(authorization ?? '') ? atob(value) : value;
  const secrets = [value, plain, plain.slice(plain.indexOf(':') + 1)].filter(
    ({ length }) => length >= MIN_SECRET,
  );
  return (text) =>
    secrets
      .reduce((shown, secret) => shown.replaceAll(secret, '…'), text)
      .replace(/\?[^\s"'<>=]+=[^\s"'<>]*/g, '?…');
}

function jsonObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** Words from a stranger end up on terminals: no control characters, no novels. */
function printable(text: string): string {
  return text.replace(/\p{Cc}+/gu, ' ').slice(0, 2000);
}

/** A URL without what may be signed. */
export function withoutQuery(url: string): string {
  return url.replace(/[?#].*$/s, '');
}
