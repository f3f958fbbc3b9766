import { createHash, type Hash } from 'node:crypto';
import { tmpdir } from 'node:os';
import { Client as AnyClient } from '../client/client.ts';
import { type Credentials, readCredentialFields } from '../client/credentials.ts';
import type { FileAccess, Sha256 } from '../client/file-access.ts';
import type { ClientNoticesOptions, ClientOptions } from '../client/options.ts';
import { CambiumError } from '../errors.ts';
import type { ModelUpdate } from '../tensor/tensor.ts';
import { amqpNotices } from './amqp-notices.ts';
import { type BrokerOptions, brokerAddress, brokerPlace } from './broker-place.ts';
import { fileFetch } from './file-fetch.ts';
import { openFileSink, openFileSource } from './files.ts';
import { CONNECT_MS, type NetworkOptions, networkFetch, type OwnFetch, warnOfInsecurity } from './network.ts';
import { openPartialSink } from './partial-files.ts';
import { type SavedWeights, type SaveWeightsOptions, saveWeights } from './save-weights.ts';
import { unpackingIn } from './unpacking.ts';

/** Paths are taken as they are: relative to the working directory, `~` is a name like any other. */
const files: FileAccess = {
  openSource: (path) => openFileSource(path),
  openSink: (path) => openFileSink(path, { durable: true }),
  openPartialSink,
  readSum: async (source) => (await import('./sum-layout.ts')).readSumLayout(source),
  sha256: () => sha256Over(createHash('sha256')),
  unpacking: unpackingIn(tmpdir()),
};

function sha256Over(hash: Hash): Sha256 {
  return {
    update: (bytes) => void hash.update(bytes),
    copy: () => sha256Over(hash.copy()),
    digest: () => hash.digest('hex'),
    digestBytes: () => hash.digest(),
  };
}

/** As of the portable client, and RabbitMQ. */
export interface NodeNoticesOptions extends Omit<ClientNoticesOptions, 'carrier'> {
  /**
   * As of the portable client, and `amqp`: from the leaf's queue at a RabbitMQ, which is the default for the generations of
   * BranchKey where there is one. Our own API has events, which need no second port.
   */
  readonly carrier?: ClientNoticesOptions['carrier'] | 'amqp';
}

/** What can be set about a client in Node: as everywhere, and the broker and the network. */
export interface NodeClientOptions extends Omit<ClientOptions, 'notices'> {
  /** How the leaf is told of aggregations and runs: by events, or RabbitMQ where BranchKey has it, all in order. */
  readonly notices?: NodeNoticesOptions | undefined;
  /** The broker, where the credentials do not tell it right. */
  readonly broker?: BrokerOptions | undefined;
  /** Proxy, own authority, client certificate; `fetch` overrides it. Needs the package undici. */
  readonly network?: NetworkOptions | undefined;
}

/** The client with paths: files are sent and written block by block, whatever their size. */
export class Client extends AnyClient {
  readonly #verification: { verify: boolean } | undefined;
  readonly #fetches: readonly (OwnFetch | undefined)[];

  /** As the portable client; throws the same, and CambiumError `broker-url`. */
  constructor(credentials: Credentials, { broker, network, ...options }: NodeClientOptions = {}) {
    const verification = { verify: network?.verify ?? true };
    const carrier = carrierOf(credentials, { ca: authoritiesOf(network), ...broker }, options);
    const fetch = options.fetch ? undefined : switchedFetch(network, verification);
    const fileFetch = fetch && switchedFileFetch(network, verification, fetch);
    super(credentials, {
      ...options,
      fetch: options.fetch ?? fetch,
      fileFetch: options.fileFetch ?? fileFetch,
      notices: { ...options.notices, carrier },
      files: options.files ?? files,
    });
    // A fetch of the caller's decides for itself.
    this.#verification = options.fetch === undefined ? verification : undefined;
    this.#fetches = [fetch, fileFetch];
  }

  override async close(): Promise<void> {
    await super.close();
    for (const each of this.#fetches) await each?.close();
  }

  /** As the function of this name: writes an update as a weight file, a compressed `.npz` unless the path says otherwise. */
  saveWeights(path: string, update: ModelUpdate, options?: SaveWeightsOptions): Promise<SavedWeights> {
    return saveWeights(path, update, options);
  }

  /**
   * Believes any certificate of the server from now on: whoever sits on the line can read the token and change the model.
   * Told as a warning of the process. Give `network.ca` instead wherever you can. Needs the package undici.
   *
   * @param enabled whether certificates are checked; true goes back to that
   * @throws TypeError where the client has a `fetch` of the caller's
   */
  disableSslVerification(enabled = false): void {
    if (this.#verification === undefined) {
      throw new TypeError('the fetch that was given decides which certificates are believed');
    }
    this.#verification.verify = enabled;
    if (!enabled) warnOfInsecurity();
  }
}

/** A fetch over the network that changes with the switch; undefined, the host's own, only where nothing can change. */
function switchedFetch(
  network: NetworkOptions | undefined,
  verification: { readonly verify: boolean },
): OwnFetch {
  const safe = network && networkFetch({ ...network, verify: true });
  const open = () => networkFetch({ ...network, verify: false }, () => {});
  let unsafe: OwnFetch | undefined;
  if (!verification.verify) warnOfInsecurity();
  const go: typeof globalThis.fetch = (input, init) => {
    if (verification.verify) return (safe ?? globalThis.fetch)(input, init);
    unsafe ??= open();
    return unsafe(input, init);
  };
  const close = async () => {
    await safe?.close();
    await unsafe?.close();
  };
  return Object.assign(go, { close });
}

/** The same for files; undefined where something stands between that only the fetch knows the way through. */
function switchedFileFetch(
  network: NetworkOptions | undefined,
  verification: { readonly verify: boolean },
  otherwise: OwnFetch,
): OwnFetch | undefined {
  if (network?.proxy !== undefined || isDispatched()) return undefined;
  const { ca, cert, key, connectMs = CONNECT_MS } = network ?? {};
  return fileFetch({
    otherwise,
    tls: () => ({
      ...(ca !== undefined && { ca: [ca].flat() }),
      ...(cert !== undefined && { cert, key }),
      rejectUnauthorized: verification.verify,
    }),
    connectMs,
  });
}

/** Whether the process sends what it fetches another way than Node would by itself: through the proxy of its environment, say. */
function isDispatched(): boolean {
  const dispatcher = (globalThis as { [DISPATCHER]?: object })[DISPATCHER];
  const isOwn = dispatcher === undefined || dispatcher.constructor.name === 'Agent';
  return !isOwn || process.env.NODE_USE_ENV_PROXY === '1' || process.execArgv.includes('--use-env-proxy');
}

/** Where Node's fetch and the package undici keep it. */
const DISPATCHER = Symbol.for('undici.globalDispatcher.1');

/** Who is believed for the server is believed for its broker, unless told otherwise. */
function authoritiesOf(network: NetworkOptions | undefined): string | undefined {
  return network?.ca === undefined ? undefined : [network.ca].flat().join('\n');
}

/** The broker's notices, where they are asked for or nothing else would bring any. */
function carrierOf(
  credentials: Credentials,
  broker: BrokerOptions,
  options: NodeClientOptions,
): ClientNoticesOptions['carrier'] {
  const { carrier: notices } = options.notices ?? {};
  const { generation: wanted, server } = options.connection ?? {};
  if (notices !== 'amqp' && notices !== undefined) return notices;
  const { generation, server: told } = readCredentialFields(credentials, wanted);
  if (notices === undefined && generation === 'cambium') return undefined;
  const address = brokerAddress(credentials, generation, server ?? told, broker);
  if (address === undefined) {
    if (notices === undefined) return undefined;
    throw new CambiumError('credentials-missing', 'the credentials tell no broker; give broker.url');
  }
  const { arrangement = 'tree' } = broker;
  // Kept apart from the object, which is the caller's.
  const { queue_password } = credentials;
  return ({ identity, renew, warn }) =>
    amqpNotices({
      address,
      place: () => brokerPlace(identity(), arrangement, queue_password),
      name: `leaf-${identity().leafId}`,
      renew,
      onWarning: (sentence) => warn('broker', sentence),
    });
}
