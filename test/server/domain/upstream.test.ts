/** Rounds that go up to another server: their sum, the wait, and the aggregation that is handed down. */
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { InternalError } from '../../../src/errors.ts';
import { averageOf } from '../../../src/server/domain/averages.ts';
import { changeBranch } from '../../../src/server/domain/branches.ts';
import { excludeLeaf, giveUpRound, retryRound } from '../../../src/server/domain/correcting.ts';
import type { Leaf } from '../../../src/server/domain/leaves.ts';
import { getResultFor, markFetched } from '../../../src/server/domain/results.ts';
import { changeRun, getRun } from '../../../src/server/domain/runs.ts';
import { createBranch, type NewBranch } from '../../../src/server/domain/trees.ts';
import { findSum, getSum, handDown } from '../../../src/server/domain/upstream.ts';
import type { RoundBody } from '../../../src/wire/cambium.ts';
import { failsWith } from '../../helpers/errors.ts';
import { type ToyTensor, toyFile, toySum } from '../harness.ts';
import { Rig } from './rig.ts';

const test = suite('upstream');
let rig: Rig;
test.before.each(async () => {
  rig = await new Rig().start();
});
test.after.each(() => rig.end());

const values = (...numbers: number[]): ToyTensor[] => [{ values: numbers }];

async function running(policy: Partial<NewBranch> = {}, count = 2) {
  const id = await rig.branch({ aggregation_target: 2, upstream: true, ...policy });
  const leaves = (await rig.leaves(id, count)) as [Leaf, Leaf, Leaf];
  await changeRun(rig.domain, id, 'start');
  return { id, leaves };
}

/** Lets a round come to its sum. */
async function summed({ id, leaves }: { id: string; leaves: readonly Leaf[] }, number = 1) {
  await rig.upload(leaves[0]!, toyFile(1, values(number, 2)));
  await rig.upload(leaves[1]!, toyFile(3, values(5, number)));
  return rig.settled(id, number);
}

async function hand(roundId: string, bytes: Uint8Array, leaves?: number) {
  const spooled = await rig.spool(bytes);
  try {
    return await handDown(rig.domain, roundId, spooled, leaves);
  } finally {
    await spooled.remove();
  }
}

const ABOVE = toyFile(20, values(7, 8));

test('a round ends with its exact sum, waits, and is done with what is handed down', async () => {
  const branch = await running();
  const round = await summed(branch);
  const { id, leaves } = branch;
  assert.equal([round.status, round.total_weighting, round.done_at], ['summed', null, null]);
  assert.equal(await rig.told(id), ['start 1']);
  assert.is((await getRun(rig.domain, id)).round, 2);
  const sum = await getSum(rig.domain.db, round.id);
  assert.equal(sum, round.sum);
  assert.equal([sum.leaves, sum.total_weighting], [2, 4]);
  const expected = [
    [leaves[0].id, 1],
    [leaves[1].id, 3],
  ].sort() as [string, number][];
  assert.is(
    readFileSync(rig.domain.blobs.path(sum.file_id), 'utf8'),
    String(toySum(expected, values(16, 5))),
  );
  assert.equal(await findSum(rig.domain.db, sum.file_id), sum);
  // The branch's own mean can be had at any time.
  const own = await averageOf(rig.domain, round.id, id);
  assert.equal([own.leaves, own.total_weighting], [2, 4]);

  const done = await hand(round.id, ABOVE, 10);
  assert.equal([done.status, done.total_weighting, done.aggregation_id], ['done', 20, round.aggregation_id]);
  assert.equal(await rig.told(id), ['start 1', 'aggregation 1']);
  const result = await getResultFor(rig.domain.db, done.aggregation_id!, leaves[0]);
  assert.equal([result.leaves, result.byte_length], [10, ABOVE.byteLength]);
  assert.is(readFileSync(rig.domain.blobs.path(done.aggregation_id!), 'utf8'), String(ABOVE));
});

test('handed down twice: the same is the same, another one is refused', async () => {
  const round = await summed(await running());
  await hand(round.id, ABOVE);
  const again = await hand(round.id, ABOVE);
  assert.equal([again.status, again.total_weighting], ['done', 20]);
  await failsWith('aggregation-exists', () => hand(round.id, toyFile(21, values(7, 8))));
  assert.is(readFileSync(rig.domain.blobs.path(round.aggregation_id!), 'utf8'), String(ABOVE));
  assert.equal(await rig.told(round.branch_id), ['start 1', 'aggregation 1']);
});

test('two that hand down at once: one of them counts, and the file is its', async () => {
  const round = await summed(await running());
  const both = await Promise.allSettled([hand(round.id, ABOVE), hand(round.id, toyFile(21, values(7, 8)))]);
  assert.equal(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  const { total_weighting } = (await rig.round(round.branch_id, 1))!;
  const stored = JSON.parse(readFileSync(rig.domain.blobs.path(round.aggregation_id!), 'utf8'));
  assert.is(stored.weighting, total_weighting);
});

test('rounds are handed down in their order', async () => {
  const branch = await running();
  const first = await summed(branch);
  const second = await summed(branch, 2);
  assert.equal([first.status, second.status], ['summed', 'summed']);
  await failsWith('round-order', () => hand(second.id, ABOVE));
  await hand(first.id, ABOVE);
  await hand(second.id, toyFile(20, values(1, 1)));
  assert.equal(await rig.told(branch.id), ['start 1', 'aggregation 1', 'aggregation 2']);
});

const WRONG: readonly [string, Buffer][] = [
  ['layout-shape', toyFile(1, values(1, 2, 3))],
  ['layout-count', toyFile(1, [...values(1, 2), ...values(3)])],
  ['layout-dtype', toyFile(1, [{ dtype: 'float64', values: [1, 2] }])],
  ['non-finite', toyFile(1, [{ values: ['NaN', 2] }])],
  ['weighting-missing', toyFile(null)],
  ['weights-partial-sum', toySum([['x', 1]])],
  ['format-unknown', Buffer.from('{')],
];

test('what cannot be the model of the run is refused, and the round waits on', async () => {
  const round = await summed(await running());
  for (const [code, bytes] of WRONG) await failsWith(code, () => hand(round.id, bytes));
  assert.is((await rig.round(round.branch_id, 1)).status, 'summed');
  assert.equal(await rig.told(round.branch_id), ['start 1']);
});

test('only a round that waits takes an aggregation', async () => {
  const { id, leaves } = await running();
  const open = await rig.round(id, 1);
  await failsWith('round-not-summed', () => hand(open.id, ABOVE));
  await failsWith('sum-unknown', () => getSum(rig.domain.db, open.id));
  await failsWith('round-unknown', () => hand(id, ABOVE));
  const round = await summed({ id, leaves });
  await giveUpRound(rig.domain, round.id);
  await failsWith('round-not-summed', () => hand(round.id, ABOVE));
  await failsWith('updates-removed', () => getSum(rig.domain.db, round.id));
  assert.is(await findSum(rig.domain.db, round.sum!.file_id), undefined);
  assert.is((await rig.round(id, 1)).sum, null);
  const plain = await rig.branch({ aggregation_target: 1 });
  const [leaf] = await rig.leaves(plain, 1);
  await changeRun(rig.domain, plain, 'start');
  await rig.upload(leaf!, toyFile(1));
  const { id: done } = await rig.settled(plain, 1);
  await failsWith('round-not-summed', () => hand(done, ABOVE));
});

test('a summed round is neither retried nor changed; a failed one comes to its sum by a retry', async () => {
  const branch = await running();
  rig.toys.failure = new InternalError('internal-worker', 'a worker thread ended with code 9');
  const failed = await summed(branch);
  assert.is(failed.status, 'failed');
  await retryRound(rig.domain, failed.id);
  const round = await rig.settled(branch.id, 1);
  assert.is(round.status, 'summed');
  await failsWith('round-not-failed', () => retryRound(rig.domain, round.id));
  await failsWith('round-finished', () => excludeLeaf(rig.domain, round.id, branch.leaves[0].id));
});

test('nothing comes from above in time: the round fails, and a retry lets it wait again, with the same sum', async () => {
  const branch = await running({ upstream_timeout_ms: 60_000 });
  const { id, leaves } = branch;
  const round = await summed(branch);
  assert.is(round.closes_at, rig.clock.now() + 60_000);
  // A pause below is no pause above, nor is a stop.
  await changeRun(rig.domain, id, 'pause');
  await rig.quiet();
  const failed = await rig.expired(id, 1, 60_000);
  assert.equal(
    [failed.status, failed.closes_at, failed.failure?.code, failed.failure?.details],
    ['failed', null, 'upstream-timeout', { closes_at: round.closes_at }],
  );
  assert.match(
    failed.failure!.message,
    /^no aggregation has come from the server above by 2026-01-01T00:01:00/,
  );
  assert.equal([failed.sum, failed.updates.length], [round.sum, 2]);
  await failsWith('round-not-summed', () => hand(round.id, ABOVE));
  // The sum can still be carried by hand.
  assert.equal(await getSum(rig.domain.db, round.id), round.sum);
  // As long as the branch says now.
  await changeBranch(rig.domain, id, { upstream_timeout_ms: 90_000 });
  await retryRound(rig.domain, round.id);
  const again = await rig.settled(id, 1);
  assert.equal([again.status, again.closes_at], ['summed', rig.clock.now() + 90_000]);
  assert.is(again.sum?.sha256, round.sum?.sha256);
  await rig.recorded();
  assert.throws(() => readFileSync(rig.domain.blobs.path(round.sum!.file_id)), /ENOENT/);
  const done = await hand(round.id, ABOVE);
  assert.equal([done.status, done.closes_at, done.failure], ['done', null, null]);
  await changeRun(rig.domain, id, 'start');
  for (const leaf of leaves) await markFetched(rig.domain, done.aggregation_id!, leaf.id);
  // The time of the next round is its own, and one whose run has stopped has it too.
  const second = await summed(branch, 2);
  await changeRun(rig.domain, id, 'stop');
  await rig.restart();
  await rig.quiet();
  assert.is((await rig.expired(id, 2, 90_000)).status, 'failed');
  await giveUpRound(rig.domain, second.id);
  await failsWith('updates-removed', () => getSum(rig.domain.db, second.id));
});

test('a leaf that is excluded from a round that failed is not in its sum any more', async () => {
  const branch = await running({ upstream_timeout_ms: 1000 });
  const round = await summed(branch);
  await rig.quiet();
  await rig.expired(branch.id, 1, 1000);
  await excludeLeaf(rig.domain, round.id, branch.leaves[0].id);
  await failsWith('sum-unknown', () => getSum(rig.domain.db, round.id));
  await retryRound(rig.domain, round.id);
  const { sum } = await rig.settled(branch.id, 1);
  assert.equal([sum?.leaves, sum?.total_weighting], [1, 3]);
});

test('a round waits for ever where the policy says so', async () => {
  const branch = await running({ upstream_timeout_ms: null });
  assert.is((await summed(branch)).closes_at, null);
});

test('once a later round is done, an earlier one that failed goes up no more', async () => {
  const branch = await running({ upstream_timeout_ms: 1000 });
  const first = await summed(branch);
  await rig.quiet();
  await rig.expired(branch.id, 1, 1000);
  const second = await summed(branch, 2);
  await hand(second.id, ABOVE);
  await failsWith('round-superseded', () => retryRound(rig.domain, first.id));
});

test('stop and start: a closed round is finished in any case', async () => {
  const branch = await running();
  const round = await summed(branch);
  await changeRun(rig.domain, branch.id, 'stop');
  assert.is((await hand(round.id, ABOVE)).status, 'done');
  assert.equal(await rig.told(branch.id), ['start 1', 'stop 0', 'aggregation 1']);
});

test('a kill in any state loses neither sum nor aggregation', async () => {
  const branch = await running();
  let release = () => {};
  rig.toys.gate = new Promise((resolve) => {
    release = resolve;
  });
  await rig.upload(branch.leaves[0], toyFile(1, values(1, 2)));
  await rig.upload(branch.leaves[1], toyFile(3, values(5, 1)));
  await rig.restart();
  release();
  const round = await rig.settled(branch.id, 1);
  assert.is(round.status, 'summed');
  await rig.restart();
  assert.equal((await rig.round(branch.id, 1)).sum, round.sum);
  assert.ok(readFileSync(rig.domain.blobs.path(round.sum!.file_id)).byteLength > 0);
  await hand(round.id, ABOVE);
  await rig.restart();
  assert.is((await hand(round.id, ABOVE)).status, 'done');
  assert.equal(await rig.told(branch.id), ['start 1', 'aggregation 1']);
});

test('sums go with the updates of their round', async () => {
  const branch = await running();
  const rounds: RoundBody[] = [];
  for (const number of [1, 2]) {
    const round = await summed(branch, number);
    rounds.push(round);
    await hand(round.id, toyFile(20, values(number, 8)));
  }
  const [first, second] = rounds as [RoundBody, RoundBody];
  assert.is((await rig.round(branch.id, 1)).sum, null);
  await failsWith('updates-removed', () => getSum(rig.domain.db, first.id));
  assert.ok(await getSum(rig.domain.db, second.id));
  await rig.restart(); // and what the next start removes
  assert.throws(() => readFileSync(rig.domain.blobs.path(first.sum!.file_id)), /ENOENT/);
  assert.ok(readFileSync(rig.domain.blobs.path(second.sum!.file_id)));
});

test('an update that comes before the aggregation is based on an older model', async () => {
  const branch = await running({ late: 'refuse', aggregation_target: 2 }, 3);
  const round = await summed(branch);
  await failsWith('update-late', () => rig.upload(branch.leaves[2], toyFile(9)));
  await hand(round.id, ABOVE);
  await markFetched(rig.domain, round.aggregation_id!, branch.leaves[2].id);
  assert.is((await rig.upload(branch.leaves[2], toyFile(9))).round, 2);
});

test('a deadline ends such a round with what is there', async () => {
  const { id, leaves } = await running({ minimum: 1, deadline_ms: 60_000 });
  await rig.upload(leaves[0], toyFile(1));
  await rig.quiet();
  assert.is((await rig.expired(id, 1, 60_000)).status, 'summed');
});

test('a root with branches below sends the sum of all leaves; a branch below has no server above of its own', async () => {
  const tree_id = await rig.tree();
  const root = await rig.branch({ tree_id, aggregation_target: 2, upstream: true });
  const below = await createBranch(rig.domain, {
    name: 'c',
    tree_id,
    aggregation_target: 1,
    parent_id: root,
  });
  const [a] = await rig.leaves(root, 1);
  const [b] = await rig.leaves(below.id, 1);
  await changeRun(rig.domain, root, 'start');
  await rig.upload(a!, toyFile(1));
  await rig.upload(b!, toyFile(2));
  const round = await rig.settled(root, 1);
  assert.equal([round.status, round.sum?.leaves, round.sum?.total_weighting], ['summed', 2, 3]);
  await hand(round.id, ABOVE);
  for (const id of [root, below.id]) assert.equal(await rig.told(id), ['start 1', 'aggregation 1']);
  await failsWith('policy-of-root', () => changeBranch(rig.domain, below.id, { upstream: true }));
});

test('in the middle of three levels sums come up and a sum goes on', async () => {
  const { id, leaves } = await running({ partial_sums: true });
  await rig.upload(
    leaves[0],
    toySum(
      [
        ['x', 1],
        ['y', 3],
      ],
      values(8, 20),
    ),
  );
  await rig.upload(leaves[1], toyFile(2, values(1, 1)));
  const { sum } = await rig.settled(id, 1);
  assert.equal([sum?.leaves, sum?.total_weighting], [3, 6]);
  const stored = JSON.parse(readFileSync(rig.domain.blobs.path(sum!.file_id), 'utf8'));
  assert.equal(stored.tensors, values(10, 22));
});

test.run();
