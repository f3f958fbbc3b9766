/** How commands reach the server they operate: address and token, and the calls of the API. */
import { openAsBlob } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileError } from '../node/file-errors.ts';
import { Http } from '../transport/http.ts';
import type { RequestBody } from '../transport/request-body.ts';
import { UsageError } from './exit.ts';

/** Options that every command has which talks to a server. */
export interface OperatorOptions {
  readonly server?: string;
  readonly token?: string;
  /** Data directory whose operator.json is read where server or token are not given. */
  readonly data: string;
  readonly json: boolean;
  readonly signal: AbortSignal;
}

/**
 * Opens the API for an operator: option, else environment, else the file that the server wrote.
 *
 * @throws UsageError when nothing says where the server is, or with which token
 */
export async function openOperator(options: OperatorOptions): Promise<Http> {
  let server = options.server ?? process.env.CAMBIUM_SERVER;
  let token = options.token ?? process.env.CAMBIUM_TOKEN;
  if (server === undefined || token === undefined) {
    const file = await readOperatorFile(join(options.data, 'operator.json'));
    server ??= file?.server;
    token ??= file?.token;
  }
  if (server === undefined || token === undefined) {
    throw new UsageError(
      `no ${server === undefined ? '--server' : '--token'}, no CAMBIUM_${server === undefined ? 'SERVER' : 'TOKEN'}, ` +
        `and no ${join(options.data, 'operator.json')}: start "cambium serve", or say where it runs`,
    );
  }
  try {
    return new Http({ server, authorization: `Bearer ${token}`, retry: { attempts: 2 } });
  } catch (error) {
    throw new UsageError(`--server ${server}: ${error instanceof Error ? error.message : error}`);
  }
}

/** A file as the body of a request. Throws FileError. */
export async function fileBody(path: string): Promise<RequestBody> {
  try {
    const whole = await openAsBlob(path);
    return { byteLength: whole.size, whole };
  } catch (cause) {
    throw fileError(cause, path, 'read');
  }
}

/** Asks for a list of the API. */
export async function list<T>(http: Http, target: string, options: ListOptions): Promise<readonly T[]> {
  const { query, signal } = options;
  const body = (await http.json({ method: 'GET', target, query, signal })) as {
    readonly items: readonly T[];
  };
  return body.items;
}

interface ListOptions {
  readonly signal: AbortSignal;
  readonly query?: Readonly<Record<string, string | number | undefined>>;
}

async function readOperatorFile(path: string): Promise<{ server?: string; token?: string } | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw fileError(cause, path, 'read');
  }
  try {
    return JSON.parse(text);
  } catch {
    throw new UsageError(`${path} is no JSON`);
  }
}
