/** What the server does in one virtual host of a RabbitMQ: declare, bind, ask, publish. */
import type { Channel, ConfirmChannel, RecoveringChannelModel } from 'amqplib';
import { UnavailableError } from '../errors.ts';
import { type AmqpAddress, showAmqpAddress } from './amqp-address.ts';
import { connectionFailure, openAmqpConnection, replyCodeOf } from './amqp-connection.ts';

/** Arguments of a queue, as RabbitMQ names them. */
export type QueueArguments = Readonly<Record<string, string | number>>;

export interface BrokerLinkOptions {
  readonly address: AmqpAddress;
  readonly vhost: string;
  readonly name: string;
  /** Called at every connection. What an earlier one declared may be gone. */
  readonly onUp: () => void;
  /** Called for every attempt that fails and every connection that breaks, with a sentence that says why. */
  readonly onDown: (why: string) => void;
}

/**
 * One virtual host, for as long as it takes: while there is no connection every operation fails at once with
 * `unavailable-broker`, and so does whatever was under way when it broke. An operation may have been done all the same;
 * all of them can be done again.
 */
export class BrokerLink {
  readonly #address: AmqpAddress;
  readonly #connection: RecoveringChannelModel;
  #isUp = false;
  /** RabbitMQ closes a channel on which it refuses something: publishing has one of its own. */
  #publishing: Promise<ConfirmChannel> | undefined;
  #asking: Promise<Channel> | undefined;
  readonly #watched = new WeakSet<Channel>();

  private constructor(options: BrokerLinkOptions, connection: RecoveringChannelModel) {
    this.#address = options.address;
    this.#connection = connection;
    connection.on('connect', () => {
      this.#isUp = true;
      options.onUp();
    });
    connection.on('disconnect', (error) => {
      this.#forget();
      options.onDown(connectionFailure(options.address, error));
    });
    connection.on('connect-failed', (error) => options.onDown(connectionFailure(options.address, error)));
  }

  /** Begins to connect. */
  static async open(options: BrokerLinkOptions): Promise<BrokerLink> {
    return new BrokerLink(options, await openAmqpConnection(options));
  }

  get isUp(): boolean {
    return this.#isUp;
  }

  /** Declares a durable exchange, unless it stands. */
  async declareExchange(
    name: string,
    type: 'direct' | 'fanout',
    { autoDelete = false }: { readonly autoDelete?: boolean } = {},
  ): Promise<void> {
    await (await this.#ask()).assertExchange(name, type, { durable: true, autoDelete });
  }

  /** Declares a durable queue, unless it stands with the same arguments. */
  async declareQueue(name: string, args: QueueArguments): Promise<void> {
    await (await this.#ask()).assertQueue(name, { durable: true, arguments: args });
  }

  async hasExchange(name: string): Promise<boolean> {
    return (await this.#look((channel) => channel.checkExchange(name))) !== undefined;
  }

  /** Messages that wait in a queue, those in the hands of its reader not counted; undefined when there is no such queue. */
  async waitingIn(queue: string): Promise<number | undefined> {
    return (await this.#look((channel) => channel.checkQueue(queue)))?.messageCount;
  }

  async bind(queue: string, exchange: string, key: string): Promise<void> {
    await (await this.#ask()).bindQueue(queue, exchange, key);
  }

  async unbind(queue: string, exchange: string, key: string): Promise<void> {
    await (await this.#ask()).unbindQueue(queue, exchange, key);
  }

  /** Deletes a queue with what is in it; its reader is told. Harmless when there is none. */
  async deleteQueue(name: string): Promise<void> {
    await (await this.#ask()).deleteQueue(name);
  }

  /**
   * Publishes a message that survives the broker, and ends when the broker has said that it has it. The exchange `''`
   * leads to the queue with the key's name.
   */
  async publish(exchange: string, key: string, text: string, contentType: string): Promise<void> {
    const channel = await this.#publish();
    await new Promise<void>((resolve, reject) => {
      const options = { persistent: true, contentType, contentEncoding: 'utf-8' };
      channel.publish(exchange, key, Buffer.from(text), options, (error) =>
        error == null ? resolve() : reject(this.#away(error)),
      );
    });
  }

  /** Ends the connection, and every operation with it. */
  async close(): Promise<void> {
    this.#forget();
    await this.#connection.close();
  }

  #publish(): Promise<ConfirmChannel> {
    if (!this.#isUp) return Promise.reject(this.#away());
    this.#publishing ??= this.#connection.createConfirmChannel();
    const opening = this.#publishing;
    return this.#watch(opening, () => {
      if (this.#publishing === opening) this.#publishing = undefined;
    });
  }

  #ask(): Promise<Channel> {
    if (!this.#isUp) return Promise.reject(this.#away());
    this.#asking ??= this.#connection.createChannel();
    const opening = this.#asking;
    return this.#watch(opening, () => {
      if (this.#asking === opening) this.#asking = undefined;
    });
  }

  /** Asks for something that need not be there. */
  async #look<T>(question: (channel: Channel) => Promise<T>): Promise<T | undefined> {
    const channel = await this.#ask();
    try {
      return await question(channel);
    } catch (error) {
      if (replyCodeOf(error) !== 404) throw error;
      return undefined;
    }
  }

  async #watch<T extends Channel>(opening: Promise<T>, forget: () => void): Promise<T> {
    try {
      const channel = await opening;
      if (!this.#watched.has(channel)) {
        this.#watched.add(channel);
        // The operation that was refused hears of it too; without a listener the error would end the process.
        channel.on('error', () => {});
        channel.on('close', forget);
      }
      return channel;
    } catch (error) {
      forget();
      throw this.#away(error);
    }
  }

  #forget(): void {
    this.#isUp = false;
    this.#publishing = undefined;
    this.#asking = undefined;
  }

  #away(cause?: unknown): UnavailableError {
    return new UnavailableError(
      'unavailable-broker',
      `the broker ${showAmqpAddress(this.#address)} does not answer`,
      { cause },
    );
  }
}
