/** The server above, as a leaf of it sees it. */
import { authorizationOf, type Credentials, readCredentialFields } from '../../client/credentials.ts';
import type { RunDetails } from '../../client/dialect.ts';
import type { DownloadedFile } from '../../client/download.ts';
import type { UploadReceipt } from '../../client/upload.ts';
import { CambiumError } from '../../errors.ts';
import { Client, type NodeClientOptions } from '../../node/client.ts';
import { networkFetch } from '../../node/network.ts';
import { eventNotices } from '../../transport/events.ts';
import { Http } from '../../transport/http.ts';
import { type OwnUpdateBody, paths } from '../../wire/cambium.ts';

export class LeafAbove {
  readonly client: Client;
  readonly #http: Http;

  /** @throws CambiumError `credentials-…`, `credentials-generation` for credentials of another dialect */
  constructor(
    credentials: Credentials,
    options: Pick<NodeClientOptions, 'connection' | 'fetch' | 'network' | 'retry'> = {},
  ) {
    const { network, retry } = options;
    const fetch = options.fetch ?? (network && networkFetch(network));
    const identity = readCredentialFields(credentials);
    if (identity.generation !== 'cambium') {
      throw new CambiumError(
        'credentials-generation',
        `sums go up to a Cambium server; these credentials are for ${identity.generation}`,
      );
    }
    this.client = new Client(credentials, options);
    const { server } = this.client.configuration.connection;
    this.#http = new Http({ retry, fetch, server, authorization: authorizationOf(identity) });
  }

  runDetails(signal: AbortSignal): Promise<RunDetails> {
    return this.client.getRunDetails({ signal });
  }

  waitForRun(signal: AbortSignal): Promise<void> {
    return this.client.waitForRun({ signal });
  }

  /** This leaf's updates with these bytes, and what has become of them. */
  async updates(sha256: string, signal: AbortSignal): Promise<readonly OwnUpdateBody[]> {
    const target = paths.updates(this.client.leafId);
    const { items } = (await this.#http.json({ method: 'GET', target, query: { sha256 }, signal })) as {
      readonly items: readonly OwnUpdateBody[];
    };
    return items;
  }

  upload(
    file: string,
    options: { readonly round: number; readonly idempotencyKey: string },
    signal: AbortSignal,
  ): Promise<UploadReceipt> {
    return this.client.fileUpload(file, { ...options, signal });
  }

  download(aggregationId: string, to: string, signal: AbortSignal): Promise<DownloadedFile> {
    return this.client.fileDownload(aggregationId, { to, signal });
  }

  /**
   * Calls back at every notice, until the stream ends: of aggregations, and of runs, which tells too that a round was given
   * up and another one is open.
   */
  async watch(onNews: () => void, signal: AbortSignal): Promise<void> {
    const notices = eventNotices(this.#http, paths.notices(this.client.leafId));
    for await (const _ of notices.open({ signal })) onNews();
  }
}
