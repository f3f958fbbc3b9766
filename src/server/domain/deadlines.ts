/**
 * Rounds that end by the clock: open ones, and those that wait for a server above. The ends stand in the database; one
 * timer waits for the next of them, so a restart loses none, and one that fell into the time when no server ran is made up
 * for at the start.
 */
import { randomUUID } from 'node:crypto';
import type { Database } from '../store/database.ts';
import type { Timers } from '../timers.ts';
import type { Domain } from './domain.ts';
import { leastOf } from './policy.ts';
import type { Refusal } from './refusal.ts';
import {
  closeRound,
  followSettlement,
  openNext,
  policyOfRound,
  type Round,
  type Settlement,
  tooFew,
} from './rounds.ts';
import { standingOf } from './standing.ts';
import { silentAbove } from './upstream.ts';

/** Timers of the host end at 2^31 ms; and a clock that is set while we wait is noticed after an hour at the latest. */
const LONGEST_WAIT_MS = 3600_000;

export class Deadlines {
  readonly #domain: Domain;
  readonly #timers: Timers;
  readonly #off: () => void;
  #cancel: () => void = () => {};
  #isClosed = false;
  /** Looks are taken one after the other: each sets the timer that the next one replaces. */
  #line: Promise<void> = Promise.resolve();

  constructor(domain: Domain, timers: Timers) {
    this.#domain = domain;
    this.#timers = timers;
    this.#off = domain.signals.on('ends', () => this.look());
  }

  /** Ends what is due and waits for what comes next. */
  look(): void {
    this.#line = this.#line.then(() => this.#look());
  }

  /** When the looks that were asked for have been taken. */
  async idle(): Promise<void> {
    await this.#line;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#off();
    this.#cancel();
    await this.#line;
  }

  async #look(): Promise<void> {
    if (this.#isClosed) return;
    this.#cancel();
    const { db, log, now } = this.#domain;
    let wait: number | undefined;
    try {
      let next = await nextExpiry(db);
      if (next !== undefined && next <= now()) {
        await expireRounds(this.#domain);
        next = await nextExpiry(db);
      }
      wait = next === undefined ? undefined : Math.min(Math.max(1, next - now()), LONGEST_WAIT_MS);
    } catch (error) {
      log.error({ err: error }, 'rounds could not be ended');
      wait = LONGEST_WAIT_MS;
    }
    if (wait !== undefined && !this.#isClosed) this.#cancel = this.#timers.after(wait, () => this.look());
  }
}

/** What the clock did to a round. */
interface Expiry extends Omit<Settlement, 'hasNewEnd'> {
  readonly branchId: string;
  readonly roundId: string;
  /** Why it failed. */
  readonly failure?: Refusal;
}

/**
 * Ends the rounds whose time is over: with enough they close, with too few they fail, and the next round is open; a round
 * that nobody has come to gets its time anew. One that has waited long enough for a server above fails.
 */
async function expireRounds(domain: Domain): Promise<void> {
  const now = domain.now();
  const due = await timedRounds(domain.db).where('rounds.closes_at', '<=', now).execute();
  for (const { id } of due) {
    const expiry = await domain.db.transaction().execute((tx) => expire(tx, id, now));
    if (expiry === undefined) continue;
    await followSettlement(domain, expiry.branchId, expiry.roundId, expiry);
    if (expiry.failure !== undefined) {
      const { code, message } = expiry.failure;
      domain.log.error({ round: id, code }, `a round failed: ${message}`);
    }
  }
}

/** When the next round's time is over; undefined when no round has an end. */
async function nextExpiry(db: Database): Promise<number | undefined> {
  const row = await timedRounds(db)
    .where('rounds.closes_at', 'is not', null)
    .orderBy('rounds.closes_at')
    .limit(1)
    .executeTakeFirst();
  return row?.closes_at ?? undefined;
}

/** Time stands still in a pause, but for rounds that have closed: those are finished in any case. */
function timedRounds(db: Database) {
  return db
    .selectFrom('rounds')
    .innerJoin('runs', 'runs.id', 'rounds.run_id')
    .select(['rounds.id', 'rounds.closes_at'])
    .where(({ or, and, eb }) =>
      or([
        and([eb('rounds.status', '=', 'open'), eb('runs.status', '=', 'start')]),
        eb('rounds.status', '=', 'summed'),
      ]),
    );
}

async function expire(tx: Database, id: string, now: number): Promise<Expiry | undefined> {
  const round = await tx.selectFrom('rounds').selectAll().where('id', '=', id).executeTakeFirstOrThrow();
  if (round.closes_at === null || round.closes_at > now) return undefined; // somebody was faster
  const told = { branchId: round.branch_id, roundId: id };
  if (round.status === 'summed') {
    const failure = silentAbove(round.closes_at);
    await failRound(tx, round, failure, now);
    return { ...told, isClosed: false, removed: [], failure };
  }
  const policy = await policyOfRound(tx, round);
  const standing = await standingOf(tx, round);
  const { contributions, members } = standing;
  if (contributions.byMinimum >= leastOf(policy)) {
    return { ...told, isClosed: true, removed: await closeRound(tx, round, standing, 'minimum', now) };
  }
  if (members.length === 0) {
    const closes_at = policy.deadline_ms === null ? null : now + policy.deadline_ms;
    await tx.updateTable('rounds').set({ closes_at }).where('id', '=', id).execute();
    return { ...told, isClosed: false, removed: [] };
  }
  const failure = tooFew(contributions.byMinimum, leastOf(policy));
  await failRound(tx, round, failure, now);
  await openNext(tx, round, now);
  return { ...told, isClosed: false, removed: [], failure };
}

/** Keeps a round and its updates for an operator to decide. */
async function failRound(
  tx: Database,
  { id, aggregation_id, closed_at }: Round,
  { message, code, details }: Refusal,
  now: number,
): Promise<void> {
  await tx
    .updateTable('rounds')
    .set({
      status: 'failed',
      aggregation_id: aggregation_id ?? randomUUID(),
      failure: JSON.stringify({ error: message, message, code, details }),
      closed_at: closed_at ?? now,
      done_at: now,
      closes_at: null,
    })
    .where('id', '=', id)
    .execute();
}
