import { CambiumError, isCambiumError, RefusedError, UnavailableError } from '../errors.ts';
import { sleep } from '../transport/clock.ts';
import { eventNotices } from '../transport/events.ts';
import { Http } from '../transport/http.ts';
import type { NoticeStream, Notices } from '../transport/notices.ts';
import { linkSignals } from '../transport/signals.ts';
import { type MetricsMode, paths, type RunStatus } from '../wire/cambium.ts';
import { readAuthenticated, readNotice, readRun } from './answers.ts';
import type { BranchKeySession } from './branchkey.ts';
import { authorizationOf, type Credentials, type LeafIdentity, readCredentialFields } from './credentials.ts';
import type { Generation, RunDetails } from './dialect.ts';
import type { DownloadedBytes, DownloadedFile } from './download.ts';
import type { CallOptions, ClientOptions, TransferOptions } from './options.ts';
import { pollingNotices } from './polling.ts';
import { type AggregationQueue, NoticeQueue } from './queue.ts';
import type { UploadReceipt, UploadSource } from './upload.ts';
import type { UpdateFormat } from './weights.ts';

export interface UploadOptions extends TransferOptions {
  /** The round that the update is meant for; the server refuses it when another one is open. */
  readonly round?: number | undefined;
  /**
   * A name for this upload, of 1 to 200 characters: one that the server has under it already counts no second time, whatever
   * has become of its round. By default each call has one of its own. Servers of our own API only.
   */
  readonly idempotencyKey?: string | undefined;
}

export interface DownloadOptions extends TransferOptions {
  /** Where to write the file (needs file access); without, the bytes are returned. */
  readonly to?: string | undefined;
}

/** Where there are no runs, one always goes on. */
const ALWAYS: RunDetails = {
  runStatus: 'start',
  runNumber: 0,
  round: null,
  updates: null,
  aggregationTarget: null,
  aggregationId: null,
};

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/**
 * A leaf's session with its server: authenticate, take part in rounds, be told of aggregations.
 *
 * ```ts
 * await using client = new Client(credentials);
 * await client.authenticate();
 * await client.fileUpload({ weighting: 600, tensors });
 * for await (const id of client.queue) {
 *   const { bytes } = await client.fileDownload(id);
 *   …
 * }
 * ```
 *
 * Every call can be aborted by its `signal`, whose reason it then throws; is tried again when the connection fails; and
 * ends with `client-closed` when the client is closed. Errors are RefusedError (the server's own code), UnavailableError
 * and ProtocolError; nothing is printed.
 */
export class Client implements AsyncDisposable {
  readonly #http: Http;
  readonly #options: ClientOptions;
  readonly #runCheckIntervalMs: number;
  readonly #queue: NoticeQueue;
  readonly #closing = new AbortController();
  readonly #runWatchers = new Set<() => void>();
  #identity: LeafIdentity;
  #isAuthenticated = false;
  #runStatus: RunStatus | null = null;
  #runNumber: number | null = null;
  #session: Promise<BranchKeySession> | undefined;
  #notices: { readonly stream: NoticeStream; readonly ended: Promise<void> } | undefined;
  /** The carrier that was made for this session. */
  #made: Notices | undefined;
  #isWithoutEvents = false;
  #lastNoticeId: string | null = null;
  #lastAggregationId: string | null = null;

  /**
   * Nothing is sent yet. Neither object is kept or changed.
   *
   * @throws CambiumError `credentials-missing`, `credentials-conflict`, `credentials-invalid`; TypeError, RangeError for
   *   senseless options
   */
  constructor(credentials: Credentials, options: ClientOptions = {}) {
    this.#identity = readCredentialFields(credentials, options.generation);
    const server = options.server ?? this.#identity.server;
    if (server === undefined) {
      throw new CambiumError(
        'credentials-missing',
        'the credentials lack server, and options.server is not given',
      );
    }
    const { queue = 'all', runCheckIntervalMs = 30_000 } = options;
    if (queue !== 'all' && queue !== 'newest') throw new RangeError(`there is no queue policy ${queue}`);
    if (!(runCheckIntervalMs > 0)) {
      throw new RangeError(`runCheckIntervalMs must be above zero, is ${runCheckIntervalMs}`);
    }
    this.#options = { ...options };
    this.#runCheckIntervalMs = runCheckIntervalMs;
    this.#http = new Http({ ...options, server, authorization: () => authorizationOf(this.#identity) });
    this.#queue = new NoticeQueue(queue, this.#http.clock, () => this.#listen());
  }

  /** What the server speaks. */
  get generation(): Generation {
    return this.#identity.generation;
  }

  /** Empty in the login generation until `authenticate`. */
  get leafId(): string {
    return this.#identity.leafId;
  }

  /** Null until `authenticate` unless the credentials say it; so are the next three. */
  get leafName(): string | null {
    return this.#identity.leafName;
  }

  get branchId(): string | null {
    return this.#identity.branchId;
  }

  get treeId(): string | null {
    return this.#identity.treeId;
  }

  /** The owner of the tree. */
  get userId(): string | null {
    return this.#identity.userId;
  }

  /** True once the server has accepted the token, until it refuses it or the client is closed. */
  get isAuthenticated(): boolean {
    return this.#isAuthenticated && !this.#closing.signal.aborted;
  }

  /** As last heard, by notice or answer. Null before the first. */
  get runStatus(): RunStatus | null {
    return this.#runStatus;
  }

  /** As last heard. Null before the first answer. */
  get runNumber(): number | null {
    return this.#runNumber;
  }

  /** The ids of aggregations as they are announced, to be given to `fileDownload`. */
  get queue(): AggregationQueue {
    return this.#queue;
  }

  /** Asks the server who the token belongs to and how the run stands, and begins to listen to notices. */
  authenticate(options: CallOptions = {}): Promise<void> {
    return this.#call(options.signal, async (signal) => {
      await this.#identify(signal);
      await this.#askRun(signal);
      this.#listen();
    });
  }

  /** Asks how the branch's run stands. */
  getRunDetails(options: CallOptions = {}): Promise<RunDetails> {
    return this.#call(options.signal, (signal) => this.#askRun(signal));
  }

  /**
   * Ends when the run is going. Listens to notices and asks the server besides, at once and then every
   * `runCheckIntervalMs`: a lost notice costs one interval.
   */
  waitForRun(options: CallOptions = {}): Promise<void> {
    return this.#call(options.signal, async (signal) => {
      this.#listen();
      for (;;) {
        const pause = linkSignals(signal);
        let wake = () => {};
        const changed = new Promise<void>((resolve) => {
          wake = resolve;
        });
        // Watched before asking: a change that overtakes the answer must not be missed.
        this.#runWatchers.add(wake);
        try {
          if ((await this.#askRun(signal)).runStatus === 'start') return;
          await Promise.race([changed, sleep(this.#http.clock, this.#runCheckIntervalMs, pause.signal)]);
        } finally {
          this.#runWatchers.delete(wake);
          pause.unlink();
          pause.abort();
        }
      }
    });
  }

  /**
   * Checks an update and sends it. The same bytes sent twice in a round count once.
   *
   * @returns what the server stored
   * @throws FormatError and AggregationError for what is no valid update (before anything is sent); RefusedError, also
   *   `run-paused` and `run-stopped` unless `waitForRun` is set; FileError
   */
  fileUpload(source: UploadSource, options: UploadOptions = {}): Promise<UploadReceipt> {
    return this.#call(options.signal, async (signal) => {
      const { files } = this.#options;
      if (!this.leafId) await this.#identify(signal);
      // Transfers are loaded when one is asked for: a page that only listens needs none of it.
      const { prepareUpload, sendUpload } = await import('./upload.ts');
      const upload = await prepareUpload(source, files, signal, this.#updateFormat());
      try {
        const sending = {
          signal,
          onProgress: options.onProgress,
          round: options.round,
          idempotencyKey: options.idempotencyKey ?? randomKey(),
        };
        for (;;) {
          await this.#passRunGate(signal);
          try {
            const branchkey = await this.#branchkey();
            if (branchkey) return await branchkey.upload(this.leafName, upload, sending);
            return await sendUpload(this.#http, this.leafId, upload, files, sending);
          } catch (error) {
            if (!this.#options.waitForRun || !isRunRefusal(error)) throw error;
            // Paused between the look at the run and the last byte.
            this.#runStatus = null;
          }
        }
      } finally {
        await upload.close();
      }
    });
  }

  /**
   * Fetches an aggregation: length and digest are checked, and that it parses as weights. A file appears complete or
   * not at all.
   *
   * @param aggregationId from `queue`
   * @throws FormatError when it does not parse; ProtocolError `protocol-digest`, `protocol-length`; FileError
   */
  fileDownload(
    aggregationId: string,
    options: DownloadOptions & { readonly to: string },
  ): Promise<DownloadedFile>;
  fileDownload(aggregationId: string, options?: TransferOptions): Promise<DownloadedBytes>;
  fileDownload(
    aggregationId: string,
    options: DownloadOptions = {},
  ): Promise<DownloadedFile | DownloadedBytes> {
    const { to, onProgress } = options;
    const { files } = this.#options;
    return this.#call<DownloadedFile | DownloadedBytes>(options.signal, async (signal) => {
      requireId(aggregationId, this.generation);
      if (to !== undefined && files === undefined) {
        throw new TypeError('paths need file access, which this host has not');
      }
      const branchkey = await this.#branchkey();
      if (branchkey && !this.leafId) await this.#identify(signal);
      const { downloadBytes, downloadFile } = await import('./download.ts');
      if (to === undefined || files === undefined) {
        if (branchkey) return branchkey.downloadBytes(aggregationId, { signal, onProgress });
        return downloadBytes(this.#http, aggregationId, files, { signal, onProgress });
      }
      if (branchkey) return branchkey.downloadFile(aggregationId, to, files, { signal, onProgress });
      return downloadFile(this.#http, aggregationId, to, files, { signal, onProgress });
    });
  }

  /**
   * Reports how well an aggregation does.
   *
   * @param data any JSON value; NaN and infinities are sent as the texts `NaN`, `Infinity` and `-Infinity`
   */
  sendPerformanceMetrics(
    mode: MetricsMode,
    data: unknown,
    aggregationId: string,
    options: CallOptions = {},
  ): Promise<void> {
    return this.#call(options.signal, async (signal) => {
      requireId(aggregationId, this.generation);
      const branchkey = await this.#branchkey();
      if (branchkey) {
        if (!this.leafId || this.branchId === null) await this.#identify(signal);
        const place = { leaf_id: this.leafId, branch_id: this.branchId ?? '', tree_id: this.treeId ?? '' };
        const text = typeof data === 'string' ? data : JSON.stringify(speakable(data));
        return branchkey.sendMetrics({ mode, aggregation_id: aggregationId, ...place, data: text }, signal);
      }
      await this.#http.json({
        method: 'POST',
        target: paths.metrics(aggregationId),
        headers: { 'idempotency-key': randomKey() },
        json: { mode, data: speakable(data) },
        signal,
      });
    });
  }

  /** Ends notices, waits and transfers. Ids that nobody took can still be taken from `queue`. */
  async close(): Promise<void> {
    this.#closing.abort(new CambiumError('client-closed', 'the client is closed'));
    this.#queue.close();
    this.#notices?.stream.close();
    await this.#notices?.ended;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Runs a call under the caller's signal and the client's own end. */
  async #call<T>(caller: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const link = linkSignals(this.#closing.signal, caller);
    try {
      link.signal.throwIfAborted();
      return await work(link.signal);
    } catch (error) {
      if (error instanceof RefusedError && error.status === 401) this.#isAuthenticated = false;
      throw error;
    } finally {
      link.unlink();
    }
  }

  /** The session of the older generations, whose code is loaded when one is spoken. */
  async #branchkey(): Promise<BranchKeySession | undefined> {
    const { generation } = this;
    if (generation === 'cambium') return undefined;
    this.#session ??= import('./branchkey.ts').then(
      ({ BranchKeySession }) => new BranchKeySession(this.#http, generation),
    );
    return this.#session;
  }

  /** The one format that the server takes; ours takes all. */
  #updateFormat(): UpdateFormat | undefined {
    if (this.generation === 'cambium') return undefined;
    return this.generation === 'bearer' ? 'npz' : 'npy-object';
  }

  async #identify(signal: AbortSignal): Promise<void> {
    const branchkey = await this.#branchkey();
    if (branchkey) return this.#identifyToBranchkey(branchkey, signal);
    const body = readAuthenticated(await this.#http.json({ method: 'GET', target: paths.me(), signal }));
    if (body.leaf_id !== this.leafId) {
      throw new CambiumError(
        'credentials-conflict',
        `the token belongs to leaf ${body.leaf_id}, not ${this.leafId}`,
      );
    }
    this.#identity = {
      ...this.#identity,
      leafName: body.leaf_name,
      branchId: body.branch_id,
      treeId: body.tree_id,
      userId: body.user_id,
    };
    this.#isAuthenticated = true;
  }

  async #identifyToBranchkey(branchkey: BranchKeySession, signal: AbortSignal): Promise<void> {
    if (this.generation === 'login') {
      this.#identity = await branchkey.logIn(this.#identity, signal);
    } else if (this.generation === 'basic') {
      const { tree_id: treeId, branch_id: branchId, user_id: userId } = await branchkey.authenticate(signal);
      this.#identity = { ...this.#identity, treeId, branchId, userId: userId ?? null };
    } else {
      // This generation has nothing that says who one is: the run tells whether the token is good.
      this.#setDetails(await branchkey.askRun(this.branchId ?? '', signal));
    }
    this.#isAuthenticated = true;
  }

  #setDetails(details: RunDetails): RunDetails {
    this.#setRun(details.runStatus, details.runNumber);
    return details;
  }

  async #askRun(signal: AbortSignal): Promise<RunDetails> {
    if (this.branchId === null || !this.leafId) await this.#identify(signal);
    const branchkey = await this.#branchkey();
    // Clients up to 2.2 know no runs: they upload when they like.
    if (this.generation === 'login') return this.#setDetails(ALWAYS);
    if (branchkey) return this.#setDetails(await branchkey.askRun(this.branchId ?? '', signal));
    const target = paths.run(this.branchId ?? '');
    const body = readRun(await this.#http.json({ method: 'GET', target, signal }));
    this.#setRun(body.run_status, body.run_number);
    return {
      runStatus: body.run_status,
      runNumber: body.run_number,
      round: body.round,
      updates: body.updates,
      aggregationTarget: body.aggregation_target,
      aggregationId: body.aggregation_id ?? null,
    };
  }

  /** Spares the server, and the line, a body that it would refuse. */
  async #passRunGate(signal: AbortSignal): Promise<void> {
    if (this.#runStatus === 'start') return;
    const { runStatus } = await this.#askRun(signal);
    if (runStatus === 'start') return;
    if (this.#options.waitForRun) return this.waitForRun({ signal });
    const word = runStatus === 'pause' ? 'paused' : 'stopped';
    throw new RefusedError(`run-${word}`, `the run of branch ${this.branchId} is ${word}`, 409);
  }

  #setRun(status: RunStatus, number: number): void {
    this.#runStatus = status;
    this.#runNumber = number;
  }

  /** Begins to read notices unless that is going on. */
  #listen(): void {
    if (this.#notices !== undefined || this.#closing.signal.aborted) return;
    const stream = this.#carrier().open({ after: this.#lastNoticeId });
    this.#notices = { stream, ended: this.#readNotices(stream) };
  }

  /** What brings the notices. */
  #carrier(): Notices {
    const { notices } = this.#options;
    if (typeof notices === 'object') return notices;
    if (typeof notices === 'function') {
      this.#made ??= notices({
        identity: () => this.#identity,
        renew: (signal) => this.#identify(signal),
      });
      return this.#made;
    }
    const isOurs = this.generation === 'cambium';
    if (notices === 'events' && !isOurs)
      throw new TypeError(`the ${this.generation} generation has no events`);
    if (isOurs && notices !== 'polling' && !this.#isWithoutEvents) {
      return eventNotices(this.#http, paths.notices(this.leafId));
    }
    return pollingNotices((signal) => this.#askRun(signal), this.#http.clock, this.#runCheckIntervalMs);
  }

  /** Never rejects: an error goes to who waits for a notice; who waits later makes a new connection. */
  async #readNotices(stream: NoticeStream): Promise<void> {
    let end: unknown = new UnavailableError('unavailable-notices', 'the server sends no more notices');
    try {
      for await (const { id, data } of stream) {
        try {
          this.#take(data);
        } catch (error) {
          // One bad notice must not be the end of all the good ones after it.
          this.#queue.fail(error);
        }
        this.#lastNoticeId = id ?? this.#lastNoticeId;
      }
    } catch (error) {
      if (error instanceof RefusedError && error.status === 401) this.#isAuthenticated = false;
      end = error;
      // Something between us and the server keeps streams back: from the next time on they are not asked for.
      const isKeptBack = isCambiumError(error) && error.code === 'protocol-not-events';
      if (isKeptBack && this.#options.notices === undefined) this.#isWithoutEvents = true;
    }
    // First this, then those who wait: they may come back at once.
    this.#notices = undefined;
    this.#queue.fail(end);
  }

  #take(data: string): void {
    const notice = readNotice(data);
    if (notice?.message_type === 'run_status') {
      // Only our servers tell the number of the run with it.
      const { run = this.#runNumber ?? 0 } = notice;
      this.#setRun(notice.body.run_status, run);
      for (const wake of this.#runWatchers) wake();
    } else if (notice?.message_type === 'aggregation_status') {
      const id = notice.body.aggregation_id;
      // Delivered at least once: a reconnection may repeat the last one.
      if (id === this.#lastAggregationId) return;
      this.#lastAggregationId = id;
      this.#queue.put(id);
    }
  }
}

function requireId(aggregationId: string, generation: Generation): void {
  // Of the ids of other services nothing is known but that they are no nothing.
  if (generation === 'cambium' ? !UUID.test(aggregationId) : !aggregationId) {
    throw new TypeError(`the id of an aggregation is a UUID, not ${JSON.stringify(aggregationId)}`);
  }
}

function isRunRefusal(error: unknown): boolean {
  return isCambiumError(error) && (error.code === 'run-paused' || error.code === 'run-stopped');
}

/** The same for all attempts of one call, so that the server can tell a repetition. */
function randomKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** JSON has no NaN and no infinities, and `JSON.stringify` would make null of them. */
function speakable(data: unknown): unknown {
  const text = JSON.stringify(data, (_, value: unknown) =>
    typeof value === 'number' && !Number.isFinite(value) ? String(value) : value,
  );
  if (text === undefined) throw new TypeError('the data of metrics must be a JSON value');
  return JSON.parse(text);
}
