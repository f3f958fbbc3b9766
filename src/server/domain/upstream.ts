/**
 * Rounds that go up to another server: a branch whose policy says `upstream` is a leaf of a branch above.
 *
 *     open ─► aggregating ─► summed ─────────────────────────────► done
 *                 ▲            │└─ sum fetched, uploaded above,      ▲
 *                 │            │   averaged there, brought down ─────┘
 *                 └── retry ── failed (nothing came in time)
 *
 * The round ends with the exact partial sum of its updates. Somebody with an operator's token (`cambium relay`) takes it
 * to the server above as a leaf does an update, and brings the aggregation from there; only then are the leaves told. This
 * server never calls the other one: it need not reach it, and has none of its credentials.
 *
 * What is handed down is the file of the aggregation as the server above has it, so all leaves of the whole tree have the same
 * bytes. A round is handed down once; the same bytes again are the same thing.
 */
import { randomUUID } from 'node:crypto';
import { rm, stat } from 'node:fs/promises';
import { FormatError } from '../../errors.ts';
import type { RoundBody, SumBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import type { Spooled } from '../store/spool.ts';
import { completeRound } from './completion.ts';
import { checkContract, checkUpdate } from './contract.ts';
import { checkModel } from './differences.ts';
import type { Domain } from './domain.ts';
import { examineFile } from './examining.ts';
import { announce } from './notices.ts';
import { policyOf } from './policy.ts';
import { Refusal, unknown } from './refusal.ts';
import { getRound } from './round-view.ts';
import { contractOfRound, followSettlement, forgetSum, policyOfRound, type Round } from './rounds.ts';
import type { addUp } from './sums.ts';
import { lockBranch } from './trees.ts';

/** Keeps the exact sum of a round that is `aggregating`, for somebody to take it up. */
export async function recordSum(
  domain: Domain,
  round: Round,
  startedAt: number,
  file: string,
  report: Awaited<ReturnType<typeof addUp>>,
): Promise<void> {
  const { db, blobs, now } = domain;
  const { size } = await stat(file);
  const id = randomUUID();
  await blobs.put(id, file);
  const branch = await lockBranch(db, round.branch_id);
  // The present one, not that of the round: after a retry an operator may have more patience.
  const { upstream_timeout_ms: patience } = policyOf(branch, branch.aggregation_target);
  const removed = await db.transaction().execute(async (tx) => {
    const earlier = await forgetSum(tx, round.id);
    await tx
      .insertInto('sums')
      .values({
        id,
        round_id: round.id,
        branch_id: round.branch_id,
        leaves: report.leaves,
        total_weighting: report.totalWeighting,
        byte_length: size,
        sha256: report.sha256!, // asked for
        created_at: now(),
        removed_at: null,
      })
      .execute();
    await tx
      .updateTable('rounds')
      .set({
        status: 'summed',
        closes_at: patience === null ? null : now() + patience,
        started_at: startedAt,
        aggregation_seconds: report.seconds,
        bytes_read: report.bytesRead,
      })
      .where('id', '=', round.id)
      .execute();
    return earlier;
  });
  await followSettlement(domain, round.branch_id, round.id, { isClosed: false, removed });
}

/** Why a round fails whose time for the server above is over; its sum is kept, so that it can wait again. */
export function silentAbove(until: number): Refusal {
  const message = `no aggregation has come from the server above by ${new Date(until).toISOString()}`;
  return new Refusal('conflict', 'upstream-timeout', message, { closes_at: until });
}

/**
 * The exact sum of a round.
 *
 * @throws Refusal `round-unknown`, `sum-unknown` when there is none (yet), `updates-removed` when it is not kept any more
 */
export async function getSum(db: Database, roundId: string): Promise<SumBody> {
  const round = await db
    .selectFrom('rounds')
    .select(['status', 'number'])
    .where('id', '=', roundId)
    .executeTakeFirst();
  if (round === undefined) throw unknown('round', roundId);
  const row = await db
    .selectFrom('sums')
    .select(['id as file_id', 'leaves', 'total_weighting', 'byte_length', 'sha256', 'removed_at'])
    .where('round_id', '=', roundId)
    .executeTakeFirst();
  if (row === undefined) {
    throw new Refusal(
      'missing',
      'sum-unknown',
      `round ${round.number} is ${round.status} and has no partial sum`,
    );
  }
  const { removed_at, ...sum } = row;
  if (removed_at !== null) {
    throw new Refusal('conflict', 'updates-removed', 'the sum of the round is not kept any more');
  }
  return sum;
}

/** The sum that a file is; undefined for other files. */
export async function findSum(db: Database, fileId: string): Promise<SumBody | undefined> {
  return db
    .selectFrom('sums')
    .select(['id as file_id', 'leaves', 'total_weighting', 'byte_length', 'sha256'])
    .where('id', '=', fileId)
    .where('removed_at', 'is', null)
    .executeTakeFirst();
}

/**
 * Ends a round with the aggregation from the server above, and tells the leaves.
 *
 * @param spooled used up where it is kept as it is
 * @param leaves how many went into the aggregation; those of the round unless given
 * @throws Refusal `round-unknown`, `round-not-summed`, `round-order` while an earlier round of the run waits,
 *   `aggregation-exists` when the round has another one; codes of FormatError, `difference-model`, `weighting-…`,
 *   `layout-…`, `aggregate-dtype-unsupported`, `non-finite`
 */
export async function handDown(
  domain: Domain,
  roundId: string,
  spooled: Spooled,
  leaves?: number,
): Promise<RoundBody> {
  const { db, blobs, keepUpdates, now } = domain;
  const round = await roundToEnd(db, roundId);
  const [examination] = await Promise.all([
    examineFile(domain, spooled, 'the aggregation'),
    spooled.flushed(),
  ]);
  checkModel(examination.layout, 'the aggregation');
  const policy = await policyOfRound(db, round);
  const totalWeighting = checkUpdate(examination, policy);
  checkContract(await contractOfRound(db, round), examination.layout);
  const stored = await storedForm(domain, spooled, examination.layout.format);
  try {
    const { size } = await stat(stored.path);
    const removed = await db.transaction().execute(async (tx) => {
      await lockBranch(tx, round.branch_id);
      const present = await roundToEnd(tx, roundId);
      if (present.status === 'done') return checkSame(tx, present, stored.sha256);
      const sum = await getSum(tx, roundId);
      // Inside, so that of two that come at once only the one that counts gives the id its bytes; they are flushed already.
      await blobs.put(present.aggregation_id!, stored.path); // fixed when the round closed
      const completion = {
        leaves: leaves ?? sum.leaves,
        totalWeighting,
        byteLength: size,
        sha256: stored.sha256,
        stateId: null,
        strategy: policy.strategy,
        startedAt: null,
        seconds: present.aggregation_seconds,
        bytesRead: present.bytes_read,
        writeSeconds: null,
      };
      return completeRound(tx, present, completion, keepUpdates, now());
    });
    for (const blob of removed) await blobs.remove(blob);
  } finally {
    await rm(stored.path, { force: true });
  }
  await announce(domain, round.branch_id, roundId);
  return getRound(db, roundId);
}

/** A round that waits for its aggregation, or has got it from above. */
async function roundToEnd(tx: Database, id: string): Promise<Round> {
  const round = await tx.selectFrom('rounds').selectAll().where('id', '=', id).executeTakeFirst();
  if (round === undefined) throw unknown('round', id);
  const sum = await tx.selectFrom('sums').select('id').where('round_id', '=', id).executeTakeFirst();
  if (sum === undefined || (round.status !== 'summed' && round.status !== 'done')) {
    throw new Refusal(
      'conflict',
      'round-not-summed',
      `the round is ${round.status} and waits for no aggregation from above`,
    );
  }
  if (round.status === 'done') return round;
  const earlier = await tx
    .selectFrom('rounds')
    .select('number')
    .where('run_id', '=', round.run_id)
    .where('status', 'in', ['aggregating', 'summed'])
    .where('number', '<', round.number)
    .limit(1)
    .executeTakeFirst();
  if (earlier === undefined) return round;
  throw new Refusal(
    'conflict',
    'round-order',
    `round ${earlier.number} waits for its aggregation: leaves hear of rounds in their order`,
    { round: earlier.number },
  );
}

/** Nothing to remove, when the aggregation of a round is this very one. Throws Refusal `aggregation-exists`. */
async function checkSame(tx: Database, round: Round, sha256: string): Promise<string[]> {
  const known = await tx
    .selectFrom('aggregations')
    .select('sha256')
    .where('round_id', '=', round.id)
    .executeTakeFirstOrThrow();
  if (known.sha256 === sha256) return [];
  throw new Refusal(
    'conflict',
    'aggregation-exists',
    `round ${round.number} has another aggregation already`,
    {
      sha256: known.sha256,
    },
  );
}

/** The file in the form that aggregations are stored in: as it is, if it has that. */
async function storedForm(
  { blobs, jobs }: Domain,
  { path, sha256 }: Pick<Spooled, 'path' | 'sha256'>,
  format: string,
): Promise<Pick<Spooled, 'path' | 'sha256'>> {
  if (format === 'npy-object') return { path, sha256 };
  const output = blobs.workPath(randomUUID());
  const report = await jobs
    .convert({ input: path, output, format: 'npy-object', void16: 'bfloat16' })
    .catch((error: unknown) => {
      if (!(error instanceof FormatError)) throw error;
      throw new Refusal('unprocessable', error.code, error.message, undefined, { cause: error });
    });
  return { path: output, sha256: report.sha256! }; // asked for
}
