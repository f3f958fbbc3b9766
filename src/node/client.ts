import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { Client as AnyClient } from '../client/client.ts';
import { type Credentials, readCredentialFields } from '../client/credentials.ts';
import type { FileAccess } from '../client/file-access.ts';
import type { ClientOptions } from '../client/options.ts';
import { CambiumError, isCambiumError } from '../errors.ts';
import { fileError } from './file-errors.ts';
import { openFileSink, openFileSource } from './files.ts';
import { type NetworkOptions, networkFetch } from './network.ts';
import { openPartialSink } from './partial-files.ts';

/** Paths are taken as they are: relative to the working directory, `~` is a name like any other. */
const files: FileAccess = {
  openSource: (path) => openFileSource(path),
  openSink: (path) => openFileSink(path, { durable: true }),
  openPartialSink,
  sha256() {
    const hash = createHash('sha256');
    return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest('hex') };
  },
};

/** What a client of Node can be told besides. */
export interface NodeClientOptions extends ClientOptions {
  /** Proxy, own authority, client certificate; `fetch` overrides it. Needs the package undici. */
  readonly network?: NetworkOptions | undefined;
}

/** The client with paths: files are sent and written block by block, whatever their size. */
export class Client extends AnyClient {
  /** As the portable client; throws the same. */
  constructor(credentials: Credentials, { network, ...options }: NodeClientOptions = {}) {
    const fetch = options.fetch ?? (network && networkFetch(network));
    super(credentials, { ...options, fetch, files: options.files ?? files });
  }
}

/**
 * Reads a credentials file and checks that it is complete.
 *
 * @throws FileError; CambiumError `credentials-invalid`, `credentials-missing`, `credentials-conflict`
 */
export async function readCredentials(path: string): Promise<Credentials> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw fileError(error, path, 'read');
  }
  let credentials: Credentials;
  try {
    credentials = JSON.parse(text);
  } catch {
    // Without its cause, whose message would quote the file.
    throw new CambiumError('credentials-invalid', `${path} is no JSON`);
  }
  try {
    readCredentialFields(credentials);
  } catch (error) {
    throw isCambiumError(error) ? new CambiumError(error.code, `${path}: ${error.message}`) : error;
  }
  return credentials;
}
