/** Exact partial sums as updates: where they are taken, what is refused, and that nobody counts twice. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { averageOf } from '../../../src/server/domain/averages.ts';
import { changeBranch } from '../../../src/server/domain/branches.ts';
import { excludeLeaf } from '../../../src/server/domain/correcting.ts';
import type { Leaf } from '../../../src/server/domain/leaves.ts';
import { listOwnUpdates } from '../../../src/server/domain/own-updates.ts';
import { changeRun } from '../../../src/server/domain/runs.ts';
import type { NewBranch } from '../../../src/server/domain/trees.ts';
import type { BranchChange } from '../../../src/wire/cambium.ts';
import { failsWith } from '../../helpers/errors.ts';
import { toyFile, toySum } from '../harness.ts';
import { Rig } from './rig.ts';

const test = suite('sums');
let rig: Rig;
test.before.each(async () => {
  rig = await new Rig().start();
});
test.after.each(() => rig.end());

type Policy = Omit<NewBranch, 'name' | 'tree_id'>;

async function running(policy: Policy, count: number) {
  const id = await rig.branch(policy);
  const leaves = (await rig.leaves(id, count)) as [Leaf, Leaf, Leaf, Leaf];
  await changeRun(rig.domain, id, 'start');
  return { id, leaves };
}

const values = (...numbers: number[]) => [{ values: numbers }];

test('the mean of updates and sums is that of all leaves in them, and each sum counts once', async () => {
  const { id, leaves } = await running({ aggregation_target: 3, partial_sums: true }, 3);
  await rig.upload(leaves[0], toyFile(2, values(1, 10)));
  const sum = toySum(
    [
      ['x', 1],
      ['y', 3],
    ],
    values(8, 20),
  );
  await rig.upload(leaves[1], sum);
  assert.is((await rig.round(id, 1)).status, 'open');
  await rig.upload(leaves[2], toySum([['z', 4]], values(40, 4)));
  const round = await rig.settled(id, 1);
  assert.is(round.status, 'done');
  assert.is(round.total_weighting, 10);
  assert.equal(
    round.updates.map(({ sum_leaves, weighting }) => [sum_leaves, weighting]).sort(),
    [
      [1, 4],
      [2, 4],
      [null, 2],
    ].sort(),
  );
  const [merge] = rig.toys.merges;
  assert.equal([merge?.to, merge?.format, merge?.nonFinite], ['mean', 'npy-object', 'reject']);
  // A sum has weightings of its own.
  assert.equal(merge?.inputs.map(({ weighting }) => weighting).sort(), [2, undefined, undefined]);
  const average = await averageOf(rig.domain, round.id, id);
  assert.equal([average.leaves, average.total_weighting], [4, 10]);
});

test('a branch that takes no sums refuses them as before, and leaves nothing of them', async () => {
  const { id, leaves } = await running({ aggregation_target: 2 }, 2);
  await failsWith('weights-partial-sum', () => rig.upload(leaves[0], toySum([['x', 1]])));
  assert.is((await rig.round(id, 1)).updates.length, 0);
  // For an open round without updates the policy holds at once, for others from the next one on.
  await changeBranch(rig.domain, id, { partial_sums: true });
  await rig.upload(leaves[0], toySum([['x', 1]]));
  await changeBranch(rig.domain, id, { partial_sums: false });
  await rig.upload(leaves[1], toySum([['y', 1]]));
  await failsWith('weights-partial-sum', () => rig.upload(leaves[0], toySum([['x', 2]])));
});

test('rules that are no mean contradict sums, before anything changes', async () => {
  const strategies = [
    { name: 'median', parameters: {} },
    { name: 'fedadam', parameters: { learningRate: 0.1 } },
    { name: 'buffered', parameters: {} },
  ];
  for (const strategy of strategies) {
    for (const member of [{ partial_sums: true }, { upstream: true }]) {
      await failsWith('policy-strategy-sums', () =>
        rig.branch({ aggregation_target: 3, strategy, ...member }),
      );
    }
  }
  const { id } = await running({ aggregation_target: 2, partial_sums: true }, 2);
  const [strategy] = strategies;
  await failsWith('policy-strategy-sums', () => changeBranch(rig.domain, id, { strategy } as BranchChange));
  assert.is((await rig.round(id, 1)).policy.strategy.name, 'mean');
});

test('nobody counts twice in a round, by whatever way', async () => {
  const { id, leaves } = await running({ aggregation_target: 4, partial_sums: true, replace: true }, 4);
  const [a, b, c] = leaves;
  const twice = async (names: string[], leaf: Leaf, bytes: Buffer) => {
    const error = await failsWith('partial-leaf-duplicate', () => rig.upload(leaf, bytes));
    assert.equal((error as { details?: object }).details, { leaves: names.sort(), count: names.length });
    for (const name of names) assert.ok(error.message.includes(name));
  };
  await rig.upload(
    a,
    toySum([
      ['x', 1],
      ['y', 1],
    ]),
  );
  await twice(
    ['y'],
    b,
    toySum([
      ['y', 1],
      ['z', 1],
    ]),
  );
  await rig.upload(b, toyFile(1));
  await twice(
    [b.id],
    c,
    toySum([
      [b.id, 1],
      ['z', 1],
    ]),
  );
  // Not when it is the sender's own that goes away.
  await rig.upload(
    a,
    toySum([
      ['y', 1],
      ['z', 2],
    ]),
  );
  await twice(
    ['y', 'z'],
    c,
    toySum([
      ['y', 1],
      ['z', 2],
    ]),
  );
  await rig.upload(
    c,
    toySum([
      ['x', 1],
      [c.id, 1],
    ]),
  );
  await twice([c.id], leaves[3], toySum([[c.id, 5]]));
  // What has been left out does not stand in the way.
  await excludeLeaf(rig.domain, (await rig.round(id, 1)).id, c.id);
  await rig.upload(leaves[3], toySum([[c.id, 5]]));
  assert.is((await rig.settled(id, 1)).total_weighting, 3 + 1 + 5);
});

test('a leaf that stands in a sum cannot come itself', async () => {
  const { leaves } = await running({ aggregation_target: 3, partial_sums: true }, 3);
  await rig.upload(leaves[0], toySum([[leaves[1].id, 1]]));
  await failsWith('partial-leaf-duplicate', () => rig.upload(leaves[1], toyFile(7)));
});

const WRONG: readonly [string, string, Buffer][] = [
  ['another shape', 'layout-shape', toySum([['x', 1]], values(1, 2, 3))],
  ['another type', 'layout-dtype', toySum([['x', 1]], [{ dtype: 'float64', values: [1, 2] }])],
  ['more tensors', 'layout-count', toySum([['x', 1]], [...values(1, 2), ...values(1)])],
  ['NaN', 'non-finite', toySum([['x', 1]], [{ values: ['NaN', 1] }])],
  ['a total beyond what can be summed', 'weighting-total', toySum([['x', 2 ** 53 - 1]])],
  ['no tensors', 'layout-empty', toySum([['x', 1]], [])],
  [
    'leaves that count equally',
    'weighting-missing',
    Buffer.from(JSON.stringify({ weighting: null, tensors: values(1, 2), sum: [['x', null]] })),
  ],
];

test('a sum that is no update of this run is refused, and the round does not see it', async () => {
  const { id, leaves } = await running({ aggregation_target: 3, partial_sums: true }, 2);
  await rig.upload(leaves[0], toyFile(1));
  for (const [name, code, bytes] of WRONG) {
    await failsWith(code, () => rig.upload(leaves[1], bytes));
    assert.is((await rig.round(id, 1)).updates.length, 1, name);
  }
});

test('the same sum again is the same update, also when its round has closed; its leaf finds it', async () => {
  const { id, leaves } = await running({ aggregation_target: 1, partial_sums: true }, 2);
  const sum = toySum([['x', 2]]);
  const first = await rig.upload(leaves[0], sum, { round: 1 });
  const round = await rig.settled(id, 1);
  const again = await rig.upload(leaves[0], sum, { round: 1 });
  assert.equal([again.file_id, again.duplicate], [first.file_id, true]);
  const { sha256, file_id } = first;
  const [own, ...others] = await listOwnUpdates(rig.domain.db, leaves[0], sha256);
  assert.is(others.length, 0);
  assert.equal(
    [own?.file_id, own?.run_number, own?.round, own?.round_status, own?.aggregation_id, own?.left_out],
    [file_id, 1, 1, 'done', round.aggregation_id, null],
  );
  assert.equal(await listOwnUpdates(rig.domain.db, leaves[1]), []);
  assert.equal(await listOwnUpdates(rig.domain.db, leaves[0], '0'.repeat(64)), []);
});

test('a restart knows sums and who is in them', async () => {
  const { id, leaves } = await running({ aggregation_target: 2, partial_sums: true }, 2);
  await rig.upload(leaves[0], toySum([['x', 2]], values(4, 4)));
  await rig.restart();
  await failsWith('partial-leaf-duplicate', () => rig.upload(leaves[1], toySum([['x', 2]])));
  await rig.upload(leaves[1], toyFile(2, values(0, 4)));
  assert.equal((await rig.settled(id, 1)).total_weighting, 4);
});

test.run();
