/** Updates that are differences to the global model: where they are taken, what is refused, and what they are added to. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { InternalError } from '../../../src/errors.ts';
import { averageOf } from '../../../src/server/domain/averages.ts';
import { excludeLeaf, giveUpRound, retryRound } from '../../../src/server/domain/correcting.ts';
import { startWithModel } from '../../../src/server/domain/initial-model.ts';
import type { Leaf } from '../../../src/server/domain/leaves.ts';
import type { Refusal } from '../../../src/server/domain/refusal.ts';
import { markFetched } from '../../../src/server/domain/results.ts';
import { changeRun, getRun } from '../../../src/server/domain/runs.ts';
import type { NewBranch } from '../../../src/server/domain/trees.ts';
import { handDown } from '../../../src/server/domain/upstream.ts';
import { failsWith } from '../../helpers/errors.ts';
import { toyDifference, toyFile } from '../harness.ts';
import { codeOf, Rig } from './rig.ts';

const test = suite('differences');
let rig: Rig;
test.before.each(async () => {
  rig = await new Rig().start();
});
test.after.each(() => rig.end());

type Policy = Omit<NewBranch, 'name' | 'tree_id'>;

/** A run with three leaves; it has a global model, in aggregation 0, unless it is started without. */
async function running(policy: Partial<Policy> = {}, hasModel = true, model = toyFile(null)) {
  const id = await rig.branch({ aggregation_target: 2, ...policy });
  const leaves = (await rig.leaves(id, 3)) as [Leaf, Leaf, Leaf];
  if (hasModel) await startWithModel(rig.domain, id, await rig.spool(model));
  else await changeRun(rig.domain, id, 'start');
  return { id, leaves };
}

const other = [{ values: [3, 4] }];
const named = (...names: string[]) => names.map((name) => ({ name, values: [1, 2] }));

/** What comes before, what is sent, and the code that it is refused with. */
const cases: readonly {
  readonly name: string;
  readonly policy?: Partial<Policy>;
  readonly model?: Buffer | null;
  /** Of the first leaf. */
  readonly before?: Buffer;
  /** Of the second one, or of the first one again. */
  readonly sent: Buffer;
  readonly again?: boolean;
  readonly code?: string;
}[] = [
  { name: 'before there is a model', model: null, sent: toyDifference(1), code: 'difference-model-missing' },
  { name: 'a first one', sent: toyDifference(1) },
  { name: 'differences alone', before: toyDifference(1), sent: toyDifference(2) },
  { name: 'among models', before: toyFile(1), sent: toyDifference(1), code: 'difference-mixed' },
  { name: 'a model among them', before: toyDifference(1), sent: toyFile(1), code: 'difference-mixed' },
  {
    name: 'in the place of the only model',
    policy: { replace: true },
    before: toyFile(1),
    sent: toyDifference(1),
    again: true,
  },
  {
    name: 'a model in the place of the only one',
    policy: { replace: true },
    before: toyDifference(1),
    sent: toyFile(1),
    again: true,
  },
  { name: 'below a server', policy: { upstream: true }, sent: toyDifference(1), code: 'difference-sum' },
  {
    name: 'where sums are taken',
    policy: { partial_sums: true },
    sent: toyDifference(1),
    code: 'difference-sum',
  },
  { name: 'with other tensors', sent: toyDifference(1, [{ values: [1] }]), code: 'layout-shape' },
  {
    name: 'with another type',
    sent: toyDifference(1, [{ values: [1, 2], dtype: 'float64' }]),
    code: 'layout-dtype',
  },
  {
    name: 'in the order of the model',
    model: toyFile(null, named('w', 'b')),
    sent: toyDifference(1, named('w', 'b')),
  },
  {
    name: 'in another order',
    model: toyFile(null, named('w', 'b')),
    sent: toyDifference(1, named('b', 'w')),
    code: 'layout-order',
  },
];
for (const { name, policy, model, before, sent, again = false, code } of cases) {
  test(`a difference ${name}: ${code ?? 'taken'}`, async () => {
    const { id, leaves } = await running(policy, model !== null, model ?? undefined);
    if (before !== undefined) await rig.upload(leaves[0], before);
    const leaf = leaves[again ? 0 : 1];
    const { updates } = await rig.round(id, 1);
    if (code === undefined) {
      const { file_id } = await rig.upload(leaf, sent);
      const found = (await rig.round(id, 1)).updates.find((update) => update.file_id === file_id);
      assert.is(found?.difference, sent.includes('"difference":true'));
      return;
    }
    const refusal = (await failsWith(code, () => rig.upload(leaf, sent))) as Refusal;
    if (code.startsWith('difference-')) {
      assert.match(refusal.message, /^update of leaf-1: /);
      assert.is(refusal.details?.leaf_id, leaf.id);
    }
    assert.equal((await rig.round(id, 1)).updates, updates);
  });
}

test('in the place of one update of several a difference stays one', async () => {
  const { leaves } = await running({ replace: true, aggregation_target: 3 });
  await rig.upload(leaves[0], toyFile(1));
  await rig.upload(leaves[1], toyFile(1));
  await failsWith('difference-mixed', () => rig.upload(leaves[0], toyDifference(1)));
});

test('what is left out of a round does not say what it holds', async () => {
  const { id, leaves } = await running();
  await rig.upload(leaves[0], toyFile(1));
  await excludeLeaf(rig.domain, (await rig.round(id, 1)).id, leaves[0].id);
  await rig.upload(leaves[1], toyDifference(1));
});

for (const [name, parameters, late, code] of [
  ['mean', {}, 'next', 'difference-stale'],
  ['fedadam', { learningRate: 0.1 }, 'next', 'difference-stale'],
  ['buffered', {}, 'next', undefined],
  ['buffered', {}, 'refuse', 'update-late'],
] as const) {
  test(`a difference to an older model under ${name}, late: ${late}: ${code ?? 'taken'}`, async () => {
    const policy = { aggregation_target: 1, strategy: { name, parameters }, late } as const;
    const { id, leaves } = await running(policy);
    await rig.upload(leaves[0], toyDifference(1));
    const { aggregation_id } = await rig.settled(id, 1);
    // The first leaf has the newest model, the second one has not.
    await markFetched(rig.domain, aggregation_id!, leaves[0].id);
    assert.is(
      await codeOf(async () => (await rig.upload(leaves[1], toyDifference(2, other))).round),
      code ?? 2,
    );
    if (code === undefined) return;
    assert.is((await rig.upload(leaves[0], toyDifference(2, other))).round, 2);
  });
}

/** A round 1 that fails, with updates of the first two leaves, and a round 2 with the first leaf's. */
async function failedThen(sent: Buffer, next: Buffer, policy: Partial<Policy> = {}) {
  const { id, leaves } = await running(policy);
  rig.toys.failure = new InternalError('internal-worker', 'a worker thread ended with code 9');
  for (const leaf of leaves.slice(0, 2)) await rig.upload(leaf, sent);
  const failed = await rig.settled(id, 1);
  assert.is(failed.status, 'failed');
  await rig.upload(leaves[0], next);
  return { id, leaves, failed };
}

const FEDADAM = { strategy: { name: 'fedadam', parameters: { learningRate: 0.1 } } };
const FEDBUFF = { strategy: { name: 'buffered', parameters: {} } };

/** What the failed round holds, what is in the next one when it is retried, and whether that has been done by then. */
const retries: readonly (readonly [string, Buffer, Buffer, Partial<Policy>, boolean, boolean])[] = [
  ['models, then a model', toyFile(1), toyFile(2), {}, false, true],
  ['models, then done', toyFile(1), toyFile(2), {}, true, true],
  ['models, then a difference', toyFile(1), toyDifference(2), {}, false, false],
  ['models, then differences done', toyFile(1), toyDifference(2), {}, true, true],
  ['differences, then a model', toyDifference(1), toyFile(2), {}, false, true],
  ['differences, then done', toyDifference(1), toyFile(2), {}, true, false],
  ['differences, then a difference', toyDifference(1), toyDifference(2), {}, false, false],
  ['models of fedadam, then a model', toyFile(1), toyFile(2), FEDADAM, false, true],
  ['models of fedadam, then done', toyFile(1), toyFile(2), FEDADAM, true, false],
  ['differences of buffered, then one', toyDifference(1), toyDifference(2), FEDBUFF, false, true],
  ['differences of buffered, then done', toyDifference(1), toyDifference(2), FEDBUFF, true, false],
];
for (const [name, sent, next, policy, isDone, may] of retries) {
  test(`a retry of ${name}: ${may ? 'aggregated' : 'round-superseded'}`, async () => {
    const { id, leaves, failed } = await failedThen(sent, next, policy);
    if (isDone) {
      await rig.upload(leaves[1], next);
      await rig.settled(id, 2);
    }
    const told = (await rig.told(id)).length;
    if (!may) {
      const refusal = (await failsWith('round-superseded', () =>
        retryRound(rig.domain, failed.id),
      )) as Refusal;
      assert.equal(refusal.details, { round: 1, later: 2 });
      assert.equal(await rig.round(id, 1), failed);
      await giveUpRound(rig.domain, failed.id); // what is left to do
      return;
    }
    await retryRound(rig.domain, failed.id);
    assert.is((await rig.settled(id, 1)).status, 'done');
    // What comes after a newer model is for the record: leaves would take it for the newest.
    assert.equal((await rig.told(id)).slice(told), isDone ? [] : ['aggregation 1']);
    const newest = isDone ? 2 : 1;
    assert.is((await getRun(rig.domain, id)).aggregation_id, (await rig.round(id, newest)).aggregation_id);
  });
}

test('a difference that was given up supersedes nothing', async () => {
  const { id, failed } = await failedThen(toyDifference(1), toyDifference(2));
  await giveUpRound(rig.domain, (await rig.round(id, 2)).id);
  await retryRound(rig.domain, failed.id);
  assert.is((await rig.settled(id, 1)).status, 'done');
});

test('a round of differences has the newest model, one of models under the mean none', async () => {
  const { id, leaves } = await running({ aggregation_target: 1 });
  const path = (round: { aggregation_id: string | null }) => rig.domain.blobs.path(round.aggregation_id!);
  const initial = await rig.round(id, 0);
  await rig.upload(leaves[0], toyDifference(1));
  const first = await rig.settled(id, 1);
  assert.is(first.strategy?.name, 'mean');
  assert.is(first.updates[0]?.norm_base, initial.aggregation_id);
  // Its own length, whatever the model is.
  assert.is(first.updates[0]?.norm, Math.hypot(1, 2));
  await markFetched(rig.domain, first.aggregation_id!, leaves[0].id);
  await rig.upload(leaves[0], toyDifference(1, other));
  const second = await rig.settled(id, 2);
  // The mean of a branch begins where its round did.
  await averageOf(rig.domain, second.id, id);
  await rig.upload(leaves[0], toyFile(1));
  await rig.settled(id, 3);
  assert.equal(
    rig.toys.requests.map(({ model }) => model),
    [path(initial), path(first), path(first), undefined],
  );
});

test('a model is no difference: neither an initial one nor one that is handed down', async () => {
  const id = await rig.branch({ aggregation_target: 1, upstream: true });
  await failsWith('difference-model', async () =>
    startWithModel(rig.domain, id, await rig.spool(toyDifference(1))),
  );
  const [leaf] = (await rig.leaves(id, 1)) as [Leaf];
  await changeRun(rig.domain, id, 'start');
  await rig.upload(leaf, toyFile(1));
  const round = await rig.settled(id, 1);
  assert.is(round.status, 'summed');
  await failsWith('difference-model', async () =>
    handDown(rig.domain, round.id, await rig.spool(toyDifference(1))),
  );
});

test.run();
