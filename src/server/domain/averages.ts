/** The mean of one branch of a round, for those who want to see how a branch differs; the round itself does not need it. */
import { randomUUID } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { AggregationError } from '../../errors.ts';
import type { Domain } from './domain.ts';
import { Refusal, unknown } from './refusal.ts';
import { getResult, type Result } from './results.ts';
import { contractOfRound } from './rounds.ts';
import { holdsDifferences, modelBefore } from './rules.ts';
import { heldBytes, membersOf } from './standing.ts';
import { addUp } from './sums.ts';
import { branchesBelow } from './trees.ts';

/**
 * The exact weighted mean of the updates of a branch and all below it in a round that has closed, made once; of differences,
 * the global model with their mean added.
 *
 * @throws Refusal `round-unknown`, `branch-unknown`, `branch-other`, `round-open`, `round-empty`, `updates-removed`,
 *   `strategy-model-missing` where the model that differences belong to is not kept any more
 */
export async function averageOf(domain: Domain, roundId: string, branchId: string): Promise<Result> {
  const { db, blobs } = domain;
  const round = await db.selectFrom('rounds').selectAll().where('id', '=', roundId).executeTakeFirst();
  if (round === undefined) throw unknown('round', roundId);
  const below = new Set((await branchesBelow(db, branchId)).map((branch) => branch.id));
  if (!(await branchesBelow(db, round.branch_id)).some((branch) => branch.id === branchId)) {
    throw new Refusal('forbidden', 'branch-other', 'the round is not one of this branch');
  }
  const known = await findAverage(domain, roundId, branchId);
  if (known !== undefined) return getResult(db, known);
  if (round.status === 'open') {
    throw new Refusal('conflict', 'round-open', 'the round is open: its members may still change');
  }
  const held = await heldBytes(db, roundId);
  const members = (await membersOf(db, roundId))
    .filter((member) => below.has(member.branch_id))
    .map((member) => ({ ...member, bytes: held.get(member.id) ?? null }));
  if (members.length === 0)
    throw new Refusal('conflict', 'round-empty', 'the branch has no update in the round');
  const gone = await db
    .selectFrom('updates')
    .select('id')
    .where('round_id', '=', roundId)
    .where('left_out', 'is', null)
    .where('removed_at', 'is not', null)
    .limit(1)
    .executeTakeFirst();
  if (gone !== undefined) {
    throw new Refusal('conflict', 'updates-removed', 'the updates of the round are not kept any more');
  }
  const id = randomUUID();
  const output = blobs.workPath(id);
  const base = (await holdsDifferences(db, roundId)) ? await modelBefore(db, round) : undefined;
  const model = base && blobs.path(base);
  const tensors = await contractOfRound(db, round);
  const addition = { members, output, to: 'mean', nonFinite: 'propagate', tensors, model } as const;
  const report = await addUp(domain, addition).catch((error: unknown) => {
    if (!(error instanceof AggregationError)) throw error;
    throw new Refusal('unprocessable', error.code, error.message, undefined, { cause: error });
  });
  const { size } = await stat(output);
  await blobs.put(id, output);
  await db
    .insertInto('averages')
    .values({
      id,
      round_id: roundId,
      branch_id: branchId,
      leaves: report.leaves,
      total_weighting: report.totalWeighting,
      byte_length: size,
      sha256: report.sha256!, // asked for
      created_at: domain.now(),
    })
    .onConflict((conflict) => conflict.columns(['round_id', 'branch_id']).doNothing())
    .execute();
  const first = (await findAverage(domain, roundId, branchId))!; // ours, or that of somebody faster
  if (first !== id) await blobs.remove(id);
  return getResult(db, first);
}

async function findAverage({ db }: Domain, roundId: string, branchId: string): Promise<string | undefined> {
  const row = await db
    .selectFrom('averages')
    .select('id')
    .where('round_id', '=', roundId)
    .where('branch_id', '=', branchId)
    .executeTakeFirst();
  return row?.id;
}
