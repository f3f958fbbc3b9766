import type { RecoveringChannelModel } from 'amqplib';
import type { ReconnectOptions } from '../transport/notices.ts';
import { type AmqpAddress, showAmqpAddress } from './amqp-address.ts';

/** A peer that says nothing for two of these is gone, whatever TCP thinks. */
const HEARTBEAT_S = 15;

/** A broker that does not finish the handshake within this is not there. */
const CONNECT_MS = 10_000;

/** Pauses between attempts: from this, doubled, up to that, with a fifth of chance so that leaves do not return as one. */
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 10_000;

/** Longest frame that is accepted; notices have a few hundred bytes, and a hostile broker could announce gigabytes. */
const MAX_FRAME_BYTES = 1 << 20;

export interface AmqpConnectionOptions {
  readonly address: AmqpAddress;
  readonly vhost: string;
  /** Shown in the broker's list of connections. */
  readonly name: string;
  /** Asked at every attempt: who logs in, where that changes. The address says it unless given. */
  readonly account?: (() => AmqpAccount) | undefined;
  readonly reconnect?: ReconnectOptions | undefined;
}

/** User and password at a broker. */
export type AmqpAccount = Pick<AmqpAddress, 'username' | 'password'>;

/**
 * A connection that comes back by itself, as often as it takes, until it is closed. It is returned before there is one:
 * the events `connect`, `connect-failed` and `disconnect` tell.
 */
export async function openAmqpConnection(options: AmqpConnectionOptions): Promise<RecoveringChannelModel> {
  const { account, address } = options;
  const { protocol, hostname, port, username, password, ca } = address;
  // Only who has a broker pays for the library.
  const { connect } = await import('amqplib');
  const connection = await connect(
    {
      protocol,
      hostname,
      port,
      username,
      password,
      vhost: encodeURIComponent(options.vhost),
      heartbeat: HEARTBEAT_S,
      maxFrameSize: MAX_FRAME_BYTES,
    },
    {
      timeout: CONNECT_MS,
      noDelay: true,
      keepAlive: true,
      clientProperties: { connection_name: options.name },
      ...(ca === undefined ? {} : { ca }),
      ...(account === undefined ? {} : { credentials: plain(account) }),
      recovery: {
        waitForConnect: false,
        initialDelay: options.reconnect?.baseMs ?? FIRST_PAUSE_MS,
        maxDelay: options.reconnect?.maxMs ?? LONGEST_PAUSE_MS,
      },
    },
  );
  // An error is followed by `disconnect`, which is listened to; without a listener it would end the process.
  connection.on('error', () => {});
  return connection;
}

/** SASL PLAIN (RFC 4616) with what the account is at that moment. */
function plain(account: () => AmqpAccount) {
  return {
    mechanism: 'PLAIN',
    response() {
      const { username, password } = account();
      return Buffer.from(`\0${username}\0${password}`);
    },
  };
}

/** What failed and where, in a sentence without secrets. */
export function connectionFailure(address: AmqpAddress, error: Error): string {
  const { code, message } = error as NodeJS.ErrnoException;
  // The library does not say why a virtual host was refused; and Node's errors of several addresses have only a code.
  const why = message.includes('Expected ConnectionOpenOk')
    ? 'the virtual host is missing, or closed to this user'
    : message || code || 'the connection failed';
  return `broker ${showAmqpAddress(address)}: ${why}`;
}

/** RabbitMQ's number for why it refused something (404, 406, 530 …); undefined for other errors. */
export function replyCodeOf(error: unknown): number | undefined {
  const { code } = error as { code?: unknown };
  return typeof code === 'number' ? code : undefined;
}
