/**
 * Exact partial sums that leaves of a branch send in the place of updates: most of these leaves are servers themselves, whose
 * rounds end with such a sum (domain/upstream.ts). A sum counts as one contribution, with the total of its leaves; what
 * a round makes of sums and updates is the mean of all leaves in them, to the bit.
 *
 * Whether a branch takes sums is for its policy to say (`partial_sums`), not for each leaf's credentials: who may send a sum
 * may speak for any number of leaves, and an operator must see at one place where that is so. The leaves of a sum are kept
 * as long as its round is, so that no leaf counts twice in a round, by whatever way it came.
 */
import type { SumLeaf } from '../../aggregate/partial-file.ts';
import type { AggregateInput, AggregateReport, JobOptions } from '../../node/jobs.ts';
import { printable } from '../../tensor/text.ts';
import type { Blobs } from '../store/blobs.ts';
import type { Database } from '../store/database.ts';
import type { Contract } from './contract.ts';
import type { Domain } from './domain.ts';
import { Refusal } from './refusal.ts';
import type { Member } from './standing.ts';

/** Rows that one statement writes or looks for; engines limit the parameters of a statement. */
const BATCH = 300;

/** Leaves that a refusal names. */
const SHOWN = 8;

/** What a member counts: the total of a sum is exact, in units of 2^-116. */
export function exactWeighting({ weighting, sum_total }: Member): number | bigint {
  return sum_total === null ? weighting : BigInt(sum_total);
}

/**
 * Checks that nobody counts twice in a round.
 *
 * @param sum the leaves of what the leaf has sent, where that is a sum
 * @throws Refusal `partial-leaf-duplicate`, naming them
 */
export async function checkLeavesOnce(
  tx: Database,
  roundId: string,
  leafId: string,
  sum: readonly SumLeaf[] | undefined,
): Promise<void> {
  const given = sum?.map(({ leaf }) => leaf) ?? [leafId];
  const twice: string[] = [];
  for (const leaves of batches(given)) {
    const others = tx
      .selectFrom('updates')
      .where('updates.round_id', '=', roundId)
      .where('updates.left_out', 'is', null)
      .where('updates.leaf_id', '!=', leafId);
    const direct = await others
      .select('updates.leaf_id as leaf')
      .where('updates.sum_leaves', 'is', null)
      .where('updates.leaf_id', 'in', leaves)
      .execute();
    const summed = await others
      .innerJoin('sum_leaves', 'sum_leaves.update_id', 'updates.id')
      .select('sum_leaves.leaf')
      .where('sum_leaves.leaf', 'in', leaves)
      .execute();
    twice.push(...direct.map(({ leaf }) => leaf), ...summed.map(({ leaf }) => leaf));
  }
  if (twice.length === 0) return;
  const names = twice.sort().slice(0, SHOWN);
  const more = twice.length > SHOWN ? ` and ${twice.length - SHOWN} more` : '';
  throw new Refusal(
    'conflict',
    'partial-leaf-duplicate',
    `${twice.length === 1 ? 'a leaf counts' : 'leaves count'} in the round already: ${names.map(printable).join(', ')}${more}`,
    { leaves: names, count: twice.length },
  );
}

/** Remembers who is in a sum. */
export async function recordSumLeaves(
  tx: Database,
  round_id: string,
  update_id: string,
  sum: readonly SumLeaf[],
): Promise<void> {
  for (const leaves of batches(sum)) {
    const rows = leaves.map(({ leaf }) => ({ update_id, round_id, leaf }));
    await tx.insertInto('sum_leaves').values(rows).execute();
  }
}

/** A member with its bytes, where it has no blob. */
export interface Contribution extends Pick<Member, 'id' | 'leaf_id' | 'weighting' | 'sum_total'> {
  readonly bytes: Uint8Array | ArrayBuffer | null;
}

/** What updates and sums are added up to. */
export interface Addition {
  readonly members: readonly Contribution[];
  readonly output: string;
  readonly to: 'sum' | 'mean';
  readonly nonFinite: 'reject' | 'propagate';
  /** The tensors of the result, in their order. */
  readonly tensors: Contract;
  /** Path of the global model that differences are added to. */
  readonly model?: string | undefined;
}

/** The exact mean, as `[weighting, [arrays]]`, or the exact sum of updates and sums. Throws as `Jobs.merge`. */
export function addUp(
  { jobs, blobs }: Pick<Domain, 'jobs' | 'blobs'>,
  { members, output, to, nonFinite, tensors, model }: Addition,
  options: JobOptions = {},
): Promise<Pick<AggregateReport, 'leaves' | 'totalWeighting' | 'sha256' | 'seconds' | 'bytesRead'>> {
  const inputs = members.map((member) => inputOf(blobs, member));
  const format = 'npy-object';
  const common = { inputs, output, nonFinite, tensors, digest: true };
  // For updates alone the way without sums is the faster one; its bits are the same.
  if (to === 'mean' && !hasSums(members)) return jobs.aggregate({ ...common, format, model }, options);
  return jobs.merge({ ...common, to, format: to === 'mean' ? format : undefined }, options);
}

/** A member as a job reads it. */
export function inputOf(blobs: Pick<Blobs, 'path'>, member: Contribution): AggregateInput {
  const { id, bytes, leaf_id: leaf, weighting, sum_total } = member;
  return {
    path: blobs.path(id),
    bytes: bytes === null ? undefined : new Uint8Array(bytes),
    leaf,
    // A sum has weightings of its own.
    weighting: sum_total === null ? weighting : undefined,
  };
}

/** Whether any member is a sum. */
export function hasSums(members: readonly Pick<Member, 'sum_total'>[]): boolean {
  return members.some(({ sum_total }) => sum_total !== null);
}

function* batches<T>(items: readonly T[]): Generator<readonly T[]> {
  for (let at = 0; at < items.length; at += BATCH) yield items.slice(at, at + BATCH);
}
