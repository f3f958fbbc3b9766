/**
 * What stands between a leaf and its server: proxies, certificates of one's own. Node's fetch takes it as a dispatcher of
 * undici, an optional package that is loaded when it is needed.
 */
import type { Dispatcher } from 'undici';
import { UnavailableError } from '../errors.ts';

/** How connections are made. All members are optional; without any, the host's way. */
export interface NetworkOptions {
  /** URL of the proxy: `http:`, `https:` or `socks5:`, with user and password in it where it wants them. Default: none. */
  readonly proxy?: string | undefined;
  /** Certificates in PEM of the authorities that are believed, in place of the host's. */
  readonly ca?: string | readonly string[] | undefined;
  /** Certificate in PEM by which this leaf shows who it is, with `key`. Default: none. */
  readonly cert?: string | undefined;
  /** Private key in PEM of `cert`. */
  readonly key?: string | undefined;
  /** False believes any certificate: whoever sits on the line can read the token. Told as a warning. Default true. */
  readonly verify?: boolean | undefined;
  /** Until a connection stands, in milliseconds. Default 10,000. */
  readonly connectMs?: number | undefined;
}

/** Until a connection stands, in milliseconds, unless told otherwise. */
export const CONNECT_MS = 10_000;

const INSECURE =
  'certificates are not checked: whoever sits on the line can read the token and change the model; give "ca" instead';

/** Loud, because it must not be forgotten. */
export function warnOfInsecurity(message = INSECURE): void {
  process.emitWarning(message, 'CambiumWarning');
}

/** A fetch with connections of its own, which wait for further requests until they are ended. */
export type OwnFetch = typeof globalThis.fetch & {
  /** Ends them, and requests that are under way. */
  close(): Promise<void>;
};

/**
 * A fetch over the network described.
 *
 * @param onWarning told once when `verify` is false; a warning of the process unless given
 * @throws TypeError, RangeError for senseless options; the fetch itself UnavailableError `unavailable-package`
 */
export function networkFetch(
  options: NetworkOptions,
  onWarning: (message: string) => void = warnOfInsecurity,
): OwnFetch {
  const { proxy, cert, key, verify = true, connectMs = CONNECT_MS } = options;
  const protocol = proxy === undefined ? undefined : protocolOf(proxy);
  if ((cert === undefined) !== (key === undefined)) {
    throw new TypeError('a client certificate needs its key: give network.cert and network.key');
  }
  if (!(connectMs > 0)) throw new RangeError(`network.connectMs must be above zero, is ${connectMs}`);
  if (!verify) onWarning(INSECURE);
  let dispatcher: Promise<Dispatcher> | undefined;
  const open = async (): Promise<Dispatcher> => {
    const { Agent, ProxyAgent, Socks5ProxyAgent } = await loadUndici();
    const tls = {
      ...(options.ca !== undefined && { ca: [options.ca].flat() }),
      ...(cert !== undefined && { cert, key }),
      rejectUnauthorized: verify,
    };
    const connect = { ...tls, timeout: connectMs };
    if (proxy === undefined) return new Agent({ connect });
    if (protocol?.startsWith('socks')) {
      // Read by the agent, and missing in its types.
      const inside = { requestTls: tls } as ConstructorParameters<typeof Socks5ProxyAgent>[1];
      return new Socks5ProxyAgent(proxy, inside);
    }
    return new ProxyAgent({ uri: proxy, requestTls: connect, proxyTls: connect, connect });
  };
  const go: typeof globalThis.fetch = async (input, init) => {
    dispatcher ??= open();
    // Known to Node's fetch, and to nobody's types.
    return fetch(input, { ...init, dispatcher: await dispatcher } as RequestInit);
  };
  const close = async () => {
    const opened = await dispatcher?.catch(() => undefined); // told by the request
    await opened?.destroy();
  };
  return Object.assign(go, { close });
}

function protocolOf(proxy: string): string {
  const protocol = URL.canParse(proxy) ? new URL(proxy).protocol : '';
  if (!['http:', 'https:', 'socks5:', 'socks:'].includes(protocol)) {
    // Without the URL itself: a password may stand in it.
    throw new TypeError('network.proxy must be a URL that begins with http:, https: or socks5:');
  }
  return protocol;
}

async function loadUndici(): Promise<typeof import('undici')> {
  try {
    return await import('undici');
  } catch (cause) {
    const remedy = 'proxies and certificates of your own need the package undici: npm install undici@7';
    throw new UnavailableError('unavailable-package', remedy, { cause });
  }
}
