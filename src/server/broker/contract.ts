/**
 * What routes say to the broker's side. Nothing here fails, and nothing makes an answer wait for longer than a moment:
 * what a broker that is away could not be told, it is told when it is back.
 */
import type { Leaf } from '../domain/leaves.ts';

/** What clients of the broker find in their credentials. */
interface BrokerCredentials {
  readonly response_host: string;
  readonly broker_url: string;
  readonly port: number;
  readonly queue_password: string;
}

export interface Broker {
  /** Makes the place of a new leaf: its user, its queue. */
  addLeaf(leaf: Leaf): Promise<void>;
  /** Takes all of it away, the connection too. */
  removeLeaf(leaf: Pick<Leaf, 'id' | 'branch_id' | 'tree_id'>): Promise<void>;
  /**
   * A client has authenticated or logged in: its queue stands before it is answered, and holds the newest aggregation
   * unless that was fetched. It hears nothing of the run until it asks for it (`hearRun`).
   *
   * @param passwordHash of the token that is the broker's password from now on; the session token's without
   */
  beginSession(leaf: Leaf, passwordHash?: string): Promise<void>;
  /** A client has asked for its run: from now on it is told of changes. To be called before the run is looked at. */
  hearRun(leaf: Leaf): Promise<void>;
  /** What a credentials file says of the broker; undefined without one. */
  credentials(branchId: string): BrokerCredentials | undefined;
  close(): Promise<void>;
}

/** The server without a broker. */
export const noBroker: Broker = {
  async addLeaf() {},
  async removeLeaf() {},
  async beginSession() {},
  async hearRun() {},
  credentials: () => undefined,
  async close() {},
};
