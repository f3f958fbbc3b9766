/**
 * Updates that are there already when somebody uploads: by the sender's key, or by the digest of their bytes. The same
 * bytes from the same leaf in the same round are the same update, and its sender gets the same receipt again.
 */
import type { UploadBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import { prepared } from '../store/prepared.ts';
import type { Arrived } from '../store/spool.ts';
import type { Leaf } from './leaves.ts';
import { checkAsked, type Place, receivingRun } from './receiving.ts';
import { Refusal } from './refusal.ts';

/** What a leaf has in its run already. */
export interface Known {
  /** The receipt, where the bytes are an update already. */
  readonly receipt: UploadBody | undefined;
  /** Id of the leaf's other update of the open round, which the new one would replace. */
  readonly present: string | undefined;
}

/**
 * Whether uploads of the leaf's branch are welcome now; asked before the body is read, and again when it has arrived.
 *
 * @throws Refusal `run-paused`, `run-stopped`, `leaf-excluded`, `leaf-not-sampled`
 */
export async function checkReceiving(db: Database, leaf: Leaf): Promise<void> {
  const place = await receivingRun(db, leaf);
  // It may be a retry of what the round before has: only its digest will tell.
  const last = place.round.number - 1;
  if ((await updatesOfRounds(db, place, leaf, last, last)).length === 0) await checkAsked(db, place, leaf);
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
  const [row] = await updateByKey(db, { leafId: leaf.id, idempotencyKey });
  return row && duplicateOf(row);
}

const updateByKey = prepared((db, key: { readonly leafId: string; readonly idempotencyKey: string }) =>
  updatesOf(db, key.leafId).where('updates.idempotency_key', '=', key.idempotencyKey),
);

/** Refuses the retry of an update that its leaf has replaced, whatever round is open by now. Throws Refusal `update-replaced`. */
export async function checkNotReplaced(
  tx: Database,
  leaf: Leaf,
  idempotencyKey: string | undefined,
): Promise<void> {
  if (idempotencyKey === undefined) return;
  const [row] = await replacedByKey(tx, { leafId: leaf.id, idempotencyKey });
  if (row !== undefined) throw replaced({ round: row.number });
}

const replacedByKey = prepared((db, key: { readonly leafId: string; readonly idempotencyKey: string }) =>
  db
    .selectFrom('replaced_updates')
    .innerJoin('rounds', 'rounds.id', 'replaced_updates.round_id')
    .select('rounds.number')
    .where('leaf_id', '=', key.leafId)
    .where('idempotency_key', '=', key.idempotencyKey),
);

function replaced(details: { readonly round: number; readonly file_id?: string }): Refusal {
  return new Refusal(
    'conflict',
    'update-replaced',
    'the leaf has replaced this update by a later one',
    details,
  );
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
    return (await findKnown(tx, await receivingRun(tx, leaf), leaf, sha256, round)).receipt;
  });
}

/**
 * Looks for an update that these bytes are already; settles what can be settled by the digest alone.
 *
 * @param meant the round that the sender means
 * @throws Refusal `round-closed`, `leaf-excluded`, `leaf-not-sampled`, `update-exists`, `update-replaced`
 */
export async function findKnown(
  tx: Database,
  place: Place,
  leaf: Leaf,
  sha256: string,
  meant: number | undefined,
): Promise<Known> {
  const { round, policy } = place;
  const last = round.number - 1;
  const updates = await updatesOfRounds(tx, place, leaf, meant ?? round.number, last);
  const present = updates.find((update) => update.round === (meant ?? round.number));
  if (present?.sha256 === sha256 && present.left_out !== 'excluded') {
    return { receipt: duplicateOf(present), present: undefined };
  }
  if (meant !== undefined && meant !== round.number) {
    throw new Refusal('conflict', 'round-closed', `round ${meant} is not open, round ${round.number} is`, {
      round: round.number,
    });
  }
  if (present === undefined && meant === undefined) {
    const retried = updates.find((update) => update.round === last && update.sha256 === sha256);
    if (retried !== undefined && !(await hasFetched(tx, leaf, retried.aggregation_id))) {
      return { receipt: duplicateOf(retried), present: undefined };
    }
  }
  await checkAsked(tx, place, leaf);
  if (present === undefined) return { receipt: undefined, present: undefined };
  if (!policy.replace) {
    throw new Refusal(
      'conflict',
      'update-exists',
      `the leaf has another update in round ${round.number} already`,
      { file_id: present.file_id, round: round.number },
    );
  }
  const earlier = await tx
    .selectFrom('replaced_updates')
    .select('id')
    .where('round_id', '=', round.id)
    .where('leaf_id', '=', leaf.id)
    .where('sha256', '=', sha256)
    .executeTakeFirst();
  if (earlier !== undefined) throw replaced({ round: round.number, file_id: present.file_id });
  return { receipt: undefined, present: present.file_id };
}

/**
 * A retry whose receipt was lost may come after its round has closed. Once the leaf has fetched that round's aggregation
 * it has seen the answer, and equal bytes are a new contribution.
 */
async function hasFetched(tx: Database, leaf: Leaf, aggregationId: string | null): Promise<boolean> {
  const fetched = await tx
    .selectFrom('fetches')
    .select('leaf_id')
    .where('leaf_id', '=', leaf.id)
    .where('aggregation_id', '=', aggregationId ?? '')
    .executeTakeFirst();
  return fetched !== undefined;
}

/** The leaf's updates of two rounds of the run. */
function updatesOfRounds(tx: Database, { run }: Place, leaf: Leaf, one: number, other: number) {
  return updatesOfTwo(tx, { leafId: leaf.id, runId: run.id, one, other });
}

interface TwoRounds {
  readonly leafId: string;
  readonly runId: string;
  readonly one: number;
  readonly other: number;
}

const updatesOfTwo = prepared((db, { leafId, runId, one, other }: TwoRounds) =>
  updatesOf(db, leafId)
    .where('rounds.run_id', '=', runId)
    .where('rounds.status', '!=', 'discarded')
    .where('rounds.number', 'in', [one, other]),
);

function updatesOf(db: Database, leafId: string) {
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
    .where('updates.leaf_id', '=', leafId);
}

function duplicateOf(row: Omit<UploadBody, 'duplicate'>): UploadBody {
  const { file_id, run_number, round, weighting, sha256 } = row;
  return { file_id, run_number, round, weighting, sha256, duplicate: true };
}

/** The receipt of a key, if the bytes are those that it stands for. Throws Refusal `idempotency-key-reused`. */
export function sameBytesAs(known: UploadBody, { sha256 }: Pick<Arrived, 'sha256'>): UploadBody {
  if (known.sha256 === sha256) return known;
  throw new Refusal(
    'conflict',
    'idempotency-key-reused',
    'the idempotency key belongs to an upload with other bytes',
    { file_id: known.file_id },
  );
}
