import type { Broker } from '../broker/contract.ts';
import type { Aggregator } from '../domain/aggregations.ts';
import type { Deadlines } from '../domain/deadlines.ts';
import type { Domain } from '../domain/domain.ts';
import type { Representations } from '../domain/representations.ts';
import type { Partials } from '../store/partials.ts';
import type { Spool } from '../store/spool.ts';
import type { Timers } from '../timers.ts';
import type { Work } from '../work.ts';

/** What the routes of every dialect share. */
export interface RouteContext {
  readonly domain: Domain;
  readonly aggregator: Aggregator;
  readonly deadlines: Deadlines;
  /** Told of what concerns leaves that listen to a broker. */
  readonly broker: Broker;
  readonly representations: Representations;
  readonly spool: Spool;
  readonly partials: Partials;
  readonly timers: Timers;
  readonly work: Work;
  /** Key of signed links. */
  readonly linkKey: string;
  readonly maxUploadBytes: number;
  /** A body from which nothing comes for so long is cut. */
  readonly idleMs: number;
  /** Base of absolute links, without a slash at the end. Never taken from a request. */
  readonly baseUrl: () => string;
  readonly version: string;
  /** Aborted when the server closes: streams end then. */
  readonly closing: AbortSignal;
}
