/**
 * What stands where at the broker, for every generation of the BranchKey client and for our own. Two arrangements:
 *
 * - *tree*, from 2.1 on: a virtual host for each tree, in it an exchange for each branch and a queue for each leaf. The
 *   leaf's id is user and queue, its token the password. Leaves declare nothing; they read their own queue.
 * - *root*, 2.0.x: everything in the virtual host `/`. The branch's id is the user of all its leaves; each declares its
 *   queue and the exchange of the branch by itself. Messages are the id of the aggregation as plain text.
 */

/** Rights as RabbitMQ has them: regular expressions over the names of queues and exchanges. */
export interface BrokerRights {
  readonly configure: string;
  readonly write: string;
  readonly read: string;
}

/** Matches no name of a thing. */
const NOTHING = '^$';

/** The virtual host of 2.0.x. */
export const ROOT_VHOST = '/';

/** The virtual host of a tree. */
export function treeVhost(treeId: string): string {
  return treeId;
}

/** The exchange of a branch in its tree's virtual host: direct, bound by the type of the message. */
export function branchExchange(branchId: string): string {
  return branchId;
}

/** The queue of a leaf in its tree's virtual host. */
export function leafQueue(leafId: string): string {
  return leafId;
}

/** A leaf reads its own queue; it declares nothing and publishes nothing. Ids hold no character with a meaning here. */
export function leafRights(leafId: string): BrokerRights {
  return { configure: NOTHING, write: NOTHING, read: `^${leafQueue(leafId)}$` };
}

/** The exchange of 2.0.x: fanout, durable, deleted with its last queue. */
export function rootExchange(branchId: string): string {
  return `${branchId}_exchange`;
}

/** The queue of 2.0.4.3: durable, expires 30 s after its last reader. */
export function rootQueue(branchId: string, leafName: string): string {
  return `${branchId}_${leafName}`;
}

/** Leaves of 2.0.x share the names that begin with their branch's id. */
export function rootRights(branchId: string): BrokerRights {
  const own = `^${branchId}_`;
  return { configure: own, write: own, read: own };
}
