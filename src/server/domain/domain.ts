import type { Jobs } from '../../node/jobs.ts';
import type { Blobs } from '../store/blobs.ts';
import type { Database } from '../store/database.ts';
import type { Signals } from './signals.ts';

/** Where unexpected things are written; never with tokens or signed links. */
interface Log {
  info(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** What the functions of the domain work with. None of it knows HTTP. */
export interface Domain {
  readonly db: Database;
  readonly blobs: Blobs;
  readonly jobs: Jobs;
  readonly signals: Signals;
  readonly log: Log;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** For so many rounds after its own an update is kept; at least 1 keeps those of the newest aggregation. */
  readonly keepUpdates: number;
  /** What the elements of a compressed update may take when they are unpacked. */
  readonly maxUpdateBytes: number;
}
