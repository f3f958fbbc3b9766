/** The virtual host of a tree, for clients from 2.1 on and for our own (wire/broker.ts). */
import { branchExchange, leafQueue, leafRights, treeVhost } from '../../wire/broker.ts';
import type { Domain } from '../domain/domain.ts';
import type { NumberedNotice } from '../domain/notices.ts';
import type { Accounts } from './accounts.ts';
import type { Duty, Link } from './keeper.ts';
import { cursorOf, owedTo } from './outbox.ts';
import { forgetPlace, keepPlace, type Place, readPlaces } from './places.ts';

/**
 * A leaf that never comes must not fill the broker: the oldest messages go first. A round gives one or two, so this is
 * some hundred rounds; and the newest aggregation is published again anyway.
 */
const MAX_QUEUE_LENGTH = 256;

/** A notice that nobody has read for so long is no news: 14 days. */
const MESSAGE_TTL_MS = 14 * 24 * 3_600_000;

const QUEUE_ARGUMENTS = {
  'x-max-length': MAX_QUEUE_LENGTH,
  'x-overflow': 'drop-head',
  'x-message-ttl': MESSAGE_TTL_MS,
} as const;

const JSON_TYPE = 'application/json';

/** When the newest aggregation is published again to a queue that stands but is empty. */
export type Repeat = 'once' | 'always' | 'never';

export class TreeDuty implements Duty {
  readonly arrangement = 'tree';
  readonly vhost: string;
  readonly #domain: Domain;
  readonly #accounts: Accounts;
  readonly #treeId: string;
  /** By leaf the newest notice that was published again to its empty queue. */
  readonly #repeated = new Map<string, number>();

  constructor(domain: Domain, accounts: Accounts, treeId: string) {
    this.#domain = domain;
    this.#accounts = accounts;
    this.#treeId = treeId;
    this.vhost = treeVhost(treeId);
  }

  prepare(): Promise<void> {
    return this.#accounts.makeVhost(this.vhost);
  }

  async branches(): Promise<string[]> {
    const rows = await this.#domain.db
      .selectFrom('branches')
      .select('id')
      .where('tree_id', '=', this.#treeId)
      .execute();
    return rows.map((row) => row.id);
  }

  async mend(link: Link, branchId: string, isNewConnection: boolean): Promise<void> {
    await link.declareExchange(branchExchange(branchId), 'direct');
    for (const place of await readPlaces(this.#domain.db, { branchId })) {
      if (place.isRevoked) await this.removePlace(link, place.id);
      else await this.mendPlace(link, place, isNewConnection ? 'once' : 'never');
    }
  }

  /**
   * Makes sure of a leaf's user, queue and bindings. A queue that has to be made gets everything that the leaf is owed;
   * one that stands and is empty gets the newest, so that a leaf whose process died with it is told again. The reader of
   * an empty queue may well have it in hand: a new connection of ours repeats it once only.
   */
  async mendPlace(link: Link, place: Place, repeat: Repeat): Promise<void> {
    const { db } = this.#domain;
    const queue = leafQueue(place.id);
    const exchange = branchExchange(place.branch_id);
    const waiting = await link.waitingIn(queue);
    const isNew = waiting === undefined;
    if (isNew) {
      await keepPlace(db, place.id);
      await link.declareExchange(exchange, 'direct');
      await link.declareQueue(queue, QUEUE_ARGUMENTS);
      // After the queue: a client that finds none gives up for good, one that is not let in tries again.
      await this.admit(place).catch(async (error) => {
        await link.deleteQueue(queue); // a queue that stands says that all is done
        throw error;
      });
    }
    if (isNew || repeat !== 'never') {
      await link.bind(queue, exchange, 'aggregation_status');
      if (place.hearsRun) await link.bind(queue, exchange, 'run_status');
      else await link.unbind(queue, exchange, 'run_status');
    }
    if (!isNew && (waiting > 0 || repeat === 'never')) return;
    // Only what the cursor has passed: the rest is published to all in a moment.
    const cursor = await cursorOf(db, place.branch_id, 'tree');
    const owed = await owedTo(db, place, cursor, isNew ? MAX_QUEUE_LENGTH : 1);
    const newest = owed.at(-1)?.number;
    if (newest === undefined) return;
    if (!isNew && repeat === 'once' && this.#repeated.get(place.id) === newest) return;
    await Promise.all(owed.map((notice) => link.publish('', queue, JSON.stringify(notice.data), JSON_TYPE)));
    this.#repeated.set(place.id, newest);
  }

  /** Makes the leaf's user, or gives it the password of the session that begins. */
  async admit(place: Place): Promise<void> {
    await this.#accounts.makeUser(place.id, place.passwordHash, this.vhost, leafRights(place.id));
  }

  /** Takes away what a leaf has here. */
  async removePlace(link: Link, leafId: string): Promise<void> {
    await this.#accounts.removeUser(leafId);
    await link.deleteQueue(leafQueue(leafId));
    await forgetPlace(this.#domain.db, leafId);
    this.#repeated.delete(leafId);
  }

  async publish(link: Link, branchId: string, notices: readonly NumberedNotice[]): Promise<void> {
    const exchange = branchExchange(branchId);
    // All are on their way before the first is confirmed: one round trip for all.
    await Promise.all(
      notices.map(({ data }) => link.publish(exchange, data.message_type, JSON.stringify(data), JSON_TYPE)),
    );
  }
}
