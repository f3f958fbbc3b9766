/** The broker's side of the server as a whole: a keeper for each tree and one for `/`, and what routes ask of them. */

import { CambiumError } from '../../errors.ts';
import { type AmqpAddress, readAmqpUrl, showAmqpAddress } from '../../node/amqp-address.ts';
import { BrokerLink } from '../../node/broker-link.ts';
import { RabbitManagement } from '../../node/rabbitmq-management.ts';
import type { Domain } from '../domain/domain.ts';
import type { Leaf } from '../domain/leaves.ts';
import type { Timers } from '../timers.ts';
import { queuePassword } from '../tokens.ts';
import { answeredAccounts, provisionedAccounts } from './accounts.ts';
import type { Broker } from './contract.ts';
import { Keeper, type Link, type OpenLink } from './keeper.ts';
import { startCursors } from './outbox.ts';
import { keepHearing, keepPlace, readPlaces } from './places.ts';
import { RootDuty } from './root.ts';
import { TreeDuty } from './tree.ts';

export interface BrokerOptions {
  /** `amqp://user:password@host:port` or `amqps:…`; the user may declare and publish in the trees' virtual hosts. */
  readonly url: string;
  /** `http://host:15672` of the management API; user and password are the broker's unless it has its own. */
  readonly managementUrl?: string | undefined;
  /**
   * How leaves log in: `http` when RabbitMQ asks this server (its HTTP auth backend), `provision` when this server makes
   * the users through the management API. `provision` by default where there is a management API, else `http`.
   */
  readonly auth?: 'http' | 'provision' | undefined;
  /** PEM of the authorities of the broker's certificate; the system's unless given. */
  readonly ca?: string | undefined;
  /** How leaves reach the broker, without user and password; as this server does unless given. */
  readonly publicUrl?: string | undefined;
}

/** An answer waits for the broker no longer than this; what is not done by then is done in the background. */
export const PATIENCE_MS = 2000;

/** The end of the server waits for the broker no longer than this. */
const CLOSING_MS = 3000;

/** How a server logs in at its broker, settled. */
export interface BrokerSettings {
  readonly address: AmqpAddress;
  readonly publicAddress: AmqpAddress;
  readonly management: RabbitManagement | undefined;
  readonly auth: 'http' | 'provision';
}

/** @throws CambiumError `broker-url`, `broker-management-url`, `broker-auth` */
export function readBrokerOptions(options: BrokerOptions): BrokerSettings {
  const { url, managementUrl, ca, publicUrl } = options;
  const address = readAmqpUrl(url, ca);
  const { username, password } = address;
  const management =
    managementUrl === undefined
      ? undefined
      : new RabbitManagement({ url: managementUrl, username, password, ca });
  const auth = options.auth ?? (management === undefined ? 'http' : 'provision');
  if (auth === 'provision' && management === undefined) {
    throw new CambiumError(
      'broker-auth',
      'users are made through the management API of the broker: give --broker-management, or --broker-auth http',
    );
  }
  const publicAddress = publicUrl === undefined ? address : readAmqpUrl(publicUrl);
  return { address, publicAddress, management, auth };
}

/** Begins to serve a broker. It need not be there. */
export async function startBroker(
  domain: Domain,
  timers: Timers,
  key: string,
  settings: BrokerSettings,
): Promise<Broker> {
  await startCursors(domain.db);
  const service = new BrokerService(domain, timers, key, settings);
  const trees = await domain.db.selectFrom('trees').select('id').execute();
  for (const { id } of trees) service.keepTree(id);
  const branches = await domain.db.selectFrom('branches').select(['id', 'tree_id']).execute();
  for (const { id, tree_id } of branches) service.listen(id, tree_id);
  return service;
}

interface KeptTree {
  readonly duty: TreeDuty;
  readonly keeper: Keeper;
}

class BrokerService implements Broker {
  readonly #domain: Domain;
  readonly #timers: Timers;
  readonly #key: string;
  readonly #settings: BrokerSettings;
  readonly #trees = new Map<string, KeptTree>();
  readonly #root: { readonly duty: RootDuty; readonly keeper: Keeper };
  /** By branch how to stop listening to its outbox. */
  readonly #listening = new Map<string, () => void>();
  readonly #openLink: OpenLink;
  #isClosed = false;

  constructor(domain: Domain, timers: Timers, key: string, settings: BrokerSettings) {
    this.#domain = domain;
    this.#timers = timers;
    this.#key = key;
    this.#settings = settings;
    this.#openLink = (vhost, events) =>
      BrokerLink.open({ address: settings.address, vhost, name: 'cambium server', ...events });
    const duty = new RootDuty(domain, this.#accounts(), key);
    this.#root = { duty, keeper: Keeper.start(duty, this.#keeperOptions()) };
  }

  keepTree(treeId: string): KeptTree {
    const known = this.#trees.get(treeId);
    if (known !== undefined) return known;
    const duty = new TreeDuty(this.#domain, this.#accounts(), treeId);
    const kept = { duty, keeper: Keeper.start(duty, this.#keeperOptions()) };
    this.#trees.set(treeId, kept);
    return kept;
  }

  /** Hands over what comes into the outbox of a branch. */
  listen(branchId: string, treeId: string): void {
    if (this.#listening.has(branchId)) return;
    const { keeper } = this.keepTree(treeId);
    const off = this.#domain.signals.on(`notices:${branchId}`, () => {
      keeper.wake(branchId);
      this.#root.keeper.wake(branchId);
    });
    this.#listening.set(branchId, off);
  }

  addLeaf(leaf: Leaf): Promise<void> {
    return this.#briefly(leaf, async () => {
      const isNewBranch = !this.#listening.has(leaf.branch_id);
      this.listen(leaf.branch_id, leaf.tree_id);
      if (isNewBranch) this.#root.keeper.wake(leaf.branch_id, 'look');
      await keepPlace(this.#domain.db, leaf.id);
      await this.#atPlace(leaf, (link, duty, place) => duty.mendPlace(link, place, 'never'));
    });
  }

  removeLeaf(leaf: Pick<Leaf, 'id' | 'branch_id' | 'tree_id'>): Promise<void> {
    return this.#briefly(leaf, async () => {
      const { duty, keeper } = this.keepTree(leaf.tree_id);
      await keeper.do((link) => duty.removePlace(link, leaf.id));
    });
  }

  beginSession(leaf: Leaf, passwordHash?: string): Promise<void> {
    return this.#briefly(leaf, async () => {
      await keepPlace(this.#domain.db, leaf.id, { passwordHash });
      await this.#atPlace(leaf, async (link, duty, place) => {
        await duty.admit(place);
        await duty.mendPlace(link, place, 'always');
      });
      if (passwordHash !== undefined) {
        await this.#root.keeper.do((link) => this.#root.duty.tell(link, leaf));
      }
    });
  }

  hearRun(leaf: Leaf): Promise<void> {
    return this.#briefly(leaf, async () => {
      await keepHearing(this.#domain.db, leaf.id);
      await this.#atPlace(leaf, (link, duty, place) => duty.mendPlace(link, place, 'once'));
    });
  }

  credentials(branchId: string) {
    const { publicAddress } = this.#settings;
    return {
      response_host: publicAddress.hostname,
      broker_url: showAmqpAddress(publicAddress),
      port: publicAddress.port,
      queue_password: queuePassword(this.#key, branchId),
    };
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const off of this.#listening.values()) off();
    const keepers = [this.#root, ...this.#trees.values()].map(({ keeper }) => keeper.close());
    let forget = () => {};
    const patience = new Promise<void>((resolve) => {
      forget = this.#timers.after(CLOSING_MS, resolve);
    });
    await Promise.race([Promise.allSettled(keepers), patience]);
    forget();
  }

  #atPlace(
    leaf: Leaf,
    work: (link: Link, duty: TreeDuty, place: Parameters<TreeDuty['mendPlace']>[1]) => Promise<void>,
  ): Promise<void> {
    const { duty, keeper } = this.keepTree(leaf.tree_id);
    return keeper.do(async (link) => {
      const [place] = await readPlaces(this.#domain.db, { leafId: leaf.id });
      if (place !== undefined && !place.isRevoked) await work(link, duty, place);
    });
  }

  /** Ends when the work has, or when it takes too long; never fails. What was not done is mended later. */
  async #briefly(leaf: Pick<Leaf, 'id' | 'branch_id' | 'tree_id'>, work: () => Promise<void>): Promise<void> {
    let forget = () => {};
    const patience = new Promise<void>((resolve) => {
      forget = this.#timers.after(PATIENCE_MS, resolve);
    });
    const done = work().catch((error) => {
      if (this.#isClosed || error.code === 'unavailable-broker') return; // the keeper has said so
      this.#domain.log.error({ err: error, leaf: leaf.id }, 'the broker could not be told of a leaf');
      this.keepTree(leaf.tree_id).keeper.wake(leaf.branch_id, 'renew');
    });
    await Promise.race([done, patience]);
    forget();
  }

  #accounts() {
    const { auth, management } = this.#settings;
    return auth === 'provision' && management !== undefined
      ? provisionedAccounts(management)
      : answeredAccounts(management);
  }

  #keeperOptions() {
    return { domain: this.#domain, timers: this.#timers, openLink: this.#openLink };
  }
}
