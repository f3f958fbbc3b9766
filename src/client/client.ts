import { CambiumError, isCambiumError, RefusedError, UnavailableError } from '../errors.ts';
import { sleep } from '../transport/clock.ts';
import { eventNotices } from '../transport/events.ts';
import { Http } from '../transport/http.ts';
import type { NoticeStream } from '../transport/notices.ts';
import { linkSignals } from '../transport/signals.ts';
import { type MetricsMode, paths, type RunStatus } from '../wire/cambium.ts';
import { readAuthenticated, readNotice, readRun } from './answers.ts';
import { type Credentials, type LeafIdentity, readCredentialFields } from './credentials.ts';
import { type DownloadedBytes, type DownloadedFile, downloadBytes, downloadFile } from './download.ts';
import type { CallOptions, ClientOptions, TransferOptions } from './options.ts';
import { type AggregationQueue, NoticeQueue } from './queue.ts';
import { prepareUpload, sendUpload, type UploadReceipt, type UploadSource } from './upload.ts';

/** How a run stands, as the server told it. */
export interface RunDetails {
  readonly runStatus: RunStatus;
  readonly runNumber: number;
  /** The open round, from 1; 0 when no run is going. */
  readonly round: number;
  /** Updates accepted in the open round, and how many close it. */
  readonly updates: number;
  readonly aggregationTarget: number;
  /** The newest aggregation of the run, null before the first. */
  readonly aggregationId: string | null;
}

export interface UploadOptions extends TransferOptions {
  /** The round that the update is meant for; the server refuses it when another one is open. */
  readonly round?: number | undefined;
}

export interface DownloadOptions extends TransferOptions {
  /** Where to write the file (needs file access); without, the bytes are returned. */
  readonly to?: string | undefined;
}

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
  #notices: { readonly stream: NoticeStream; readonly ended: Promise<void> } | undefined;
  #lastNoticeId: string | null = null;
  #lastAggregationId: string | null = null;

  /**
   * Nothing is sent yet. Neither object is kept or changed.
   *
   * @throws CambiumError `credentials-missing`, `credentials-conflict`, `credentials-invalid`; TypeError, RangeError for
   *   senseless options
   */
  constructor(credentials: Credentials, options: ClientOptions = {}) {
    this.#identity = readCredentialFields(credentials);
    const { leafId, sessionToken } = this.#identity;
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
    this.#http = new Http({ ...options, server, authorization: `Bearer ${leafId}:${sessionToken}` });
    this.#queue = new NoticeQueue(queue, this.#http.clock, () => this.#listen());
  }

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
      const upload = await prepareUpload(source, files, signal);
      try {
        const sending = {
          signal,
          onProgress: options.onProgress,
          round: options.round,
          idempotencyKey: randomKey(),
        };
        for (;;) {
          await this.#passRunGate(signal);
          try {
            return await sendUpload(this.#http, this.leafId, upload, sending);
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
    return this.#call<DownloadedFile | DownloadedBytes>(options.signal, (signal) => {
      requireId(aggregationId);
      if (to === undefined) return downloadBytes(this.#http, aggregationId, files, { signal, onProgress });
      if (files === undefined) throw new TypeError('paths need file access, which this host has not');
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
      requireId(aggregationId);
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

  async #identify(signal: AbortSignal): Promise<void> {
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

  async #askRun(signal: AbortSignal): Promise<RunDetails> {
    if (this.branchId === null) await this.#identify(signal);
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
    const stream = eventNotices(this.#http, paths.notices(this.leafId)).open({ after: this.#lastNoticeId });
    this.#notices = { stream, ended: this.#readNotices(stream) };
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
    }
    // First this, then those who wait: they may come back at once.
    this.#notices = undefined;
    this.#queue.fail(end);
  }

  #take(data: string): void {
    const notice = readNotice(data);
    if (notice?.message_type === 'run_status') {
      this.#setRun(notice.body.run_status, notice.run);
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

function requireId(aggregationId: string): void {
  if (!UUID.test(aggregationId)) {
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
