/**
 * The reader of a leaf's queue at a RabbitMQ. The connection comes back by itself, the reader with it, and whoever is
 * refused or finds no queue asks the server to make things good (`renew`) before the next try.
 */
import type { Channel, RecoveringChannelModel } from 'amqplib';
import { type CambiumError, isCambiumError, RefusedError, UnavailableError } from '../errors.ts';
import { type Clock, sleep, systemClock } from '../transport/clock.ts';
import { MAX_FRUITLESS, type Reconnecting } from '../transport/notices.ts';
import { backoffMs, retryPolicy } from '../transport/retry.ts';
import type { AmqpAddress } from './amqp-address.ts';
import { type AmqpAccount, connectionFailure, openAmqpConnection, replyCodeOf } from './amqp-connection.ts';

/** What a leaf reads at its broker, as it is at this moment: a session that begins anew may change it. */
export interface AmqpPlace extends AmqpAccount {
  readonly vhost: string;
  readonly queue: string;
  /** Where the leaf declares its queue by itself and binds it: the exchange. Else the queue must stand. */
  readonly exchange?: string | undefined;
}

export interface AmqpQueueOptions extends Reconnecting {
  readonly address: Omit<AmqpAddress, 'username' | 'password'>;
  readonly place: () => AmqpPlace;
  /** Shown in the broker's list of connections. */
  readonly name: string;
  /** Asks the server for a session: it makes sure of user and queue. What it throws ends the notices when it is a refusal. */
  readonly renew?: ((signal: AbortSignal) => Promise<void>) | undefined;
  /** Told of messages that were dropped and of connections that failed. A warning of the process unless given. */
  readonly onWarning?: ((sentence: string) => void) | undefined;
  readonly clock?: Clock | undefined;
}

/** Messages that wait here without having been acknowledged. */
const PREFETCH = 32;

/** What the broker of 2.0.x is told of a queue: it goes 30 s after its last reader. */
const ROOT_QUEUE = { durable: true, arguments: { 'x-expires': 30_000 } };

/** Certificates do not become valid by trying again. */
const TLS = /^(CERT_|ERR_TLS_|ERR_SSL_|UNABLE_TO_|SELF_SIGNED_CERT|DEPTH_ZERO_SELF_SIGNED)/;

export interface Delivery {
  readonly content: Uint8Array;
  acknowledge(): void;
  /** Never to come again: to the dead letters, where the queue has them. */
  drop(): void;
}

/** The reader of the queue, for as long as its signal lets it. */
export class QueueReader {
  readonly #options: AmqpQueueOptions;
  readonly #signal: AbortSignal;
  readonly #clock: Clock;
  readonly #deliveries: Delivery[] = [];
  #connection: RecoveringChannelModel | undefined;
  #reading: { readonly channel: Channel; readonly ended: Promise<Error | undefined> } | undefined;
  #wake = () => {};
  #failure: { readonly error: unknown } | undefined;
  #fruitless = 0;
  #renewing: Promise<void> | undefined;

  constructor(options: AmqpQueueOptions, signal: AbortSignal) {
    this.#options = options;
    this.#signal = signal;
    this.#clock = options.clock ?? systemClock;
  }

  async open(): Promise<void> {
    const { address, place, name } = this.#options;
    const account = () => place();
    const { vhost, username, password } = place();
    const connection = await openAmqpConnection({
      address: { ...address, username, password },
      vhost,
      name,
      account,
      reconnect: this.#options.reconnect,
    });
    this.#connection = connection;
    connection.on('connect-failed', (error) => this.#missed(error));
    connection.on('disconnect', (error) => this.warn(connectionFailure(this.#address, error)));
    // It never rejects: a failure goes to who waits.
    void this.#keepReading(connection);
  }

  async next(): Promise<Delivery> {
    for (;;) {
      this.#signal.throwIfAborted();
      const delivery = this.#deliveries.shift();
      if (delivery !== undefined) return delivery;
      if (this.#failure !== undefined) throw this.#failure.error;
      const wakeOnAbort = () => this.#wake();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        this.#signal.addEventListener('abort', wakeOnAbort, { once: true });
      });
      this.#signal.removeEventListener('abort', wakeOnAbort);
    }
  }

  async close(): Promise<void> {
    // The channel first: the library may send the end of a connection before what its channels have written, and what was
    // acknowledged would come again.
    this.#reading?.channel.close().catch(() => {}); // it may be closed by now
    await this.#reading?.ended;
    await this.#connection?.close();
  }

  warn(sentence: string): void {
    const { onWarning = (text: string) => process.emitWarning(text, 'CambiumWarning') } = this.#options;
    onWarning(sentence);
  }

  get #address(): AmqpAddress {
    return { ...this.#options.address, username: '', password: '' };
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wake();
  }

  /** An attempt to connect failed; the library makes the next. */
  #missed(error: Error): void {
    const { code } = error as NodeJS.ErrnoException;
    const why = connectionFailure(this.#address, error);
    if (typeof code === 'string' && TLS.test(code)) {
      this.#fail(
        new UnavailableError(
          'unavailable-tls',
          `${why}: its certificate is not believed; give its authority`,
          {
            cause: error,
          },
        ),
      );
    }
    this.#giveUpAfterMany(new UnavailableError('unavailable-broker', why, { cause: error }));
    // It was reached and said no: perhaps it has been emptied, or the password is of an older session.
    if (typeof code !== 'string') void this.#renew();
  }

  #giveUpAfterMany(failure: CambiumError): void {
    if (++this.#fruitless === 1) this.warn(failure.message);
    const { reconnect, onReconnect } = this.#options;
    if (this.#fruitless >= (reconnect?.attempts ?? MAX_FRUITLESS)) this.#fail(failure);
    else onReconnect?.({ attempt: this.#fruitless, error: failure });
  }

  /** One at a time; a refusal of the server is the end of all. */
  #renew(): Promise<void> {
    const { renew } = this.#options;
    if (renew === undefined) return Promise.resolve();
    this.#renewing ??= renew(this.#signal)
      .catch((error) => {
        const isFinal = isCambiumError(error) && error instanceof RefusedError && error.status < 500;
        if (isFinal) this.#fail(error);
      })
      .finally(() => {
        this.#renewing = undefined;
      });
    return this.#renewing;
  }

  async #keepReading(connection: RecoveringChannelModel): Promise<void> {
    const policy = retryPolicy({ baseMs: 250, maxMs: 10_000 }, this.#clock, Math.random);
    try {
      for (let tried = 1; ; tried++) {
        let failure: Error | undefined;
        try {
          // Waits for a connection, as long as it takes.
          const channel = await connection.createChannel();
          const ended = endOf(channel);
          this.#reading = { channel, ended };
          let onDeleted = (_: QueueDeleted) => {};
          const deleted = new Promise<QueueDeleted>((resolve) => {
            onDeleted = resolve;
          });
          await this.#consume(channel, onDeleted);
          tried = 0;
          this.#fruitless = 0;
          failure = await Promise.race([ended, deleted]);
        } catch (error) {
          failure = error as Error; // the library throws nothing else
        }
        this.#signal.throwIfAborted();
        // Refused, cancelled, or found no queue; and a line that broke comes back by itself.
        if (failure !== undefined) {
          if (replyCodeOf(failure) === 404 || failure instanceof QueueDeleted) await this.#renew();
          const why = `broker, queue ${this.#options.place().queue}: ${failure.message}`;
          this.#giveUpAfterMany(new UnavailableError('unavailable-broker', why, { cause: failure }));
        }
        await sleep(this.#clock, backoffMs(policy, Math.max(1, tried)), this.#signal);
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  async #consume(channel: Channel, onDeleted: (why: QueueDeleted) => void): Promise<void> {
    const { queue, exchange } = this.#options.place();
    if (exchange !== undefined) {
      await channel.assertExchange(exchange, 'fanout', { durable: true, autoDelete: true });
      await channel.assertQueue(queue, ROOT_QUEUE);
      await channel.bindQueue(queue, exchange, queue);
    }
    await channel.prefetch(PREFETCH);
    await channel.consume(queue, (message) => {
      if (message === null) {
        channel.close().catch(() => {}); // it may be closed by now
        return onDeleted(new QueueDeleted('the queue was deleted'));
      }
      this.#deliveries.push({
        content: message.content,
        acknowledge: () => unlessClosed(() => channel.ack(message)),
        drop: () => unlessClosed(() => channel.reject(message, false)),
      });
      this.#wake();
    });
  }
}

class QueueDeleted extends Error {}

/** When a channel has closed: with the error for which the broker closed it, or undefined with its connection. */
function endOf(channel: Channel): Promise<Error | undefined> {
  return new Promise((resolve) => {
    let failure: Error | undefined;
    channel.on('error', (error) => {
      failure = error;
    });
    channel.on('close', () => resolve(failure));
  });
}

/** On a channel that is gone nothing can be said, and nothing need be: its messages come again. */
function unlessClosed(work: () => void): void {
  try {
    work();
  } catch (error) {
    if ((error as Error).name !== 'IllegalOperationError') throw error;
  }
}
