/**
 * The aggregation of closed rounds. A round that is `aggregating` in the database is work to be done, whoever put it
 * there: a close a moment ago, an operator's retry, or a process that died. The data directory's lock stands for the
 * lease: who has it is the only one at work.
 *
 * Rounds of one branch are done one after the other in their order, so that their notices come in order too.
 */
import { randomUUID } from 'node:crypto';
import { rm, stat } from 'node:fs/promises';
import { AggregationError, type AggregationPlace, isCambiumError } from '../../errors.ts';
import type { ErrorBody, StrategyBody } from '../../wire/cambium.ts';
import { completeRound } from './completion.ts';
import type { Domain } from './domain.ts';
import { announce } from './notices.ts';
import type { Round } from './rounds.ts';
import { type RoundRule, ruleOf } from './rules.ts';
import { addUp, type Contribution, hasSums, inputOf } from './sums.ts';
import { recordSum } from './upstream.ts';

/** What is told of the work on a round. */
type RoundReport = Awaited<ReturnType<typeof addUp>>;

/**
 * A round of fewer bytes is over in a moment: when it was begun is told with what came of it, not in a commit of its own
 * that everybody would wait for.
 */
const BRIEF_BYTES = 1 << 20;

/** An update that counts in the round. */
interface RoundUpdate extends Contribution {
  readonly byte_length: number;
  readonly staleness: number;
  readonly local_steps: number | null;
}

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

  /** When what was scheduled is done and recorded, and what it replaces is removed. */
  async idle(): Promise<void> {
    await Promise.all(this.#chains.values());
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
    const { db, blobs, log, now } = this.#domain;
    const id = round.aggregation_id!; // fixed when the round closed
    const output = blobs.workPath(id);
    const state = `${output}.state`;
    const updates = await db
      .selectFrom('updates')
      .select(['id', 'leaf_id', 'byte_length', 'weighting', 'staleness', 'local_steps', 'sum_total', 'bytes'])
      .where('round_id', '=', round.id)
      .where('left_out', 'is', null)
      .orderBy('leaf_id')
      .execute();
    const startedAt = now();
    const bytes = updates.reduce((sum, update) => sum + Number(update.byte_length), 0);
    if (bytes >= BRIEF_BYTES) {
      await db.updateTable('rounds').set({ started_at: startedAt }).where('id', '=', round.id).execute();
    }
    let report: RoundReport;
    let rule: RoundRule;
    try {
      rule = await ruleOf(db, round);
      if (rule.keepsState) await rm(state, { force: true });
      if (rule.stateId !== undefined) await blobs.borrow(rule.stateId, state);
      report = await this.#carryOut(rule, updates, { output, state });
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      log.error({ err: error, round: round.id, aggregation: id }, 'aggregation failed');
      return this.#finish(this.#fail(round, startedAt, failureOf(error)));
    }
    if (this.#stop.signal.aborted) return;
    return this.#finish(
      this.#complete(round, startedAt, { output, state }, rule, report).catch((error) => {
        log.error({ err: error, round: round.id, aggregation: id }, 'aggregation could not be stored');
        return this.#fail(round, startedAt, failureOf(error));
      }),
    );
  }

  /** Writes the file: the exact sum for a server above, the mean of what holds sums, or what the rule gives. */
  #carryOut(
    { strategy, modelId, keepsState, nonFinite, tensors, upstream }: RoundRule,
    updates: readonly RoundUpdate[],
    { output, state }: { readonly output: string; readonly state: string },
  ): Promise<RoundReport> {
    const { blobs, jobs } = this.#domain;
    const { signal } = this.#stop;
    if (upstream || hasSums(updates)) {
      const to = upstream ? 'sum' : 'mean';
      return addUp(this.#domain, { members: updates, output, to, nonFinite, tensors }, { signal });
    }
    return jobs.aggregate(
      {
        inputs: updates.map((update) => inputOf(blobs, update)),
        output,
        format: 'npy-object',
        strategy: { ...strategy, perLeaf: perLeafOf(strategy, updates) },
        model: modelId && blobs.path(modelId),
        state: keepsState ? state : undefined,
        tensors,
        nonFinite,
        digest: true,
      },
      { signal },
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

  async #complete(
    round: Round,
    startedAt: number,
    files: { readonly output: string; readonly state: string },
    rule: RoundRule,
    report: RoundReport,
  ): Promise<void> {
    if (rule.upstream) return recordSum(this.#domain, round, startedAt, files.output, report);
    const id = round.aggregation_id!; // fixed when the round closed
    const { db, blobs, keepUpdates, now } = this.#domain;
    const { size } = await stat(files.output);
    const stateId = rule.keepsState ? randomUUID() : null;
    const begunAt = performance.now();
    if (stateId !== null) await blobs.put(stateId, files.state);
    await blobs.put(id, files.output);
    const writeSeconds = (performance.now() - begunAt) / 1000;
    const completion = {
      leaves: report.leaves,
      totalWeighting: report.totalWeighting,
      byteLength: size,
      sha256: report.sha256!, // asked for
      stateId,
      strategy: rule.strategy,
      startedAt,
      seconds: report.seconds,
      bytesRead: report.bytesRead,
      writeSeconds,
    };
    const removed = await db
      .transaction()
      .execute((tx) => completeRound(tx, round, completion, keepUpdates, now()));
    // To take large files away takes a while, and nobody should wait for that.
    await announce(this.#domain, round.branch_id, round.id);
    for (const blob of removed) await blobs.remove(blob);
  }

  async #fail(round: Round, startedAt: number, failure: ErrorBody): Promise<void> {
    const { db, now } = this.#domain;
    await db
      .updateTable('rounds')
      .set({ status: 'failed', failure: JSON.stringify(failure), started_at: startedAt, done_at: now() })
      .where('id', '=', round.id)
      .where('status', '=', 'aggregating')
      .execute();
    await announce(this.#domain, round.branch_id, round.id);
  }
}

/** What some rules want to know of each leaf. */
function perLeafOf(
  { name }: StrategyBody,
  updates: readonly RoundUpdate[],
): ReadonlyMap<string, number> | undefined {
  if (name === 'buffered') return new Map(updates.map((update) => [update.leaf_id, update.staleness]));
  // An upload without is refused where the rule asks for them (domain/updates.ts).
  if (name === 'fednova') return new Map(updates.map((update) => [update.leaf_id, update.local_steps ?? 0]));
  return undefined;
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
