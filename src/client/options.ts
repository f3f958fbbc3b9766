import type { Clock } from '../transport/clock.ts';
import type { Timeouts } from '../transport/http.ts';
import type { Notices } from '../transport/notices.ts';
import type { RetryOptions } from '../transport/retry.ts';
import type { LeafIdentity } from './credentials.ts';
import type { Generation } from './dialect.ts';
import type { FileAccess } from './file-access.ts';
import type { QueuePolicy } from './queue.ts';

/** What a carrier with a login of its own must know of the client's session. */
export interface NoticeSession {
  /** As the server told it last; the token changes when a session of the login generation begins anew. */
  identity(): LeafIdentity;
  /** Authenticates again. */
  renew(signal: AbortSignal): Promise<void>;
}

/** Makes the carrier, when the client begins to listen. */
export type NoticesFor = (session: NoticeSession) => Notices;

/** Everything that can be set about a client. It is read once, in the constructor. */
export interface ClientOptions {
  /** What the server speaks. Default: what the credentials are made for. */
  readonly generation?: Generation | undefined;
  /**
   * How notices come: `events` by server-sent events, `polling` by asking every `runCheckIntervalMs`, or by a carrier of your
   * own, also one that is made for the session. Default: events, and polling on lines that carry none; polling for the
   * generations of BranchKey.
   */
  readonly notices?: 'events' | 'polling' | Notices | NoticesFor | undefined;
  /** Base URL of the server. Default: the credentials' `server`. */
  readonly server?: string | undefined;
  /** Limits of silence, not of the whole: 30 s until an answer begins, 60 s in the middle of a body. */
  readonly timeouts?: Timeouts | undefined;
  /** For all calls: 5 attempts, pauses that double from 0.5 s to 15 s, `Retry-After` up to 2 minutes. */
  readonly retry?: RetryOptions | undefined;
  /** What happens to announced aggregations that nobody took yet. Default `all`, in order. */
  readonly queue?: QueuePolicy | undefined;
  /** Let `fileUpload` wait while the run is paused or stopped, instead of refusing. Default false. */
  readonly waitForRun?: boolean | undefined;
  /** How often a wait for the run asks the server, besides listening to notices. Default 30,000. */
  readonly runCheckIntervalMs?: number | undefined;
  /** Replaces the host's fetch: for proxies, own certificates, tests. */
  readonly fetch?: typeof globalThis.fetch | undefined;
  /** Access to files; the Node client has its own. */
  readonly files?: FileAccess | undefined;
  /** Time, for tests. */
  readonly clock?: Clock | undefined;
  /** A number in [0, 1), for tests. Default Math.random. */
  readonly random?: (() => number) | undefined;
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

/** How far a transfer is. After a broken connection it goes on from what the other side has safely. */
export interface TransferProgress {
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export interface TransferOptions extends CallOptions {
  readonly onProgress?: ((progress: TransferProgress) => void) | undefined;
}
