/** The few calls of RabbitMQ's management HTTP API that make virtual hosts and users; each takes some milliseconds. */
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { CambiumError, UnavailableError } from '../errors.ts';
import type { BrokerRights } from '../wire/broker.ts';

/** An answer that does not come within this is not waited for. */
const ANSWER_MS = 10_000;

/** Of an error only the beginning is of interest; the rest could be any length. */
const MAX_ERROR_BYTES = 4096;

/** How RabbitMQ is told that a hash is base64(salt of 4 bytes + SHA-256(salt + password)). */
const HASHING = 'rabbit_password_hashing_sha256';

export interface ManagementAddress {
  /** Base URL, with or without user and password. */
  readonly url: string;
  /** For URLs without them. */
  readonly username: string;
  readonly password: string;
  readonly ca?: string | undefined;
}

/** An administrator at the management API. Every call may be repeated. */
export class RabbitManagement {
  readonly #base: URL;
  readonly #authorization: string;
  readonly #username: string;
  readonly #ca: string | undefined;

  /** @throws CambiumError `broker-management-url`, without the URL in its message */
  constructor(address: ManagementAddress) {
    let url: URL;
    try {
      url = new URL(address.url);
    } catch {
      url = new URL('none:');
    }
    if (url.protocol !== 'http:' && url.protocol !== 'https:') {
      throw new CambiumError(
        'broker-management-url',
        "the address of the broker's management API begins with http:// or https://",
      );
    }
    this.#username = decodeURIComponent(url.username) || address.username;
    const password = decodeURIComponent(url.password) || address.password;
    this.#authorization = `Basic ${Buffer.from(`${this.#username}:${password}`).toString('base64')}`;
    url.username = '';
    url.password = '';
    this.#base = url;
    this.#ca = address.ca;
  }

  /** Makes a virtual host in which this administrator may do everything. */
  async putVhost(vhost: string): Promise<void> {
    await this.#call('PUT', ['vhosts', vhost], {});
    await this.putRights(this.#username, vhost, { configure: '.*', write: '.*', read: '.*' });
  }

  /** Makes a user, or gives it another password, by what is kept of one (server/tokens.ts). */
  async putUser(name: string, passwordHash: string): Promise<void> {
    const body = { password_hash: passwordHash, hashing_algorithm: HASHING, tags: '' };
    await this.#call('PUT', ['users', name], body);
  }

  async putRights(user: string, vhost: string, rights: BrokerRights): Promise<void> {
    await this.#call('PUT', ['permissions', vhost, user], rights);
  }

  /** Removes a user; its connections end. Harmless when there is none. */
  async deleteUser(name: string): Promise<void> {
    await this.#call('DELETE', ['users', name]);
  }

  /** Ends the connections of a user, whoever answers for its password. */
  async closeConnections(user: string): Promise<void> {
    await this.#call('DELETE', ['connections', 'username', user]);
  }

  /** Throws UnavailableError `unavailable-broker-management`: nobody there, or not of our opinion. */
  #call(method: 'PUT' | 'DELETE', path: readonly string[], body?: unknown): Promise<void> {
    const base = this.#base.href.replace(/\/*$/, '');
    const url = new URL(`${base}/api/${path.map(encodeURIComponent).join('/')}`);
    const text = body === undefined ? '' : JSON.stringify(body);
    const where = `${method} ${url.href}`;
    const unavailable = (why: string, cause?: unknown) =>
      new UnavailableError('unavailable-broker-management', `${where}: ${why}`, { cause });
    return new Promise((resolve, reject) => {
      const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
      const request = send(url, {
        method,
        signal: AbortSignal.timeout(ANSWER_MS),
        headers: {
          authorization: this.#authorization,
          'content-type': 'application/json',
          'content-length': Buffer.byteLength(text),
        },
        ...(this.#ca === undefined ? {} : { ca: this.#ca }),
      });
      request.on('error', (error: NodeJS.ErrnoException) =>
        reject(unavailable(error.message || (error.code ?? 'no answer'), error)),
      );
      request.on('response', (response) => {
        const { statusCode = 0 } = response;
        let answer = '';
        response.setEncoding('utf8');
        response.on('error', (error) => reject(unavailable(error.message, error)));
        response.on('data', (chunk: string) => {
          if (answer.length < MAX_ERROR_BYTES) answer += chunk;
        });
        response.on('end', () => {
          const isDone = statusCode >= 200 && statusCode < 300;
          // What is to be deleted and is not there has been deleted.
          if (isDone || (method === 'DELETE' && statusCode === 404)) resolve();
          else reject(unavailable(`answered ${statusCode} ${answer.slice(0, MAX_ERROR_BYTES).trim()}`));
        });
      });
      request.end(text);
    });
  }
}
