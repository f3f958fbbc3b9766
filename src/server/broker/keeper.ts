/**
 * Keeps one virtual host in step with the database: hands the outbox over, and makes stand what should stand whenever
 * the broker is new, came back or was emptied. It works in the background, one thing after the other; while the broker
 * is away it rests.
 */
import type { Domain } from '../domain/domain.ts';
import { type NumberedNotice, noticesAfter } from '../domain/notices.ts';
import type { Timers } from '../timers.ts';
import { type Arrangement, cursorOf, moveCursor } from './outbox.ts';

/** What a keeper needs of a connection; node/broker-link.ts has it. */
export interface Link {
  readonly isUp: boolean;
  declareExchange(name: string, type: 'direct' | 'fanout', options?: { autoDelete?: boolean }): Promise<void>;
  declareQueue(name: string, args: Readonly<Record<string, string | number>>): Promise<void>;
  hasExchange(name: string): Promise<boolean>;
  waitingIn(queue: string): Promise<number | undefined>;
  bind(queue: string, exchange: string, key: string): Promise<void>;
  unbind(queue: string, exchange: string, key: string): Promise<void>;
  deleteQueue(name: string): Promise<void>;
  publish(exchange: string, key: string, text: string, contentType: string): Promise<void>;
  close(): Promise<void>;
}

/** Opens a link to a virtual host: it connects in the background and tells how that goes. */
export type OpenLink = (
  vhost: string,
  events: { readonly onUp: () => void; readonly onDown: (why: string) => void },
) => Promise<Link>;

/** What is done in a virtual host, whoever keeps the connection. */
export interface Duty {
  readonly arrangement: Arrangement;
  readonly vhost: string;
  /** Makes the virtual host itself, where that is possible. */
  prepare(): Promise<void>;
  /** The branches that the virtual host serves. */
  branches(): Promise<readonly string[]>;
  /**
   * Makes stand what belongs to a branch.
   *
   * @param isNewConnection what was there before may be gone or outdated; otherwise it is only looked after
   */
  mend(link: Link, branchId: string, isNewConnection: boolean): Promise<void>;
  /** Hands notices over, in their order; ends when the broker has confirmed all. */
  publish(link: Link, branchId: string, notices: readonly NumberedNotice[]): Promise<void>;
}

export interface KeeperOptions {
  readonly domain: Domain;
  readonly timers: Timers;
  readonly openLink: OpenLink;
}

/** A queue that was deleted while the connection lasts is found after this long. */
const LOOK_AFTER_MS = 30_000;

/** After something went wrong on a connection that lasts. */
const RETRY_MS = 5000;

/** How a branch must be seen to; the later ones include the earlier. */
const ERRANDS = ['publish', 'look', 'renew'] as const;
type Errand = (typeof ERRANDS)[number];

export class Keeper {
  readonly #duty: Duty;
  readonly #options: KeeperOptions;
  readonly #errands = new Map<string, Errand>();
  /** Ends when the first attempt to connect has, either way. */
  readonly #attempted: Promise<void>;
  #hasAttempted: () => void = () => {};
  #link: Link | undefined;
  /** The end of the chain of everything that is done on the link. */
  #turn: Promise<void> = Promise.resolve();
  #isWorking = false;
  #isAway = false;
  #isClosed = false;
  #preparing: Promise<void> | undefined;
  #cancelTimer = () => {};

  private constructor(duty: Duty, options: KeeperOptions) {
    this.#duty = duty;
    this.#options = options;
    this.#attempted = new Promise((resolve) => {
      this.#hasAttempted = resolve;
    });
  }

  /** Begins to keep a virtual host. Never fails: what is not possible yet is tried again. */
  static start(duty: Duty, options: KeeperOptions): Keeper {
    const keeper = new Keeper(duty, options);
    void keeper.#open();
    return keeper;
  }

  /** There are notices in the outbox of a branch; or something of it may be missing (`look`) or outdated (`renew`). */
  wake(branchId: string, errand: Errand = 'publish'): void {
    this.#note(branchId, errand);
    void this.#work();
  }

  /**
   * Does something on the link, after what is under way. With the outbox of the branch at rest: a queue that is bound in
   * here misses nothing that the cursor has not passed.
   *
   * @throws UnavailableError `unavailable-broker` at once while the broker is away
   */
  async do<T>(work: (link: Link) => Promise<T>): Promise<T> {
    await this.#attempted;
    return this.#inTurn(work);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelTimer();
    this.#hasAttempted();
    await this.#link?.close();
    await this.#turn;
  }

  async #open(): Promise<void> {
    const { openLink, timers } = this.#options;
    await this.#prepare();
    if (this.#isClosed) return;
    const link = await openLink(this.#duty.vhost, {
      onUp: () => this.#onUp(),
      onDown: (why) => this.#onDown(why),
    });
    this.#link = link;
    if (this.#isClosed) return void link.close();
    const lookAfter = () => {
      this.#cancelTimer = timers.after(LOOK_AFTER_MS, () => {
        void this.#noteAll('look').then(() => this.#work());
        lookAfter();
      });
    };
    lookAfter();
  }

  #onUp(): void {
    if (this.#isAway) this.#options.domain.log.info({ vhost: this.#duty.vhost }, 'the broker is back');
    this.#isAway = false;
    this.#hasAttempted();
    void this.#noteAll('renew').then(() => this.#work());
  }

  #onDown(why: string): void {
    this.#hasAttempted();
    if (this.#isClosed) return;
    if (!this.#isAway) {
      this.#options.domain.log.error(
        { vhost: this.#duty.vhost, why },
        'the broker is away; it will be tried again',
      );
    }
    this.#isAway = true;
    // An emptied broker has no virtual host to connect to.
    void this.#prepare();
  }

  #prepare(): Promise<void> {
    this.#preparing ??= this.#duty
      .prepare()
      .catch((error) => {
        if (this.#isAway || this.#isClosed) return; // said already
        this.#options.domain.log.error({ vhost: this.#duty.vhost, err: error }, 'no virtual host was made');
      })
      .finally(() => {
        this.#preparing = undefined;
      });
    return this.#preparing;
  }

  #note(branchId: string, errand: Errand): void {
    const known = this.#errands.get(branchId);
    if (known === undefined || ERRANDS.indexOf(known) < ERRANDS.indexOf(errand)) {
      this.#errands.set(branchId, errand);
    }
  }

  async #noteAll(errand: Errand): Promise<void> {
    if (this.#link?.isUp !== true || this.#isClosed) return;
    try {
      for (const branchId of await this.#duty.branches()) this.#note(branchId, errand);
    } catch (error) {
      this.#options.domain.log.error({ err: error }, 'the branches could not be read');
    }
  }

  /** Runs the errands until none is left. */
  async #work(): Promise<void> {
    if (this.#isWorking) return;
    this.#isWorking = true;
    try {
      while (this.#link?.isUp === true && !this.#isClosed) {
        const [next] = this.#errands;
        if (next === undefined) break;
        const [branchId, errand] = next;
        this.#errands.delete(branchId);
        try {
          await this.#inTurn(async (link) => {
            if (errand !== 'publish') await this.#duty.mend(link, branchId, errand === 'renew');
            await this.#publish(link, branchId);
          });
        } catch (error) {
          this.#note(branchId, errand);
          if (this.#link?.isUp !== true || this.#isClosed) break; // a new connection sees to everything
          const { domain, timers } = this.#options;
          domain.log.error(
            { err: error, vhost: this.#duty.vhost, branch: branchId },
            'the broker refused something; it will be tried again',
          );
          timers.after(RETRY_MS, () => void this.#work());
          break;
        }
      }
    } finally {
      this.#isWorking = false;
    }
  }

  /** Hands over what is in the outbox, a page at a time; the cursor follows when the broker has confirmed a page. */
  async #publish(link: Link, branchId: string): Promise<void> {
    const { db } = this.#options.domain;
    const { arrangement } = this.#duty;
    let number = await cursorOf(db, branchId, arrangement);
    for (;;) {
      const page = await noticesAfter(db, branchId, number);
      const last = page.at(-1);
      if (last === undefined) return;
      await this.#duty.publish(link, branchId, page);
      number = last.number;
      await moveCursor(db, branchId, arrangement, number);
    }
  }

  #inTurn<T>(work: (link: Link) => Promise<T>): Promise<T> {
    const done = this.#turn.then(() => {
      if (this.#isClosed || this.#link === undefined) throw new Error('the broker is not connected yet');
      return work(this.#link);
    });
    this.#turn = done.then(
      () => {},
      () => {},
    );
    return done;
  }
}
