import { CambiumError, UnavailableError } from '../errors.ts';
import type { Layout } from '../tensor/layout.ts';
import { systemClock } from '../transport/clock.ts';
import type { MetricsMode, RunStatus } from '../wire/cambium.ts';
import { type ClientEventName, type ClientListener, Emitter } from './client-events.ts';
import { type ClientConfiguration, configure } from './configuration.ts';
import type { ClientParts, Connection } from './connection.ts';
import { type Credentials, readCredentialFields } from './credentials.ts';
import type { Generation, RunDetails } from './dialect.ts';
import type { DownloadedBytes, DownloadedFile } from './download.ts';
import type { CallOptions, ClientOptions, DownloadOptions, UploadOptions, WaitOptions } from './options.ts';
import { type AggregationQueue, NoticeQueue } from './queue.ts';
import type { UploadReceipt, UploadSource } from './upload.ts';
import type { ValidateOptions } from './weights.ts';

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
 * ends with `client-closed` when the client is closed. When several calls in a row have not reached the server, the next
 * ones end at once with `unavailable-circuit` for a while. Errors are RefusedError (the server's own code),
 * UnavailableError and ProtocolError; nothing is printed, `on` tells what happens.
 */
export class Client implements AsyncDisposable {
  readonly #parts: ClientParts;
  readonly #closing = new AbortController();
  #connection: Promise<Connection> | undefined;

  /**
   * Nothing is sent yet. Neither object is kept or changed.
   *
   * @throws CambiumError `credentials-missing`, `credentials-conflict`, `credentials-invalid`; TypeError, RangeError for
   *   senseless options
   */
  constructor(credentials: Credentials, options: ClientOptions = {}) {
    const identity = readCredentialFields(credentials, options.connection?.generation);
    const configuration = configure(options, identity);
    const { queue } = configuration.notices;
    this.#parts = {
      options: { ...options },
      configuration,
      state: { identity, isAuthenticated: false, runStatus: null, runNumber: null },
      queue: new NoticeQueue(queue, options.clock ?? systemClock, () => void this.#listen()),
      events: new Emitter(),
      closing: this.#closing.signal,
    };
  }

  /** The options, completed by their defaults; frozen, and without secrets. */
  get configuration(): ClientConfiguration {
    return this.#parts.configuration;
  }

  /** What the server speaks. */
  get generation(): Generation {
    return this.#parts.state.identity.generation;
  }

  /** Empty in the login generation until `authenticate`. */
  get leafId(): string {
    return this.#parts.state.identity.leafId;
  }

  /** Null until `authenticate` unless the credentials say it; so are the next three. */
  get leafName(): string | null {
    return this.#parts.state.identity.leafName;
  }

  get branchId(): string | null {
    return this.#parts.state.identity.branchId;
  }

  get treeId(): string | null {
    return this.#parts.state.identity.treeId;
  }

  /** The owner of the tree. */
  get userId(): string | null {
    return this.#parts.state.identity.userId;
  }

  /** What proves who the leaf is: keep it secret. Empty in the login generation until `authenticate`. */
  get sessionToken(): string {
    return this.#parts.state.identity.sessionToken;
  }

  /** True once the server has accepted the token, until it refuses it, or the client logs out or is closed. */
  get isAuthenticated(): boolean {
    return this.#parts.state.isAuthenticated && !this.#closing.signal.aborted;
  }

  /** As last heard, by notice or answer. Null before the first. */
  get runStatus(): RunStatus | null {
    return this.#parts.state.runStatus;
  }

  /** As last heard. Null before the first answer. */
  get runNumber(): number | null {
    return this.#parts.state.runNumber;
  }

  /** The ids of aggregations as they are announced, to be given to `fileDownload`. */
  get queue(): AggregationQueue {
    return this.#parts.queue;
  }

  /**
   * Calls `listener` whenever it happens; `ClientEvents` lists what there is. An error that a listener throws is thrown
   * where no one catches it, like that of a timer.
   *
   * @returns takes the listener away again
   */
  on<K extends ClientEventName>(name: K, listener: ClientListener<K>): () => void {
    return this.#parts.events.on(name, listener);
  }

  /** Asks the server who the token belongs to and how the run stands, and begins to listen to notices. */
  authenticate(options: CallOptions = {}): Promise<void> {
    return this.#call(options.signal, (connection, signal) => connection.authenticate(signal));
  }

  /**
   * Ends the session at a server of the login generation; elsewhere tokens have no end, and only this side forgets that it
   * was accepted. The client can go on: the next call that needs it authenticates again.
   */
  logout(options: CallOptions = {}): Promise<void> {
    return this.#call(options.signal, ({ session }, signal) => session.logOut(signal));
  }

  /** Asks how the branch's run stands. */
  getRunDetails(options: CallOptions = {}): Promise<RunDetails> {
    return this.#call(options.signal, ({ session }, signal) => session.askRun(signal));
  }

  /**
   * Ends when the run is going. Listens to notices and asks the server besides, at once and then every
   * `run.checkIntervalMs`: a lost notice costs one interval.
   *
   * @throws UnavailableError `timeout`
   */
  waitForRun(options: WaitOptions = {}): Promise<void> {
    return this.#call(options.signal, ({ gate }, signal) => gate.wait(signal, options.timeoutMs));
  }

  /**
   * Checks an update as `fileUpload` does, and what the options ask besides. Nothing is sent.
   *
   * @returns names, types, shapes and positions of the tensors
   * @throws as the function `validateWeights`; FormatError `format-generation` where the server takes another format;
   *   FileError
   */
  async validateWeights(source: UploadSource, options: ValidateOptions = {}): Promise<Layout> {
    const { validateUpload } = await import('./upload.ts');
    const { update } = this.configuration;
    return validateUpload(source, this.#parts.options.files, this.generation, update, options);
  }

  /**
   * Checks an update and sends it. The same bytes sent twice in a round count once.
   *
   * @returns what the server stored
   * @throws what `validateWeights` throws, before anything is sent; RefusedError, also `run-paused` and `run-stopped`
   *   unless `run.wait` is set; FileError
   */
  fileUpload(source: UploadSource, options: UploadOptions = {}): Promise<UploadReceipt> {
    return this.#call(options.signal, (connection, signal) => connection.upload(source, options, signal));
  }

  /**
   * Fetches an aggregation: length and digest are checked, and that it parses as weights. A file appears complete or
   * not at all.
   *
   * @param aggregationId from `queue`
   * @throws FormatError `format-empty`, and when it does not parse; ProtocolError `protocol-digest`, `protocol-length`,
   *   `protocol-download` where the link leads to a page and not to the file; FileError
   */
  fileDownload(
    aggregationId: string,
    options: DownloadOptions & ({ readonly to: string } | { readonly folder: string }),
  ): Promise<DownloadedFile>;
  fileDownload(
    aggregationId: string,
    options?: Omit<DownloadOptions, 'to' | 'folder'>,
  ): Promise<DownloadedBytes>;
  fileDownload(
    aggregationId: string,
    options: DownloadOptions = {},
  ): Promise<DownloadedFile | DownloadedBytes> {
    return this.#call(options.signal, (connection, signal) =>
      connection.download(aggregationId, options, signal),
    );
  }

  /**
   * Reports how well an aggregation does.
   *
   * @param mode `train`, `test` or `non-federated`
   * @param data any JSON value; NaN and infinities are sent as the texts `NaN`, `Infinity` and `-Infinity`
   */
  sendPerformanceMetrics(
    mode: MetricsMode,
    data: unknown,
    aggregationId: string,
    options: CallOptions = {},
  ): Promise<void> {
    return this.#call(options.signal, (connection, signal) =>
      connection.sendMetrics(mode, data, aggregationId, signal),
    );
  }

  /** Ends notices, waits and transfers. Ids that nobody took can still be taken from `queue`. Sends nothing: see `logout`. */
  async close(): Promise<void> {
    const { events, queue } = this.#parts;
    if (!this.#closing.signal.aborted) events.emit('close', {});
    this.#closing.abort(new CambiumError('client-closed', 'the client is closed'));
    queue.close();
    const connection = await this.#connection?.catch(() => undefined);
    await connection?.listener.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #call<T>(
    caller: AbortSignal | undefined,
    work: (connection: Connection, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const connection = await this.#connect();
    return connection.call(caller, (signal) => work(connection, signal));
  }

  /** Loads what talks to the server. */
  #connect(): Promise<Connection> {
    this.#connection ??= import('./connection.ts').then(
      ({ Connection }) => new Connection(this.#parts),
      (cause: unknown) => {
        this.#connection = undefined; // a file of the page that did not arrive may do so next time
        throw new UnavailableError('unavailable-server', 'a part of the client did not arrive', { cause });
      },
    );
    return this.#connection;
  }

  /** Never rejects: an error goes to who waits. */
  async #listen(): Promise<void> {
    try {
      (await this.#connect()).listener.listen();
    } catch (error) {
      this.#parts.queue.fail(error);
    }
  }
}
