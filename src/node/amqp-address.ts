import { isIP } from 'node:net';
import { CambiumError } from '../errors.ts';

/** How to reach a broker: what its URL says, and whom to believe. */
export interface AmqpAddress {
  readonly protocol: 'amqp' | 'amqps';
  /** Without the brackets of IPv6. */
  readonly hostname: string;
  readonly port: number;
  readonly username: string;
  readonly password: string;
  /** PEM of the authorities that may have signed the broker's certificate; the system's unless given. */
  readonly ca?: string | undefined;
}

const PORTS = { amqp: 5672, amqps: 5671 } as const;

/**
 * Reads `amqp://user:password@host:port` or `amqps:…`; a path would be a virtual host, and those are not the caller's
 * choice.
 *
 * @throws CambiumError `broker-url`, without the URL in its message: it may hold a password
 */
export function readAmqpUrl(text: string, ca?: string): AmqpAddress {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new CambiumError(
      'broker-url',
      'the address of the broker is no URL: amqp://user:password@host:5672',
    );
  }
  const protocol = url.protocol.slice(0, -1);
  if ((protocol !== 'amqp' && protocol !== 'amqps') || url.hostname === '') {
    throw new CambiumError('broker-url', `the address of the broker begins with amqp:// or amqps://`);
  }
  if ((url.pathname !== '' && url.pathname !== '/') || url.search !== '' || url.hash !== '') {
    throw new CambiumError('broker-url', 'the address of the broker ends with its port: no path, no query');
  }
  return {
    protocol,
    hostname: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: url.port === '' ? PORTS[protocol] : Number(url.port),
    username: decodeURIComponent(url.username) || 'guest',
    password: decodeURIComponent(url.password) || 'guest',
    ca,
  };
}

/** The address as it may be shown: without user and password. */
export function showAmqpAddress({ protocol, hostname, port }: AmqpAddress): string {
  return `${protocol}://${isIP(hostname) === 6 ? `[${hostname}]` : hostname}:${port}`;
}
