import { Http } from '../transport/http.ts';
import { linkSignals } from '../transport/signals.ts';
import { type MetricsMode, paths } from '../wire/cambium.ts';
import { Circuit } from './circuit.ts';
import type { Emitter } from './client-events.ts';
import type { ClientConfiguration } from './configuration.ts';
import { authorizationOf } from './credentials.ts';
import type { Generation } from './dialect.ts';
import type { DownloadedBytes, DownloadedFile } from './download.ts';
import type { LeafState } from './leaf-state.ts';
import { Listener } from './listener.ts';
import type { ClientOptions, DownloadOptions, TransferProgress, UploadOptions } from './options.ts';
import type { NoticeQueue } from './queue.ts';
import { RunGate } from './run-gate.ts';
import { isTokenRefusal, Session } from './session.ts';
import type { UploadReceipt, UploadSource } from './upload.ts';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** What a client is made of. */
export interface ClientParts {
  readonly options: ClientOptions;
  readonly configuration: ClientConfiguration;
  readonly state: LeafState;
  readonly queue: NoticeQueue;
  readonly events: Emitter;
  /** Aborts when the client is closed. */
  readonly closing: AbortSignal;
}

/** What a client does once it talks to its server; pages load it then. Its methods run within `call`. */
export class Connection {
  readonly session: Session;
  readonly listener: Listener;
  readonly gate: RunGate;
  readonly #parts: ClientParts;
  readonly #circuit: Circuit;

  constructor(parts: ClientParts) {
    const { options, configuration, state, queue, events } = parts;
    const { timeouts, retry, run, circuit, connection, notices } = configuration;
    const { fetch, fileFetch, clock, random } = options;
    const http = new Http({
      ...{ server: connection.server, authorization: () => authorizationOf(state.identity) },
      ...{ timeouts, retry, fetch, fileFetch, clock, random },
      onRetry: (failed) => events.emit('retry', failed),
    });
    this.#parts = parts;
    this.session = new Session(http, state, events);
    this.#circuit = new Circuit(circuit, http.clock, events);
    this.listener = new Listener(
      this.session,
      { ...options.notices, pollIntervalMs: notices.pollIntervalMs },
      { queue, events, onHeard: () => this.#circuit.close(), onRun: () => this.gate.wake() },
    );
    this.gate = new RunGate(this.session, run, () => this.listener.listen());
  }

  /** Runs what talks to the server, under the caller's signal and the client's own end. */
  async call<T>(caller: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const link = linkSignals(this.#parts.closing, caller);
    const { signal } = link;
    const { state } = this.session;
    try {
      signal.throwIfAborted();
      return await this.#circuit.run(async () => {
        const { isAuthenticated } = state;
        try {
          return await work(signal);
        } catch (error) {
          this.session.learn(error);
          // Sessions of this generation end; the password opens another, and what was refused does not count.
          const isOver = state.identity.generation === 'login' && isAuthenticated && isTokenRefusal(error);
          if (!isOver) throw error;
          await this.session.identify(signal);
          return await work(signal);
        }
      });
    } finally {
      link.unlink();
    }
  }

  async authenticate(signal: AbortSignal): Promise<void> {
    await this.session.identify(signal);
    await this.session.askRun(signal);
    this.listener.listen();
  }

  async upload(source: UploadSource, options: UploadOptions, signal: AbortSignal): Promise<UploadReceipt> {
    const {
      options: { files },
      configuration,
      state,
      events,
    } = this.#parts;
    if (!state.identity.leafId) await this.session.identify(signal);
    const { generation, leafName, leafId } = state.identity;
    // Transfers are loaded when one is asked for: a page that only listens needs none of it.
    const { prepareUpload, sendUpload } = await import('./upload.ts');
    const upload = await prepareUpload(source, files, signal, generation, configuration.update);
    try {
      const { name } = upload.source;
      const sending = {
        signal,
        onProgress: (progress: TransferProgress) => {
          options.onProgress?.(progress);
          events.emit('upload', { ...progress, name });
        },
        round: options.round,
        idempotencyKey: options.idempotencyKey ?? randomKey(),
        metadata: configuration.update.metadata,
      };
      for (;;) {
        await this.gate.pass(signal);
        try {
          const branchkey = await this.session.branchkey();
          if (branchkey) return await branchkey.upload(leafName, upload, sending);
          return await sendUpload(this.session.http, leafId, upload, files, sending);
        } catch (error) {
          if (!this.gate.isClosedBy(error)) throw error;
        }
      }
    } finally {
      await upload.close();
    }
  }

  async download(
    aggregationId: string,
    options: DownloadOptions,
    signal: AbortSignal,
  ): Promise<DownloadedFile | DownloadedBytes> {
    const {
      options: { files },
      state,
      events,
    } = this.#parts;
    const { generation, leafId } = state.identity;
    requireId(aggregationId, generation);
    const { format } = options;
    if (format !== undefined && generation !== 'cambium') {
      throw new TypeError(`servers of the ${generation} generation give out one format: leave out "format"`);
    }
    const { downloadBytes, downloadFile, placeOf } = await import('./download.ts');
    const to = placeOf(aggregationId, options, generation);
    if (to !== undefined && files === undefined) {
      throw new TypeError('paths need file access, which this host has not');
    }
    const transfer = {
      signal,
      format,
      onProgress: (progress: TransferProgress) => {
        options.onProgress?.(progress);
        events.emit('download', { ...progress, aggregationId });
      },
    };
    const branchkey = await this.session.branchkey();
    if (branchkey && !leafId) await this.session.identify(signal);
    const { http } = this.session;
    if (to === undefined || files === undefined) {
      if (branchkey) return branchkey.downloadBytes(aggregationId, transfer);
      return downloadBytes(http, aggregationId, files, transfer);
    }
    if (branchkey) return branchkey.downloadFile(aggregationId, to, files, transfer);
    return downloadFile(http, aggregationId, to, files, transfer);
  }

  async sendMetrics(
    mode: MetricsMode,
    data: unknown,
    aggregationId: string,
    signal: AbortSignal,
  ): Promise<void> {
    requireId(aggregationId, this.session.state.identity.generation);
    const branchkey = await this.session.branchkey();
    if (branchkey) {
      const { leafId, branchId, treeId } = await this.session.requireIdentity(signal);
      const place = { leaf_id: leafId, branch_id: branchId ?? '', tree_id: treeId ?? '' };
      const text = typeof data === 'string' ? data : JSON.stringify(speakable(data));
      return branchkey.sendMetrics({ mode, aggregation_id: aggregationId, ...place, data: text }, signal);
    }
    await this.session.http.json({
      method: 'POST',
      target: paths.metrics(aggregationId),
      headers: { 'idempotency-key': randomKey() },
      json: { mode, data: speakable(data) },
      signal,
    });
  }
}

function requireId(aggregationId: string, generation: Generation): void {
  // Of the ids of other services nothing is known but that they are no nothing.
  if (generation === 'cambium' ? !UUID.test(aggregationId) : !aggregationId) {
    throw new TypeError(`the id of an aggregation is a UUID, not ${JSON.stringify(aggregationId)}`);
  }
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
