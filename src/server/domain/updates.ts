/**
 * How an update gets into a round.
 *
 *     body in the spool ─► examined, and blob durable ─► one transaction: state, contract, total, row, maybe the close
 *
 * A small update is no blob: the transaction takes its bytes with it, and the disk is waited for once.
 *
 * Whatever is refused on the way leaves nothing: the spool file and the blob are removed, the round has not seen it. The
 * receipt is given after the commit, so a receipt is never lost, and a crash before it leaves at most a blob without a
 * row, which the next start removes.
 */
import { randomUUID } from 'node:crypto';
import type { Insertable } from 'kysely';
import { totalOfLeaves } from '../../aggregate/partial-file.ts';
import { FileError } from '../../errors.ts';
import type { Examination } from '../../node/jobs.ts';
import type { UploadBody } from '../../wire/cambium.ts';
import { changesSoFar, type Database } from '../store/database.ts';
import { prepared } from '../store/prepared.ts';
import type { UpdatesTable } from '../store/schema.ts';
import { inSharedTransaction } from '../store/shared-transaction.ts';
import { type Arrived, asDiskFull, type Held, type Spooled } from '../store/spool.ts';
import {
  type Contract,
  checkContract,
  checkTotal,
  checkUpdate,
  contractOf,
  withNamesOf,
} from './contract.ts';
import { checkDifference } from './differences.ts';
import type { Domain } from './domain.ts';
import { examineFile, type UpdateFile } from './examining.ts';
import { checkNotReplaced, findByKey, findKnown, type Known, sameBytesAs } from './known-updates.ts';
import { isRevoked, type Leaf, revoked } from './leaves.ts';
import { type Place, receivingRun } from './receiving.ts';
import { Refusal } from './refusal.ts';
import { settleRound } from './rounds.ts';
import { modelBefore } from './rules.ts';
import { standingOf } from './standing.ts';
import { checkLeavesOnce, exactWeighting, recordSumLeaves } from './sums.ts';

export interface UpdateOptions {
  /** The round that the leaf means; refused when another one is open. */
  readonly round?: number | undefined;
  /** Gradient steps that the leaf has made, for rules that ask for them. */
  readonly localSteps?: number | undefined;
  /** A name for this upload by its sender: the same key is the same upload. */
  readonly idempotencyKey?: string | undefined;
}

/** What became of an update, and whether it closed its round. */
export interface Accepted {
  readonly body: UploadBody;
  readonly isClosed: boolean;
}

/**
 * Takes an update into the open round of the leaf's branch, or recognises it as one that is there already.
 *
 * @throws Refusal those of `checkReceiving`, `round-closed`, `update-exists`, `update-replaced`, `update-late`,
 *   `local-steps-missing`, `idempotency-key-reused`, `partial-leaf-duplicate`, those of `checkDifference`, and everything that
 *   an update by itself can be refused for (domain/contract.ts; codes of FormatError)
 */
export async function acceptUpdate(
  domain: Domain,
  leaf: Leaf,
  body: Held | Spooled,
  options: UpdateOptions = {},
): Promise<Accepted> {
  const look = (tx: Database) => lookFor(tx, leaf, body, options);
  const { first, changes } = await domain.db.transaction().execute(async (tx) => {
    return { first: await look(tx), changes: await changesSoFar(tx) };
  });
  if (first.place === undefined) return { body: first.receipt, isClosed: false };

  const { policy } = first.place;
  const id = randomUUID();
  const file = 'bytes' in body ? { path: domain.blobs.workPath(id), bytes: body.bytes } : { path: body.path };
  // The disk need not wait for the examination: what is refused is removed again. A small one goes there with its row.
  const kept = 'bytes' in body ? undefined : body.flushed().then(() => domain.blobs.keep(id, body.path));
  try {
    const [examined] = await Promise.all([examineUpdate(domain, leaf, file, first.place), kept]);
    checkUpdate(examined.examination, policy);
    const accepted = await inSharedTransaction(domain.db, async (tx) => {
      // Another upload of the leaf may have been faster, or an operator.
      const found = (await changesSoFar(tx)) === changes ? first : await look(tx);
      if (found.place === undefined) return { receipt: found.receipt, settled: undefined, removed: [id] };
      return record(tx, domain.now(), found, leaf, body, options, { id, ...examined });
    });
    const { receipt, settled } = accepted;
    if (settled !== undefined) {
      const { round } = settled;
      domain.signals.emit(`rounds:${round.branch_id}`, round.id);
      if (settled.hasNewEnd) domain.signals.emit('ends');
      if (settled.isClosed) domain.signals.emit('closed', round.branch_id);
    }
    for (const blob of accepted.removed) await domain.blobs.remove(blob);
    return { body: receipt, isClosed: settled?.isClosed ?? false };
  } catch (error) {
    await kept?.catch(() => {}); // or it would be there after it was removed
    if (kept !== undefined) await domain.blobs.remove(id);
    throw asDiskFull(error);
  }
}

/** Where an update goes, and what it would replace there; or the receipt of what is there already. */
type Found =
  | { readonly place: Place; readonly present: Known['present'] }
  | { readonly place: undefined; readonly receipt: UploadBody };

/** @throws Refusal `token-revoked`, `idempotency-key-reused`, `update-replaced`, those of `receivingRun` and `findKnown` */
async function lookFor(
  tx: Database,
  leaf: Leaf,
  body: Arrived,
  { idempotencyKey, round }: UpdateOptions,
): Promise<Found> {
  const keyed = await findByKey(tx, leaf, idempotencyKey);
  if (keyed !== undefined) return { place: undefined, receipt: sameBytesAs(keyed, body) };
  await checkNotReplaced(tx, leaf, idempotencyKey);
  if (await isRevoked(tx, leaf.id)) throw revoked(leaf.id);
  const place = await receivingRun(tx, leaf);
  const { receipt, present } = await findKnown(tx, place, leaf, body.sha256, round);
  return receipt === undefined ? { place, present } : { place: undefined, receipt };
}

/** What a look at an update has told. */
interface Examined {
  readonly examination: Examination;
  /** The aggregation that its norm is the distance to, or that it is a difference to. */
  readonly normBase: string | null;
  /** How long it took, waiting in line included. */
  readonly ms: number;
}

/** @throws Refusal those of `examineFile` */
async function examineUpdate(
  domain: Domain,
  leaf: Leaf,
  file: UpdateFile,
  { run, round, policy }: Place,
): Promise<Examined> {
  const begunAt = performance.now();
  const name = `update of ${leaf.name}`;
  const model = await modelBefore(domain.db, round);
  const sums = policy.partial_sums;
  const tensors = run.contract === null ? undefined : (JSON.parse(run.contract) as Contract); // written by record
  const options = { sums, model: model && domain.blobs.path(model), tensors };
  const examination = await examineFile(domain, file, name, options).catch((error: unknown) => {
    // The model may have been given up meanwhile. It is good for a figure, not for a refusal.
    if (!(error instanceof FileError) || model === undefined) throw error;
    return examineFile(domain, file, name, { sums });
  });
  return {
    examination,
    normBase: examination.isDifference ? (model ?? null) : null,
    ms: performance.now() - begunAt,
  };
}

/** Rounds of the run that have ended since the model that the leaf fetched last; those that are being averaged too. */
async function stalenessOf(tx: Database, { run, round }: Place, leaf: Leaf): Promise<number> {
  const [fetched] = await newestFetched(tx, { leafId: leaf.id, runId: run.id });
  const after = fetched?.newest ?? 0;
  // Whoever has the newest model, which is everybody as a rule, need not count.
  if (after === round.number - 1) return 0;
  const [ended] = await endedBetween(tx, { runId: run.id, after, before: round.number });
  return Number(ended!.count); // a count is a row
}

const newestFetched = prepared((db, { leafId, runId }: { readonly leafId: string; readonly runId: string }) =>
  db
    .selectFrom('fetches')
    .select(({ fn }) => fn.max('round').as('newest'))
    .where('leaf_id', '=', leafId)
    .where('run_id', '=', runId),
);

interface Between {
  readonly runId: string;
  readonly after: number;
  readonly before: number;
}

const endedBetween = prepared((db, { runId, after, before }: Between) =>
  db
    .selectFrom('rounds')
    .select(({ fn }) => fn.countAll<number | string>().as('count'))
    .where('run_id', '=', runId)
    .where('status', 'in', ['aggregating', 'summed', 'done'])
    .where('number', '>', after)
    .where('number', '<', before),
);

/** Writes the row, fixes the contract if this is the run's first update, and closes the round at its target. */
async function record(
  tx: Database,
  now: number,
  { place, present }: Extract<Found, { readonly place: Place }>,
  leaf: Leaf,
  body: Held | Spooled,
  { idempotencyKey, localSteps }: UpdateOptions,
  update: Examined & { readonly id: string },
) {
  const { run, round, policy } = place;
  const { id, examination, normBase } = update;
  // The policy may be another one than when the file was examined.
  const weighting = checkUpdate(examination, policy);
  if (policy.strategy.name === 'fednova' && localSteps === undefined) {
    throw new Refusal(
      'unprocessable',
      'local-steps-missing',
      'the rule of this branch counts local steps: upload with ?local_steps=N',
    );
  }
  const staleness = await stalenessOf(tx, place, leaf);
  if (staleness > 0 && policy.late === 'refuse') {
    throw new Refusal(
      'conflict',
      'update-late',
      `the update is based on a model that is ${staleness === 1 ? '1 round' : `${staleness} rounds`} old: fetch the newest and train on that`,
      { round: round.number, staleness },
    );
  }
  const { layout } = examination;
  await checkDifference(tx, place, leaf, { layout, sha256: body.sha256, staleness, present });
  const before = run.contract === null ? undefined : (JSON.parse(run.contract) as Contract); // written below
  if (before !== undefined) checkContract(before, layout);
  const contract = before === undefined ? contractOf(layout) : withNamesOf(layout, before);
  if (contract !== before) {
    await tx
      .updateTable('runs')
      .set({ contract: JSON.stringify(contract) })
      .where('id', '=', run.id)
      .execute();
  }
  const { sum } = examination;
  const sumTotal = sum === undefined ? null : String(totalOfLeaves(sum));
  if (policy.partial_sums) await checkLeavesOnce(tx, round.id, leaf.id, sum);
  if (present !== undefined) await replace(tx, present, now);
  await insertUpdate(tx, {
    id,
    round_id: round.id,
    leaf_id: leaf.id,
    weighting,
    byte_length: layout.byteLength,
    sha256: body.sha256,
    idempotency_key: idempotencyKey ?? null,
    received_at: now,
    removed_at: null,
    staleness,
    local_steps: localSteps ?? null,
    left_out: null,
    sum_leaves: sum?.length ?? null,
    sum_total: sumTotal,
    is_difference: layout.isDifference === true ? 1 : 0,
    norm: examination.norm,
    norm_base: normBase,
    bytes: 'bytes' in body ? body.bytes : null,
    receive_ms: body.receiveMs === null ? null : Math.round(body.receiveMs),
    examine_ms: Math.round(update.ms),
  });
  if (sum !== undefined) await recordSumLeaves(tx, round.id, id, sum);
  const standing = await standingOf(tx, round);
  checkTotal(standing.members.map(exactWeighting));
  const settlement = await settleRound(tx, round, standing, now);
  const receipt: UploadBody = {
    file_id: id,
    run_number: run.number,
    round: round.number,
    weighting,
    sha256: body.sha256,
    duplicate: false,
  };
  const replaced = present === undefined ? [] : [present];
  return { receipt, settled: { ...settlement, round }, removed: [...replaced, ...settlement.removed] };
}

const insertUpdate = prepared((db, row: Insertable<UpdatesTable>) => db.insertInto('updates').values(row));

/** Takes an update out of its round for another one; the digest is kept, so that it does not come back. */
async function replace(tx: Database, id: string, now: number): Promise<void> {
  const old = await tx
    .selectFrom('updates')
    .select(['id', 'round_id', 'leaf_id', 'sha256', 'idempotency_key', 'received_at'])
    .where('id', '=', id)
    .executeTakeFirstOrThrow();
  await tx
    .insertInto('replaced_updates')
    .values({ ...old, replaced_at: now })
    .execute();
  await tx.deleteFrom('sum_leaves').where('update_id', '=', id).execute();
  await tx.deleteFrom('updates').where('id', '=', id).execute();
}
