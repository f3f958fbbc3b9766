/**
 * The aggregation of closed rounds. A round that is `aggregating` in the database is work to be done, whoever put it
 * there: a close a moment ago, an operator's retry, or a process that died. The data directory's lock stands for the
 * lease: who has it is the only one at work.
 *
 * Rounds of one branch are done one after the other in their order, so that their notices come in order too.
 */
import { stat } from 'node:fs/promises';
import { AggregationError, type AggregationPlace, isCambiumError } from '../../errors.ts';
import type { AggregateReport } from '../../node/jobs.ts';
import type { ErrorBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import type { Domain } from './domain.ts';
import { writeNotice } from './notices.ts';
import { giveUpUpdates, type Round } from './rounds.ts';

export class Aggregator {
  readonly #domain: Domain;
  readonly #stop = new AbortController();
  /** The end of each branch's chain of work. */
  readonly #chains = new Map<string, Promise<void>>();
  /** What must be finished before the database may be closed. */
  readonly #finishing = new Set<Promise<void>>();

  constructor(domain: Domain) {
    this.#domain = domain;
  }

  /** Takes up the oldest round of the branch that waits, after those that are under way. */
  schedule(branchId: string): void {
    if (this.#stop.signal.aborted) return;
    const chain = (this.#chains.get(branchId) ?? Promise.resolve()).then(() => this.#next(branchId));
    this.#chains.set(branchId, chain);
    void chain.then(() => {
      if (this.#chains.get(branchId) === chain) this.#chains.delete(branchId);
    });
  }

  /** Takes up everything that an earlier process left undone. */
  async resume(): Promise<void> {
    const rounds = await this.#domain.db
      .selectFrom('rounds')
      .select('branch_id')
      .where('status', '=', 'aggregating')
      .execute();
    for (const round of rounds) this.schedule(round.branch_id);
  }

  /**
   * Stops taking up work and tells the jobs to end. A job that does not is left behind: its round stays `aggregating`
   * for the next start, and what it still says is not heard.
   */
  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled(this.#finishing);
  }

  async #next(branchId: string): Promise<void> {
    if (this.#stop.signal.aborted) return;
    const { db, log } = this.#domain;
    try {
      const round = await db
        .selectFrom('rounds')
        .selectAll()
        .where('branch_id', '=', branchId)
        .where('status', '=', 'aggregating')
        .orderBy('closed_at')
        .orderBy('number')
        .limit(1)
        .executeTakeFirst();
      if (round !== undefined) await this.#aggregate(round);
    } catch (error) {
      // The round stays as it is; the next close, retry or start takes it up again.
      if (!this.#stop.signal.aborted)
        log.error({ err: error, branch: branchId }, 'aggregation could not be recorded');
    }
  }

  async #aggregate(round: Round): Promise<void> {
    const { db, blobs, jobs, log } = this.#domain;
    const id = round.aggregation_id!; // fixed when the round closed
    const output = blobs.workPath(id);
    const updates = await db
      .selectFrom('updates')
      .select(['id', 'leaf_id', 'weighting'])
      .where('round_id', '=', round.id)
      .orderBy('leaf_id')
      .execute();
    let report: AggregateReport;
    try {
      report = await jobs.aggregate(
        {
          inputs: updates.map((update) => ({
            path: blobs.path(update.id),
            leaf: update.leaf_id,
            weighting: update.weighting,
          })),
          output,
          format: 'npy-object',
          nonFinite: 'reject',
          digest: true,
          durable: true,
        },
        { signal: this.#stop.signal },
      );
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      log.error({ err: error, round: round.id, aggregation: id }, 'aggregation failed');
      return this.#finish(this.#fail(round, failureOf(error)));
    }
    if (this.#stop.signal.aborted) return;
    return this.#finish(
      this.#complete(round, id, output, report).catch((error) => {
        log.error({ err: error, round: round.id, aggregation: id }, 'aggregation could not be stored');
        return this.#fail(round, failureOf(error));
      }),
    );
  }

  /** Keeps the database open until the work is recorded. */
  async #finish(work: Promise<void>): Promise<void> {
    this.#finishing.add(work);
    try {
      await work;
    } finally {
      this.#finishing.delete(work);
    }
  }

  async #complete(round: Round, id: string, output: string, report: AggregateReport): Promise<void> {
    const { db, blobs, signals, now } = this.#domain;
    const { size } = await stat(output);
    await blobs.put(id, output);
    const removed = await db.transaction().execute(async (tx) => {
      const at = now();
      const run = await tx
        .selectFrom('runs')
        .select('number')
        .where('id', '=', round.run_id)
        .executeTakeFirstOrThrow();
      await tx
        .insertInto('aggregations')
        .values({
          id,
          round_id: round.id,
          branch_id: round.branch_id,
          leaves: report.leaves,
          total_weighting: report.totalWeighting,
          byte_length: size,
          sha256: report.sha256!, // asked for
          created_at: at,
        })
        .execute();
      await tx
        .updateTable('rounds')
        .set({
          status: 'done',
          total_weighting: report.totalWeighting,
          aggregation_seconds: report.seconds,
          done_at: at,
        })
        .where('id', '=', round.id)
        .execute();
      await writeNotice(
        tx,
        round.branch_id,
        round.run_id,
        {
          message_type: 'aggregation_status',
          body: { aggregation_id: id },
          aggregation_id: id,
          run: run.number,
          round: round.number,
        },
        at,
      );
      return this.#prune(tx, round, at);
    });
    for (const blob of removed) await blobs.remove(blob);
    signals.emit(`notices:${round.branch_id}`);
    signals.emit(`rounds:${round.branch_id}`, round.id);
  }

  async #fail(round: Round, failure: ErrorBody): Promise<void> {
    const { db, signals, now } = this.#domain;
    await db
      .updateTable('rounds')
      .set({ status: 'failed', failure: JSON.stringify(failure), done_at: now() })
      .where('id', '=', round.id)
      .where('status', '=', 'aggregating')
      .execute();
    signals.emit(`rounds:${round.branch_id}`, round.id);
  }

  /** Gives up the updates of rounds that are done and older than what is kept, those of earlier runs too. */
  async #prune(tx: Database, newest: Round, now: number): Promise<string[]> {
    const old = await tx
      .selectFrom('rounds')
      .select('id')
      .where('branch_id', '=', newest.branch_id)
      .where('status', '=', 'done')
      .where((where) =>
        where.or([
          where('run_id', '!=', newest.run_id),
          where('number', '<=', newest.number - this.#domain.keepUpdates),
        ]),
      )
      .where('id', 'in', (query) =>
        query.selectFrom('updates').select('updates.round_id').where('updates.removed_at', 'is', null),
      )
      .execute();
    return giveUpUpdates(
      tx,
      old.map((round) => round.id),
      now,
    );
  }
}

function failureOf(error: unknown): ErrorBody {
  if (!isCambiumError(error)) {
    const message = 'the aggregation ended unexpectedly; the log of the server says more';
    return { error: message, message, code: 'internal' };
  }
  const { message, code } = error;
  const { leaf, tensor, index, nonFinite } =
    error instanceof AggregationError ? error : ({} as AggregationPlace);
  const known = Object.entries({ leaf, tensor, index, non_finite: nonFinite });
  const details = Object.fromEntries(known.filter(([, value]) => value !== undefined));
  return { error: message, message, code, ...(Object.keys(details).length === 0 ? {} : { details }) };
}
