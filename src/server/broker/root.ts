/**
 * The virtual host `/` of 2.0.x, whose clients declare queues and exchange by themselves (wire/broker.ts). While none of
 * a branch is there, there is no exchange, and nothing to do.
 */
import { ROOT_VHOST, rootExchange, rootQueue, rootRights } from '../../wire/broker.ts';
import type { Domain } from '../domain/domain.ts';
import type { Leaf } from '../domain/leaves.ts';
import type { NumberedNotice } from '../domain/notices.ts';
import { hashToken, queuePassword } from '../tokens.ts';
import type { Accounts } from './accounts.ts';
import type { Duty, Link } from './keeper.ts';
import { cursorOf, owedTo } from './outbox.ts';

export class RootDuty implements Duty {
  readonly arrangement = 'root';
  readonly vhost = ROOT_VHOST;
  readonly #domain: Domain;
  readonly #accounts: Accounts;
  readonly #key: string;
  /** Branches whose user was made on this connection. */
  #known = new Set<string>();

  constructor(domain: Domain, accounts: Accounts, key: string) {
    this.#domain = domain;
    this.#accounts = accounts;
    this.#key = key;
  }

  async prepare(): Promise<void> {
    this.#known = new Set();
    await this.#accounts.makeVhost(this.vhost);
  }

  async branches(): Promise<string[]> {
    return (await this.#domain.db.selectFrom('branches').select('id').execute()).map((row) => row.id);
  }

  async mend(_link: Link, branchId: string, isNewConnection: boolean): Promise<void> {
    if (this.#known.has(branchId) && !isNewConnection) return;
    const hash = hashToken(queuePassword(this.#key, branchId));
    await this.#accounts.makeUser(branchId, hash, this.vhost, rootRights(branchId));
    this.#known.add(branchId);
  }

  /** A client of 2.0.x declares its queue before it logs in: then it is told what it is owed. */
  async tell(link: Link, leaf: Leaf): Promise<void> {
    const { db } = this.#domain;
    const queue = rootQueue(leaf.branch_id, leaf.name);
    if ((await link.waitingIn(queue)) !== 0) return;
    const cursor = await cursorOf(db, leaf.branch_id, 'root');
    for (const { data } of await owedTo(db, leaf, cursor, 1)) {
      if (data.message_type === 'aggregation_status') await tellId(link, '', queue, data.aggregation_id);
    }
  }

  async publish(link: Link, branchId: string, notices: readonly NumberedNotice[]): Promise<void> {
    const ids = notices.flatMap(({ data }) =>
      data.message_type === 'aggregation_status' ? [data.aggregation_id] : [],
    );
    const exchange = rootExchange(branchId);
    if (ids.length === 0 || !(await link.hasExchange(exchange))) return;
    await Promise.all(ids.map((id) => tellId(link, exchange, '', id)));
  }
}

/** To a client of 2.0.x the id is the message. */
function tellId(link: Link, exchange: string, key: string, aggregationId: string): Promise<void> {
  return link.publish(exchange, key, aggregationId, 'text/plain');
}
