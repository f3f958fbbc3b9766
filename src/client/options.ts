import type { Clock } from '../transport/clock.ts';
import type { Notices, ReconnectOptions } from '../transport/notices.ts';
import type { RetryOptions } from '../transport/retry.ts';
import type { Timeouts } from '../transport/timeouts.ts';
import type { LeafIdentity } from './credentials.ts';
import type { Generation, UpdateFormat } from './dialect.ts';
import type { FileAccess } from './file-access.ts';
import type { QueuePolicy } from './queue.ts';

/** Where the server is, and what it speaks. */
export interface ConnectionOptions {
  /**
   * Base URL, http or https; a path in it is kept. Default: the credentials' `server`, else where the documentation of
   * their generation says that its service is.
   */
  readonly server?: string | undefined;
  /** Default: what the credentials are made for. */
  readonly generation?: Generation | undefined;
}

/** What happens while the run is paused or stopped. */
export interface RunGateOptions {
  /** Let `fileUpload` wait until the run goes on, instead of refusing. Default false. */
  readonly wait?: boolean | undefined;
  /** How often a wait for the run asks the server, besides listening to notices, in milliseconds. Default 30,000. */
  readonly checkIntervalMs?: number | undefined;
}

/** When calls are refused here, because the server has not been reached for a while. */
export interface CircuitOptions {
  /** Calls in a row that failed, with all their tries, before the circuit opens; Infinity never opens it. Default 5. */
  readonly failures?: number | undefined;
  /** Until one call is let through to see whether the server is back, in milliseconds. Default 30,000. */
  readonly pauseMs?: number | undefined;
}

/** How the leaf is told of aggregations and runs. */
export interface ClientNoticesOptions {
  /**
   * `events`: server-sent events; `polling`: by asking every `pollIntervalMs`; or a carrier of your own, also one that is
   * made for the session. Default: events, and polling on lines that carry none; polling for the generations of BranchKey.
   */
  readonly carrier?: 'events' | 'polling' | Notices | NoticesFor | undefined;
  /** What happens to announced aggregations that nobody took yet. Default `all`, in order. */
  readonly queue?: QueuePolicy | undefined;
  /** How often polling asks, in milliseconds. Default 30,000. */
  readonly pollIntervalMs?: number | undefined;
  /** How often and how patiently a connection that broke is opened again. */
  readonly reconnect?: ReconnectOptions | undefined;
}

/** How updates are sent. */
export interface UpdateOptions {
  /** What tensors are written as before they are sent. Default `npy-object`; the bearer generation takes only `npz`. */
  readonly format?: UpdateFormat | undefined;
  /**
   * Look for NaN and infinity before sending, which reads every element once. Default false: the server looks, and refuses
   * with the same code when the bytes are there.
   */
  readonly checkFinite?: boolean | undefined;
  /**
   * What is said of each update besides its weights, to servers of BranchKey's generations; our own API has no such field.
   * Default: the placeholder that every client of theirs sends.
   */
  readonly metadata?: string | undefined;
}

/** What a carrier with a login of its own must know of the client's session. */
export interface NoticeSession {
  /** As the server told it last; the token changes when a session of the login generation begins anew. */
  identity(): LeafIdentity;
  /** Authenticates again. */
  renew(signal: AbortSignal): Promise<void>;
  /** Tells the listeners of the event `warning`. */
  warn(code: string, message: string): void;
}

/** Makes the carrier, when the client begins to listen. */
export type NoticesFor = (session: NoticeSession) => Notices;

/** Everything that can be set about a client, one object for each concern. It is read once, in the constructor. */
export interface ClientOptions {
  /** Where the server is, and what it speaks. */
  readonly connection?: ConnectionOptions | undefined;
  /** Limits of silence, not of the whole: 30 s until an answer begins, 60 s in the middle of a body. */
  readonly timeouts?: Timeouts | undefined;
  /** For each call: 5 tries, pauses that double from 0.5 s to 15 s, `Retry-After` up to 2 minutes. */
  readonly retry?: RetryOptions | undefined;
  /** Across calls: after 5 that failed, 30 s of rest. */
  readonly circuit?: CircuitOptions | undefined;
  /** What happens while the run is paused or stopped: uploads are refused. */
  readonly run?: RunGateOptions | undefined;
  /** How the leaf is told of aggregations and runs: by events, all in order. */
  readonly notices?: ClientNoticesOptions | undefined;
  /** How updates are sent: as `npy-object`. */
  readonly update?: UpdateOptions | undefined;
  /** Makes the requests. Default: the host's. */
  readonly fetch?: typeof globalThis.fetch | undefined;
  /**
   * The same for requests that carry weight files, which come in memory that is used again: it must ask for a chunk of a body only
   * when the one before has left. Default: `fetch`; the Node client has a faster one of its own.
   */
  readonly fileFetch?: typeof globalThis.fetch | undefined;
  /** Access to files. Default: none; the Node client has its own. */
  readonly files?: FileAccess | undefined;
  /** Time, for tests. Default: the host's. */
  readonly clock?: Clock | undefined;
  /** A number in [0, 1), for tests. Default Math.random. */
  readonly random?: (() => number) | undefined;
}

export interface CallOptions {
  /** Ends the call, which then throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** How far a transfer is. After a broken connection it goes on from what the other side has safely. */
export interface TransferProgress {
  readonly bytesDone: number;
  /** Of the whole file; where a server does not tell, what has come so far. */
  readonly bytesTotal: number;
}

export interface TransferOptions extends CallOptions {
  /** Told, often, how far the transfer is. Default: nobody is. */
  readonly onProgress?: ((progress: TransferProgress) => void) | undefined;
}

export interface UploadOptions extends TransferOptions {
  /** The round that the update is meant for; the server refuses it when another one is open. Default: the open one. */
  readonly round?: number | undefined;
  /**
   * A name for this upload, of 1 to 200 characters: one that the server has under it already counts no second time, whatever
   * has become of its round. By default each call has one of its own. Servers of our own API only.
   */
  readonly idempotencyKey?: string | undefined;
}

/** Weight files that our servers give out. */
export type DownloadFormat = 'npy' | 'npz' | 'safetensors';

export interface DownloadOptions extends TransferOptions {
  /** The file to write, which is replaced (needs file access). Default: memory. */
  readonly to?: string | undefined;
  /** Or the folder, which must exist, in which a file is written that is called after the aggregation. */
  readonly folder?: string | undefined;
  /**
   * What the server is to make of the file, from our own API only: `npy` is the object array. Default: as the aggregation
   * was written, which is the format of the updates.
   */
  readonly format?: DownloadFormat | undefined;
}

export interface WaitOptions extends CallOptions {
  /** How long to wait, in milliseconds. Default: as long as it takes. */
  readonly timeoutMs?: number | undefined;
}
