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
import { FormatError } from '../../errors.ts';
import type { Examination } from '../../node/jobs.ts';
import type { UploadBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import type { Spooled } from '../store/spool.ts';
import { type Contract, checkContract, checkTotal, checkUpdate, contractOf } from './contract.ts';
import type { Domain } from './domain.ts';
import { isRevoked, type Leaf, revoked } from './leaves.ts';
import { Refusal } from './refusal.ts';
import { closeRound, type Round, roundInProgress } from './rounds.ts';
import { currentRun, type Run } from './runs.ts';
import { lockBranch } from './trees.ts';

export interface UpdateOptions {
  /** The round that the leaf means; refused when another one is open. */
  readonly round?: number | undefined;
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
 * @throws Refusal `run-paused`, `run-stopped`
 */
export async function checkReceiving(db: Database, leaf: Leaf): Promise<void> {
  await receivingRun(db, leaf);
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
 * @throws Refusal those of `checkReceiving`, `round-closed`, `update-exists`
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
 * @throws Refusal those of `checkReceiving`, `round-closed`, `update-exists`, `idempotency-key-reused`, and everything
 *   that an update by itself can be refused for (domain/contract.ts; codes of FormatError)
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
  const { known } = await domain.db.transaction().execute(settle);
  if (known !== undefined) return { body: known, isClosed: false };

  const examination = await examine(domain, leaf, spooled);
  const weighting = checkUpdate(examination);
  const id = randomUUID();
  try {
    await domain.blobs.put(id, spooled.path);
    const accepted = await domain.db.transaction().execute(async (tx) => {
      // Another upload of the leaf may have been faster, or an operator.
      const { known, place } = await settle(tx);
      if (place === undefined || known !== undefined)
        return { body: known!, isClosed: false, round: undefined };
      return record(tx, domain.now(), place, leaf, spooled, options, { id, weighting, examination });
    });
    if (accepted.round === undefined) await domain.blobs.remove(id);
    else domain.signals.emit(`rounds:${leaf.branch_id}`, accepted.round);
    return { body: accepted.body, isClosed: accepted.isClosed };
  } catch (error) {
    await domain.blobs.remove(id);
    throw error;
  }
}

interface Place {
  readonly run: Run;
  readonly round: Round;
  readonly target: number;
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
  return { run, round, target: branch.aggregation_target };
}

/** Looks for an update that these bytes are already; settles what can be settled by the digest alone. */
async function findKnown(
  tx: Database,
  { run, round }: Place,
  leaf: Leaf,
  spooled: Pick<Spooled, 'sha256'>,
  meant: number | undefined,
): Promise<UploadBody | undefined> {
  const ofRun = updatesOf(tx, leaf)
    .where('rounds.run_id', '=', run.id)
    .where('rounds.status', '!=', 'discarded');
  const present = await ofRun.where('rounds.number', '=', meant ?? round.number).executeTakeFirst();
  if (present?.sha256 === spooled.sha256) return duplicateOf(present);
  if (meant !== undefined && meant !== round.number) {
    throw new Refusal('conflict', 'round-closed', `round ${meant} is not open, round ${round.number} is`, {
      round: round.number,
    });
  }
  if (present !== undefined) {
    throw new Refusal(
      'conflict',
      'update-exists',
      `the leaf has another update in round ${round.number} already`,
      { file_id: present.file_id, round: round.number },
    );
  }
  if (meant !== undefined) return undefined;
  // A retry whose receipt was lost may come after its round has closed. Once the leaf has fetched that round's
  // aggregation it has seen the answer, and equal bytes are a new contribution.
  const last = await ofRun.where('rounds.number', '=', round.number - 1).executeTakeFirst();
  if (last === undefined || last.sha256 !== spooled.sha256) return undefined;
  const fetched = await tx
    .selectFrom('fetches')
    .select('leaf_id')
    .where('leaf_id', '=', leaf.id)
    .where('aggregation_id', '=', last.aggregation_id ?? '')
    .executeTakeFirst();
  return fetched === undefined ? duplicateOf(last) : undefined;
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
  { run, round, target }: Place,
  leaf: Leaf,
  spooled: Spooled,
  { idempotencyKey }: UpdateOptions,
  update: { readonly id: string; readonly weighting: number; readonly examination: Examination },
) {
  const { id, weighting, examination } = update;
  if (run.contract !== null) {
    checkContract(JSON.parse(run.contract) as Contract, examination.layout); // written below
  } else {
    const contract = JSON.stringify(contractOf(examination.layout));
    await tx.updateTable('runs').set({ contract }).where('id', '=', run.id).execute();
  }
  const others = await tx
    .selectFrom('updates')
    .select('weighting')
    .where('round_id', '=', round.id)
    .execute();
  checkTotal([...others.map((other) => other.weighting), weighting]);
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
    })
    .execute();
  const isClosed = others.length + 1 >= target;
  if (isClosed) await closeRound(tx, round, now);
  const body: UploadBody = {
    file_id: id,
    run_number: run.number,
    round: round.number,
    weighting,
    sha256: spooled.sha256,
    duplicate: false,
  };
  return { body, isClosed, round: round.id as string | undefined };
}

async function examine(domain: Domain, leaf: Leaf, spooled: Spooled): Promise<Examination> {
  try {
    return await domain.jobs.examine(spooled.path, { checkFinite: true, name: `update of ${leaf.name}` });
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    const { code, message, tensor, offset } = error;
    const details = {
      ...(tensor === undefined ? {} : { tensor }),
      ...(offset === undefined ? {} : { offset }),
    };
    throw new Refusal('unprocessable', code, message, details, { cause: error });
  }
}
