/**
 * How an update gets into a round.
 *
 *     body on the disk ─► examined ─► blob durable ─► one transaction: state, contract, total, row, maybe the close
 *
 * Whatever is refused on the way leaves nothing: the spool file and the blob are removed, the round has not seen it. The
 * receipt is given after the commit, so a receipt is never lost, and a crash before it leaves at most a blob without a
 * row, which the next start removes.
 */
import { randomUUID } from 'node:crypto';
import type { Examination } from '../../node/jobs.ts';
import type { PolicyBody, UploadBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import type { Spooled } from '../store/spool.ts';
import { type Contract, checkContract, checkTotal, checkUpdate, contractOf } from './contract.ts';
import type { Domain } from './domain.ts';
import { examineFile } from './examining.ts';
import { isRevoked, type Leaf, revoked } from './leaves.ts';
import { Refusal } from './refusal.ts';
import { policyOfRound, type Round, roundInProgress, settleRound } from './rounds.ts';
import { currentRun, type Run } from './runs.ts';
import { excludedLeaves, membersOf } from './standing.ts';
import { lockBranch } from './trees.ts';

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
 * Whether uploads of the leaf's branch are welcome now; asked before the body is read, and again when it has arrived.
 *
 * @throws Refusal `run-paused`, `run-stopped`, `leaf-excluded`, `leaf-not-sampled`
 */
export async function checkReceiving(db: Database, leaf: Leaf): Promise<void> {
  const place = await receivingRun(db, leaf);
  // It may be a retry of what the round before has: only its digest will tell.
  if ((await lastUpdate(db, place, leaf)) === undefined) await checkAsked(db, place, leaf);
}

/**
 * The update that an idempotency key already stands for. A sender that lost its receipt can have it again whatever has
 * happened to the run since; asked before the body is read, which is then not needed.
 */
export async function findByKey(
  db: Database,
  leaf: Leaf,
  idempotencyKey: string | undefined,
): Promise<UploadBody | undefined> {
  if (idempotencyKey === undefined) return undefined;
  const row = await updatesOf(db, leaf)
    .where('updates.idempotency_key', '=', idempotencyKey)
    .executeTakeFirst();
  return row && duplicateOf(row);
}

/**
 * The update that bytes with this digest already are, asked before they come: a sender that lost its receipt, or the
 * process that waited for it, need not send them again.
 *
 * @throws Refusal those of `checkReceiving`, `round-closed`, `update-exists`, `update-replaced`
 */
export function findByDigest(
  db: Database,
  leaf: Leaf,
  sha256: string,
  round: number | undefined,
): Promise<UploadBody | undefined> {
  return db.transaction().execute(async (tx) => {
    return findKnown(tx, await receivingRun(tx, leaf), leaf, { sha256 }, round);
  });
}

/**
 * Takes an update into the open round of the leaf's branch, or recognises it as one that is there already. The spooled
 * file is used up when it is accepted.
 *
 * @throws Refusal those of `checkReceiving`, `round-closed`, `update-exists`, `update-replaced`, `update-late`,
 *   `local-steps-missing`, `idempotency-key-reused`, and everything that an update by itself can be refused for (domain/contract.ts; codes of FormatError)
 */
export async function acceptUpdate(
  domain: Domain,
  leaf: Leaf,
  spooled: Spooled,
  options: UpdateOptions = {},
): Promise<Accepted> {
  const settle = async (tx: Database) => {
    const keyed = await findByKey(tx, leaf, options.idempotencyKey);
    if (keyed !== undefined) return { known: sameBytesAs(keyed, spooled) };
    if (await isRevoked(tx, leaf.id)) throw revoked(leaf.id);
    const place = await receivingRun(tx, leaf);
    return { known: await findKnown(tx, place, leaf, spooled, options.round), place };
  };
  const { known, place: first } = await domain.db.transaction().execute(settle);
  if (known !== undefined) return { body: known, isClosed: false };

  const examination = await examineFile(domain, spooled.path, `update of ${leaf.name}`);
  checkUpdate(examination, first!.policy); // there is a place where nothing is known
  const id = randomUUID();
  try {
    await domain.blobs.put(id, spooled.path);
    const accepted = await domain.db.transaction().execute(async (tx) => {
      // Another upload of the leaf may have been faster, or an operator.
      const { known, place } = await settle(tx);
      if (place === undefined || known !== undefined)
        return { body: known!, isClosed: false, round: undefined, removed: [id] };
      return record(tx, domain.now(), place, leaf, spooled, options, { id, examination });
    });
    for (const blob of accepted.removed) await domain.blobs.remove(blob);
    const { round, body, isClosed } = accepted;
    if (round !== undefined) {
      domain.signals.emit(`rounds:${round.branch_id}`, round.id);
      domain.signals.emit('ends');
      if (isClosed) domain.signals.emit('closed', round.branch_id);
    }
    return { body, isClosed };
  } catch (error) {
    await domain.blobs.remove(id);
    throw error;
  }
}

interface Place {
  readonly run: Run;
  readonly round: Round;
  readonly policy: PolicyBody;
}

async function receivingRun(tx: Database, leaf: Leaf): Promise<Place> {
  const branch = await lockBranch(tx, leaf.branch_id);
  const run = await currentRun(tx, branch);
  const round = run && (await roundInProgress(tx, run.id));
  if (run?.status === 'pause') {
    throw new Refusal('conflict', 'run-paused', `run ${run.number} is paused: upload when it goes on`);
  }
  if (run?.status !== 'start' || round === undefined) {
    throw new Refusal(
      'conflict',
      'run-stopped',
      run === undefined
        ? 'the branch has no run yet'
        : `run ${run.number} is stopped: wait for the next start`,
    );
  }
  return { run, round, policy: await policyOfRound(tx, round) };
}

/** Whether the open round wants anything of the leaf. Throws Refusal `leaf-excluded`, `leaf-not-sampled`. */
async function checkAsked(tx: Database, { round }: Place, leaf: Leaf): Promise<void> {
  if ((await excludedLeaves(tx, round.id)).has(leaf.id)) {
    throw new Refusal(
      'conflict',
      'leaf-excluded',
      `an operator has left the leaf out of round ${round.number}`,
      {
        round: round.number,
      },
    );
  }
  const drawn = round.sample === null ? undefined : (JSON.parse(round.sample) as string[]); // written by openRound
  if (drawn !== undefined && !drawn.includes(leaf.id)) {
    throw new Refusal(
      'conflict',
      'leaf-not-sampled',
      `round ${round.number} asks other leaves: wait for the next`,
      {
        round: round.number,
      },
    );
  }
}

/** The leaf's update of the round before the open one. */
function lastUpdate(tx: Database, { run, round }: Place, leaf: Leaf) {
  return updatesOf(tx, leaf)
    .where('rounds.run_id', '=', run.id)
    .where('rounds.status', '!=', 'discarded')
    .where('rounds.number', '=', round.number - 1)
    .executeTakeFirst();
}

/** Looks for an update that these bytes are already; settles what can be settled by the digest alone. */
async function findKnown(
  tx: Database,
  place: Place,
  leaf: Leaf,
  spooled: Pick<Spooled, 'sha256'>,
  meant: number | undefined,
): Promise<UploadBody | undefined> {
  const { run, round, policy } = place;
  const ofRun = updatesOf(tx, leaf)
    .where('rounds.run_id', '=', run.id)
    .where('rounds.status', '!=', 'discarded');
  const present = await ofRun.where('rounds.number', '=', meant ?? round.number).executeTakeFirst();
  if (present?.sha256 === spooled.sha256 && present.left_out !== 'excluded') return duplicateOf(present);
  if (meant !== undefined && meant !== round.number) {
    throw new Refusal('conflict', 'round-closed', `round ${meant} is not open, round ${round.number} is`, {
      round: round.number,
    });
  }
  if (present === undefined && meant === undefined) {
    const retry = await findRetry(tx, place, leaf, spooled);
    if (retry !== undefined) return retry;
  }
  await checkAsked(tx, place, leaf);
  if (present !== undefined && !policy.replace) {
    throw new Refusal(
      'conflict',
      'update-exists',
      `the leaf has another update in round ${round.number} already`,
      { file_id: present.file_id, round: round.number },
    );
  }
  if (present !== undefined) {
    const replaced = await tx
      .selectFrom('replaced_updates')
      .select('id')
      .where('round_id', '=', round.id)
      .where('leaf_id', '=', leaf.id)
      .where('sha256', '=', spooled.sha256)
      .executeTakeFirst();
    if (replaced === undefined) return undefined;
    throw new Refusal('conflict', 'update-replaced', 'the leaf has replaced this update by a later one', {
      file_id: present.file_id,
      round: round.number,
    });
  }
  return undefined;
}

/**
 * A retry whose receipt was lost may come after its round has closed. Once the leaf has fetched that round's aggregation
 * it has seen the answer, and equal bytes are a new contribution.
 */
async function findRetry(
  tx: Database,
  place: Place,
  leaf: Leaf,
  { sha256 }: Pick<Spooled, 'sha256'>,
): Promise<UploadBody | undefined> {
  const last = await lastUpdate(tx, place, leaf);
  if (last === undefined || last.sha256 !== sha256) return undefined;
  const fetched = await tx
    .selectFrom('fetches')
    .select('leaf_id')
    .where('leaf_id', '=', leaf.id)
    .where('aggregation_id', '=', last.aggregation_id ?? '')
    .executeTakeFirst();
  return fetched === undefined ? duplicateOf(last) : undefined;
}

/** Rounds of the run that have ended since the model that the leaf fetched last; those that are being averaged too. */
async function stalenessOf(tx: Database, { run, round }: Place, leaf: Leaf): Promise<number> {
  const base = await tx
    .selectFrom('fetches')
    .innerJoin('aggregations', 'aggregations.id', 'fetches.aggregation_id')
    .innerJoin('rounds', 'rounds.id', 'aggregations.round_id')
    .select('rounds.number')
    .where('fetches.leaf_id', '=', leaf.id)
    .where('rounds.run_id', '=', run.id)
    .orderBy('rounds.number', 'desc')
    .limit(1)
    .executeTakeFirst();
  const { count } = await tx
    .selectFrom('rounds')
    .select(({ fn }) => fn.countAll<number | string>().as('count'))
    .where('run_id', '=', run.id)
    .where('status', 'in', ['aggregating', 'done'])
    .where('number', '>', base?.number ?? 0)
    .where('number', '<', round.number)
    .executeTakeFirstOrThrow();
  return Number(count);
}

function updatesOf(db: Database, leaf: Leaf) {
  return db
    .selectFrom('updates')
    .innerJoin('rounds', 'rounds.id', 'updates.round_id')
    .innerJoin('runs', 'runs.id', 'rounds.run_id')
    .select([
      'updates.id as file_id',
      'runs.number as run_number',
      'rounds.number as round',
      'rounds.aggregation_id',
      'updates.weighting',
      'updates.sha256',
      'updates.left_out',
    ])
    .where('updates.leaf_id', '=', leaf.id);
}

function duplicateOf(row: Omit<UploadBody, 'duplicate'>): UploadBody {
  const { file_id, run_number, round, weighting, sha256 } = row;
  return { file_id, run_number, round, weighting, sha256, duplicate: true };
}

function sameBytesAs(known: UploadBody, { sha256 }: Spooled): UploadBody {
  if (known.sha256 === sha256) return known;
  throw new Refusal(
    'conflict',
    'idempotency-key-reused',
    'the idempotency key belongs to an upload with other bytes',
    { file_id: known.file_id },
  );
}

/** Writes the row, fixes the contract if this is the run's first update, and closes the round at its target. */
async function record(
  tx: Database,
  now: number,
  place: Place,
  leaf: Leaf,
  spooled: Spooled,
  { idempotencyKey, localSteps }: UpdateOptions,
  update: { readonly id: string; readonly examination: Examination },
) {
  const { run, round, policy } = place;
  const { id, examination } = update;
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
      `the update is based on a model that is ${staleness} rounds old: fetch the newest and train on that`,
      { round: round.number, staleness },
    );
  }
  if (run.contract !== null) {
    checkContract(JSON.parse(run.contract) as Contract, examination.layout); // written below
  } else {
    const contract = JSON.stringify(contractOf(examination.layout));
    await tx.updateTable('runs').set({ contract }).where('id', '=', run.id).execute();
  }
  const members = await membersOf(tx, round.id);
  const others = members.filter((member) => member.leaf_id !== leaf.id);
  checkTotal([...others.map((other) => other.weighting), weighting]);
  const removed = others.length < members.length ? await replace(tx, round.id, leaf.id, now) : [];
  await tx
    .insertInto('updates')
    .values({
      id,
      round_id: round.id,
      leaf_id: leaf.id,
      weighting,
      byte_length: examination.layout.byteLength,
      sha256: spooled.sha256,
      idempotency_key: idempotencyKey ?? null,
      received_at: now,
      removed_at: null,
      staleness,
      local_steps: localSteps ?? null,
      left_out: null,
    })
    .execute();
  const settled = await settleRound(tx, round, now);
  const body: UploadBody = {
    file_id: id,
    run_number: run.number,
    round: round.number,
    weighting,
    sha256: spooled.sha256,
    duplicate: false,
  };
  return {
    body,
    isClosed: settled.isClosed,
    round: round as Round | undefined,
    removed: [...removed, ...settled.removed],
  };
}

/** Takes the update of a leaf out of its round for another one; the digest is kept, so that it does not come back. */
async function replace(tx: Database, roundId: string, leafId: string, now: number): Promise<string[]> {
  const old = await tx
    .selectFrom('updates')
    .select(['id', 'round_id', 'leaf_id', 'sha256', 'idempotency_key', 'received_at'])
    .where('round_id', '=', roundId)
    .where('leaf_id', '=', leafId)
    .executeTakeFirstOrThrow();
  await tx
    .insertInto('replaced_updates')
    .values({ ...old, replaced_at: now })
    .execute();
  await tx.deleteFrom('updates').where('id', '=', old.id).execute();
  return [old.id];
}
