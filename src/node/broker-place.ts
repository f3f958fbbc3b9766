/** Where a leaf's notices wait: what its credentials say of the broker, for each generation. */
import type { Credentials, LeafIdentity } from '../client/credentials.ts';
import type { Generation } from '../client/dialect.ts';
import { CambiumError } from '../errors.ts';
import { leafQueue, ROOT_VHOST, rootExchange, rootQueue, treeVhost } from '../wire/broker.ts';
import { type AmqpAddress, readAmqpUrl } from './amqp-address.ts';
import type { AmqpPlace } from './amqp-reader.ts';

/** The broker, where the credentials and the generation's habits are not to be followed. */
export interface BrokerOptions {
  /** `amqp://host:port` or `amqps:…`. Default: `broker_url` of the credentials, else as the generation's client finds it. */
  readonly url?: string | undefined;
  /** Certificates in PEM of the authorities that are believed. Default: the host's. */
  readonly ca?: string | undefined;
  /**
   * `tree`, from 2.1 on: the virtual host of the tree, the leaf's own user and queue. `root`, 2.0.x: the virtual host `/`,
   * the user of the branch with `queue_password`. Default `tree`.
   */
  readonly arrangement?: 'tree' | 'root' | undefined;
}

/**
 * The broker's address; undefined where nothing says that there is one.
 *
 * @throws CambiumError `broker-url`
 */
export function brokerAddress(
  credentials: Credentials,
  generation: Generation,
  server: string | undefined,
  options: BrokerOptions = {},
): AmqpAddress | undefined {
  const { broker_url, response_host, port } = credentials;
  const url = options.url ?? broker_url;
  if (url !== undefined && url !== '') return readAmqpUrl(url, options.ca);
  // Our servers say when they have one. The others have one always.
  if (generation === 'cambium' || (credentials.server ?? '') !== '') return undefined;
  if (generation !== 'bearer') {
    if (!response_host) return undefined;
    return readAmqpUrl(`amqp://${response_host}:${port || 5672}`, options.ca);
  }
  if (server === undefined) return undefined;
  return readAmqpUrl(`amqps://${new URL(server).hostname}:5671`, options.ca);
}

/**
 * The place of a leaf at the broker.
 *
 * @throws CambiumError `credentials-missing` when its parts are neither in the credentials nor told by the server yet
 */
export function brokerPlace(
  { leafId, leafName, treeId, branchId, sessionToken }: LeafIdentity,
  arrangement: 'tree' | 'root',
  queuePassword: string | undefined,
): AmqpPlace {
  if (arrangement === 'root') {
    if (branchId === null || leafName === null || !queuePassword) {
      throw new CambiumError(
        'credentials-missing',
        'the broker of 2.0.x needs branch_id, leaf_name and queue_password',
      );
    }
    return {
      vhost: ROOT_VHOST,
      username: branchId,
      password: queuePassword,
      queue: rootQueue(branchId, leafName),
      exchange: rootExchange(branchId),
    };
  }
  if (treeId === null || leafId === '') {
    throw new CambiumError('credentials-missing', 'the broker needs tree_id and the id of the leaf');
  }
  return { vhost: treeVhost(treeId), username: leafId, password: sessionToken, queue: leafQueue(leafId) };
}
