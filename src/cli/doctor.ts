/**
 * `cambium doctor --credentials FILE`: looks at everything that a leaf needs, in the order in which it needs it, and says
 * what is wrong and what to do. What could only repeat an earlier fault is left out.
 */
import { lookup } from 'node:dns/promises';
import { access, constants, statfs } from 'node:fs/promises';
import { isIP } from 'node:net';
import { dirname } from 'node:path';
import { readOwnServer } from '../client/configuration.ts';
import { type Credentials, readCredentialFields } from '../client/credentials.ts';
import type { RunDetails } from '../client/dialect.ts';
import { CambiumError, FileError, isCambiumError, RefusedError, UnavailableError } from '../errors.ts';
import { probeQueue } from '../node/amqp-probe.ts';
import { brokerAddress, brokerPlace } from '../node/broker-place.ts';
import { Client } from '../node/client.ts';
import { fileError } from '../node/file-errors.ts';
import { networkFetch } from '../node/network.ts';
import { readCredentials } from '../node/read-credentials.ts';
import { Http } from '../transport/http.ts';
import { type AggregationBody, paths } from '../wire/cambium.ts';
import { EXIT, exitCodeOf } from './exit.ts';
import { checkServer, type NetworkFlags, readNetwork } from './network.ts';
import { formatBytes, printJson, printLine } from './output.ts';

interface DoctorOptions extends NetworkFlags {
  readonly credentials?: string;
  readonly server?: string;
  readonly broker?: string;
  readonly folder?: string;
  readonly json: boolean;
  readonly signal: AbortSignal;
}

interface Finding {
  readonly check: string;
  readonly status: 'ok' | 'warning' | 'failed' | 'skipped';
  readonly message: string;
  /** What to do about it. */
  readonly remedy?: string;
  readonly code?: string;
}

/** Links of downloads are signed for five minutes: a clock that is further off makes logs useless and TLS fail. */
const MOST_CLOCK_S = 300;

/** A model is there as it came, as the program likes it, as an update, and as the update that is sent. */
const COPIES = 4;

/** Without a model to compare with. */
const LEAST_FREE_BYTES = 1e9;

/** What to do, by the code of what went wrong. */
const REMEDIES: Readonly<Record<string, string>> = {
  'credentials-missing':
    'ask the operator for a complete file: cambium leaf create NAME --branch ID --out FILE',
  'credentials-invalid': 'ask the operator for the file again: it is damaged',
  'credentials-conflict': 'keep one spelling of each fact',
  'file-not-found': 'give the path of the file that "cambium leaf create --out" wrote',
  'dns-unknown': 'look at the spelling of the server, and at the DNS of this network',
  'unavailable-server': 'ask whether the server runs; look at firewalls and at --proxy',
  'unavailable-tls': 'give the authority of the certificate with --ca FILE; look at the clock',
  'unavailable-package': 'npm install undici@7',
  usage: 'write it as https://HOST:PORT',
  'protocol-http': 'another service answers there: correct the port of --server',
  'protocol-redirect': 'give the address that it leads to with --server',
  'protocol-not-json': 'something else answers: log in to the network in a browser, or correct --server',
  'token-invalid': 'the token is of another leaf or an older one: ask the operator for new credentials',
  'token-revoked': 'the operator has revoked the token: ask for new credentials',
  'leaf-unknown': 'the server does not know this leaf: is it the right server?',
  'broker-url': 'write it as amqps://HOST:5671, or amqp://HOST:5672',
  'unavailable-broker':
    'open its port in the firewall; without it use the events of the server (notices.carrier: "events")',
  'disk-full': 'make room, or give another folder with --folder',
  'file-access': 'give the user of the leaf the right to write there, or another folder with --folder',
  timeout: 'the line is too slow or cut: look at firewalls and proxies',
};

/** What to do about a certificate, by what TLS says of it; else its authority is missing. */
const CERTIFICATE_REMEDIES: Readonly<Record<string, string>> = {
  ERR_SSL_WRONG_VERSION_NUMBER: 'give --server as http:, or with the port of TLS: ask the operator',
  CERT_HAS_EXPIRED:
    'the certificate has run out, or the clock here is ahead: ask the operator to renew it, set the clock',
  CERT_NOT_YET_VALID: 'the clock here is behind, or the certificate is of tomorrow: timedatectl set-ntp true',
  ERR_TLS_CERT_ALTNAME_INVALID:
    'the certificate is for another name: give --server as the certificate has it, or ask the operator for one with this name',
};

function remedyOf(error: CambiumError): string | undefined {
  for (let link: unknown = error.cause; link instanceof Error; link = link.cause) {
    const { code } = link as { code?: unknown };
    if (typeof code === 'string') return CERTIFICATE_REMEDIES[code] ?? REMEDIES[error.code];
  }
  return REMEDIES[error.code];
}

/** Prints what was found. The exit code is that of the first failure. */
export async function doctor(options: DoctorOptions): Promise<number> {
  const examination = new Examination(options);
  await examination.run();
  const { findings, failure } = examination;
  if (options.json) printJson({ healthy: failure === undefined, checks: findings });
  return failure === undefined ? EXIT.done : exitCodeOf(failure);
}

class Examination {
  readonly findings: Finding[] = [];
  failure: unknown;
  readonly #options: DoctorOptions;

  constructor(options: DoctorOptions) {
    this.#options = options;
  }

  async run(): Promise<void> {
    const { credentials: path, signal } = this.#options;
    const network = await readNetwork(this.#options);
    let credentials: Credentials = {};
    const hasCredentials = await this.#check('credentials', async () => {
      credentials = await readCredentials(path);
      const { generation, leafId, leafName } = readCredentialFields(credentials);
      return `leaf ${leafName ?? leafId}, generation ${generation}`;
    });
    if (!hasCredentials) return;
    const identity = readCredentialFields(credentials);
    const server = this.#options.server ?? identity.server ?? '';
    let url = new URL('http://invalid');
    const hasAddress = await this.#check('address', async () => {
      checkServer('--server', this.#options.server);
      if (server === '') {
        throw new CambiumError(
          'credentials-missing',
          'the credentials lack server, and --server is not given',
        );
      }
      url = new URL(readOwnServer(server));
      return url.origin;
    });
    if (!hasAddress) return;
    const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
    if (network?.proxy !== undefined) this.#add('dns', 'skipped', 'the proxy looks names up');
    else {
      const isFound = await this.#check('dns', async () => {
        if (isIP(host)) return `${host} is an address`;
        const found = await lookup(host, { all: true }).catch((cause) => {
          throw new UnavailableError('dns-unknown', `the host name ${host} cannot be looked up`, { cause });
        });
        return `${host} is ${found.map(({ address }) => address).join(', ')}`;
      });
      if (!isFound) return;
    }

    const fetch = network && networkFetch(network);
    const { clock } = new Http({ server });
    let serverTime = Number.NaN;
    const isReached = await this.#check('connection', async () => {
      // Any answer will do: whether it is the right one, the token tells.
      const http = new Http({
        server,
        retry: { attempts: 1 },
        fetch: async (input, init) => {
          const response = await (fetch ?? globalThis.fetch)(input, init);
          serverTime = Date.parse(response.headers.get('date') ?? '');
          return response;
        },
      });
      await http.json({ method: 'GET', target: paths.me(), signal }).catch((error: unknown) => {
        if (Number.isNaN(serverTime) && !(error instanceof RefusedError)) throw error;
      });
      return url.protocol === 'https:' ? 'answers, and its certificate is believed' : 'answers, without TLS';
    });
    if (!isReached) return;
    const isLocal = host === 'localhost' || host.startsWith('127.') || host === '::1';
    if (url.protocol === 'http:' && !isLocal) {
      this.#add(
        'tls',
        'warning',
        'the token crosses the network in clear text',
        'use the https address of the server',
      );
    } else
      this.#add('tls', url.protocol === 'https:' ? 'ok' : 'skipped', isLocal ? 'this machine' : 'encrypted');
    const offBy = Math.round((clock.now() - serverTime) / 1000);
    if (Number.isNaN(offBy)) this.#add('clock', 'skipped', 'the server tells no time');
    else if (Math.abs(offBy) > MOST_CLOCK_S) {
      const which = offBy > 0 ? 'ahead of' : 'behind';
      const sentence = `${Math.abs(offBy)} s ${which} the server`;
      this.#add('clock', 'warning', sentence, 'set the clock: timedatectl set-ntp true');
    } else this.#add('clock', 'ok', `${Math.abs(offBy)} s from the server's`);

    const client = new Client(credentials, {
      network,
      connection: { server },
      notices: { carrier: 'polling' },
      retry: { attempts: 1 },
    });
    try {
      const isKnown = await this.#check('token', async () => {
        await client.authenticate({ signal });
        return `the server knows leaf ${client.leafId}`;
      });
      if (!isKnown) return;
      let details: RunDetails | undefined;
      await this.#check('rights', async () => {
        details = await client.getRunDetails({ signal });
        const { runStatus, runNumber } = details;
        return `may see run ${runNumber} of branch ${client.branchId}: ${runStatus}`;
      });
      await this.#checkBroker(credentials, server, network?.ca);
      await this.#checkDisk(
        details?.aggregationId ?? null,
        () =>
          new Http({
            server,
            fetch,
            retry: { attempts: 1 },
            authorization: `Bearer ${identity.leafId}:${identity.sessionToken}`,
          }),
      );
    } finally {
      await client.close();
    }
  }

  async #checkBroker(credentials: Credentials, server: string, ca: string | undefined): Promise<void> {
    const identity = readCredentialFields(credentials);
    await this.#check('broker', async () => {
      const options = { url: this.#options.broker, ca };
      const address = brokerAddress(credentials, identity.generation, server, options);
      if (address === undefined) return { skipped: 'the credentials name none: events are used' };
      if (identity.generation === 'login') return { skipped: 'its password comes with a login' };
      const { queue, vhost, username, password } = brokerPlace(identity, 'tree', undefined);
      const waiting = await probeQueue({ ...address, username, password }, vhost, queue);
      return `lets the leaf in, ${waiting} messages wait`;
    });
  }

  async #checkDisk(aggregationId: string | null, http: () => Http): Promise<void> {
    const { folder, credentials, signal } = this.#options;
    await this.#check('disk', async () => {
      const path = folder ?? dirname(credentials ?? 'leaf.json');
      let free: number;
      try {
        await access(path, constants.W_OK);
        const { bavail, bsize } = await statfs(path);
        free = bavail * bsize;
      } catch (cause) {
        throw fileError(cause, path, 'write');
      }
      let needed = LEAST_FREE_BYTES;
      if (aggregationId !== null) {
        const target = paths.aggregation(aggregationId);
        const body = (await http().json({ method: 'GET', target, signal })) as AggregationBody;
        needed = COPIES * body.byte_length;
      }
      const sentence = `${formatBytes(free)} free in ${path}, ${formatBytes(needed)} needed`;
      if (free < needed) throw new FileError('disk-full', sentence, path);
      return sentence;
    });
  }

  #add(check: string, status: Finding['status'], message: string, remedy?: string, code?: string): void {
    this.findings.push({
      check,
      status,
      message,
      ...(remedy !== undefined && { remedy }),
      ...(code !== undefined && { code }),
    });
    if (this.#options.json) return;
    printLine(`${status.padEnd(8)} ${check.padEnd(12)} ${message}`);
    if (remedy !== undefined) printLine(`${' '.repeat(22)}→ ${remedy}`);
  }

  /** Adds what a check says: how it is, or why it is left out. False when it failed. */
  async #check(check: string, work: () => Promise<string | { readonly skipped: string }>): Promise<boolean> {
    try {
      const said = await work();
      if (typeof said === 'string') this.#add(check, 'ok', said);
      else this.#add(check, 'skipped', said.skipped);
      return true;
    } catch (error) {
      this.#options.signal.throwIfAborted();
      if (!isCambiumError(error)) throw error;
      this.failure ??= error;
      // A line that stands, and a certificate that is not believed, is no fault of the line.
      const failed = error.code === 'unavailable-tls' && check === 'connection' ? 'tls' : check;
      this.#add(failed, 'failed', error.message, remedyOf(error), error.code);
      return false;
    }
  }
}
