/** What each policy does to rounds, by the clock and by hand. */
import { existsSync, readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { averageOf } from '../../../src/server/domain/averages.ts';
import { changeBranch, deleteBranch } from '../../../src/server/domain/branches.ts';
import { closeNow, excludeLeaf, giveUpRound, retryRound } from '../../../src/server/domain/correcting.ts';
import { startWithModel } from '../../../src/server/domain/initial-model.ts';
import { revokeLeaf } from '../../../src/server/domain/leaves.ts';
import { presentNotices } from '../../../src/server/domain/notices.ts';
import { drawLeaves } from '../../../src/server/domain/policy.ts';
import { getResultFor, markFetched } from '../../../src/server/domain/results.ts';
import { changeRun, getRun, listRuns, resetModel } from '../../../src/server/domain/runs.ts';
import { createBranch, type NewBranch } from '../../../src/server/domain/trees.ts';
import type { BranchChange } from '../../../src/wire/cambium.ts';
import { failsWith } from '../../helpers/errors.ts';
import { Random, testSeed } from '../../helpers/random.ts';
import { padded, type ToyTensor, toyFile } from '../harness.ts';
import { Rig } from './rig.ts';

const MINUTE = 60_000;
const test = suite('policies');
let rig: Rig;
test.before.each(async () => {
  rig = await new Rig().start();
});
test.after.each(() => rig.end());

const values = (...numbers: number[]): ToyTensor[] => [{ values: numbers }];

/** A branch with leaves and a run. */
async function running(fields: Omit<NewBranch, 'name' | 'tree_id'>, count: number) {
  const id = await rig.branch(fields);
  const leaves = await rig.leaves(id, count);
  await changeRun(rig.domain, id, 'start');
  return { id, leaves };
}

const CONTRADICTIONS: readonly [Omit<NewBranch, 'name' | 'tree_id'>, string][] = [
  [{ aggregation_target: 2, minimum: 3 }, 'policy-minimum-target'],
  [{ aggregation_target: 2, minimum: 0 }, 'policy-minimum'],
  [{ aggregation_target: 2, deadline_ms: MINUTE }, 'policy-deadline-minimum'],
  [{ aggregation_target: 2, grace_ms: MINUTE }, 'policy-grace-minimum'],
  [{ aggregation_target: 2, minimum: 1, deadline_ms: 0 }, 'policy-deadline'],
  [{ aggregation_target: 2, minimum: 1, grace_ms: 2 ** 50 }, 'policy-grace'],
  [{ aggregation_target: 1, sample: { leaves: 0 } }, 'policy-sample'],
  [{ aggregation_target: 3, sample: { leaves: 2 } }, 'policy-sample-target'],
  [{ aggregation_target: 1, sample: { leaves: 1, seed: 'x'.repeat(201) } }, 'policy-sample'],
  [{ aggregation_target: 1, upstream: true, upstream_timeout_ms: 0 }, 'policy-upstream-timeout'],
  [{ aggregation_target: 1, keep_aggregations: 0 }, 'policy-keep'],
  [{ aggregation_target: 1, strategy: { name: 'best', parameters: {} } }, 'strategy-unknown'],
  [{ aggregation_target: 1, strategy: { name: 'fedadam', parameters: {} } }, 'strategy-parameter'],
  [
    { aggregation_target: 4, strategy: { name: 'trimmed-mean', parameters: { trim: 0.2 } } },
    'policy-strategy-inputs',
  ],
  [
    { aggregation_target: 9, minimum: 4, strategy: { name: 'krum', parameters: { byzantine: 1 } } },
    'policy-strategy-inputs',
  ],
];

test('policies that contradict themselves change nothing', async () => {
  for (const [fields, code] of CONTRADICTIONS) await failsWith(code, () => rig.branch(fields));
  const { id } = await running({ aggregation_target: 2 }, 2);
  for (const [fields, code] of CONTRADICTIONS) {
    await failsWith(code, () => changeBranch(rig.domain, id, fields as BranchChange));
  }
  await failsWith('policy-minimum-leaves', () =>
    changeBranch(rig.domain, id, { aggregation_target: 5, minimum: 3 }),
  );
  const [round] = await rig.rounds(id);
  assert.equal([round?.policy.minimum, round?.policy.aggregation_target], [null, 2]);
});

test('a minimum above the leaves of a branch is seen when its run starts', async () => {
  const id = await rig.branch({ aggregation_target: 3, minimum: 3 });
  await rig.leaves(id, 2);
  await failsWith('policy-minimum-leaves', () => changeRun(rig.domain, id, 'start'));
  assert.is((await getRun(rig.domain, id)).run_number, 0);
});

test('a policy holds from the next round on, at once for a round without updates', async () => {
  const { id, leaves } = await running({ aggregation_target: 2 }, 2);
  await changeBranch(rig.domain, id, { minimum: 1, deadline_ms: MINUTE });
  assert.is((await rig.round(id, 1)).closes_at, rig.clock.now() + MINUTE);
  await rig.upload(leaves[0]!, toyFile(1));
  await changeBranch(rig.domain, id, { aggregation_target: 1, deadline_ms: null });
  assert.is((await rig.round(id, 1)).status, 'open');
  await rig.upload(leaves[1]!, toyFile(1));
  assert.equal(
    [(await rig.round(id, 2)).policy.aggregation_target, (await rig.round(id, 2)).closes_at],
    [1, null],
  );
});

test('a deadline: with the minimum the round closes, below it fails, and an empty one waits on', async () => {
  const { id, leaves } = await running({ aggregation_target: 3, minimum: 2, deadline_ms: MINUTE }, 3);
  await rig.quiet();
  const empty = await rig.expired(id, 1, MINUTE);
  assert.equal([empty.status, empty.closes_at], ['open', rig.clock.now() + MINUTE]);
  await rig.upload(leaves[0]!, toyFile(1));
  await rig.quiet();
  const failed = await rig.expired(id, 1, MINUTE);
  assert.equal(
    [failed.status, failed.failure?.code, failed.failure?.details],
    ['failed', 'round-minimum', { contributions: 1, minimum: 2 }],
  );
  assert.equal(await rig.told(id), ['start 1', 'start 2']);
  assert.is((await getRun(rig.domain, id)).given_up_round, 1);
  await failsWith('round-minimum', () => retryRound(rig.domain, failed.id));
  await rig.upload(leaves[1]!, toyFile(3, values(2, 4)));
  await rig.upload(leaves[2]!, toyFile(1, values(6, 8)));
  await rig.quiet();
  const closed = await rig.expired(id, 2, MINUTE);
  assert.equal([closed.status, closed.total_weighting, closed.missing.length], ['done', 4, 1]);
  // The operator is content with less: the round that failed can be had after all.
  await changeBranch(rig.domain, id, { minimum: 1 });
  await retryRound(rig.domain, failed.id);
  assert.is((await rig.settled(id, 1)).status, 'done');
});

test('grace after the minimum ends a round before its deadline', async () => {
  const { id, leaves } = await running(
    { aggregation_target: 3, minimum: 1, grace_ms: 1000, deadline_ms: MINUTE },
    3,
  );
  const end = rig.clock.now() + MINUTE;
  assert.is((await rig.round(id, 1)).closes_at, end);
  rig.clock.pass(5000);
  await rig.upload(leaves[0]!, toyFile(1));
  assert.is((await rig.round(id, 1)).closes_at, rig.clock.now() + 1000);
  rig.clock.pass(500);
  await rig.upload(leaves[1]!, toyFile(1));
  assert.is((await rig.round(id, 1)).closes_at, rig.clock.now() + 500);
  await rig.quiet();
  const closed = await rig.expired(id, 1, 500);
  assert.equal([closed.status, closed.updates.length], ['done', 2]);
});

test('time stands still in a pause, and goes on after a restart', async () => {
  const { id, leaves } = await running({ aggregation_target: 2, minimum: 1, deadline_ms: MINUTE }, 2);
  await rig.upload(leaves[0]!, toyFile(1));
  rig.clock.pass(MINUTE / 2);
  await changeRun(rig.domain, id, 'pause');
  rig.clock.pass(10 * MINUTE);
  await rig.quiet();
  assert.is((await rig.round(id, 1)).status, 'open');
  await changeRun(rig.domain, id, 'start');
  assert.is((await rig.round(id, 1)).closes_at, rig.clock.now() + MINUTE / 2);
  await rig.kill();
  rig.clock.pass(MINUTE);
  await rig.start();
  await rig.quiet();
  assert.is((await rig.settled(id, 1)).status, 'done');
});

test('a round that opens in a pause has its whole time from the end of the pause', async () => {
  const { id, leaves } = await running(
    { aggregation_target: 3, minimum: 1, grace_ms: 1000, deadline_ms: MINUTE },
    3,
  );
  await rig.upload(leaves[0]!, toyFile(1));
  await changeRun(rig.domain, id, 'pause');
  rig.clock.pass(10 * MINUTE);
  await closeNow(rig.domain, (await rig.round(id, 1)).id);
  rig.clock.pass(5 * MINUTE);
  await changeRun(rig.domain, id, 'start');
  assert.is((await rig.round(id, 2)).closes_at, rig.clock.now() + MINUTE);
  await changeRun(rig.domain, id, 'pause');
  rig.clock.pass(10 * MINUTE);
  await changeBranch(rig.domain, id, { deadline_ms: 2 * MINUTE });
  rig.clock.pass(5 * MINUTE);
  await changeRun(rig.domain, id, 'start');
  assert.is((await rig.round(id, 2)).closes_at, rig.clock.now() + 2 * MINUTE);
});

test('a grace begins anew when those who had the minimum were excluded', async () => {
  const { id, leaves } = await running({ aggregation_target: 3, minimum: 1, grace_ms: 1000 }, 3);
  await rig.upload(leaves[0]!, toyFile(1));
  const { id: round } = await rig.round(id, 1);
  await excludeLeaf(rig.domain, round, leaves[0]!.id);
  assert.is((await rig.round(id, 1)).closes_at, null);
  await rig.upload(leaves[1]!, toyFile(2));
  assert.is((await rig.round(id, 1)).closes_at, rig.clock.now() + 1000);
  await rig.quiet();
  assert.equal((await rig.expired(id, 1, 1000)).status, 'done');
});

test('an update replaces another one until the round closes, and does not come back', async () => {
  const { id, leaves } = await running({ aggregation_target: 2, replace: true }, 2);
  const first = await rig.upload(leaves[0]!, toyFile(1, values(1)));
  const second = await rig.upload(leaves[0]!, toyFile(5, values(3)));
  assert.is.not(first.file_id, second.file_id);
  assert.is((await rig.upload(leaves[0]!, toyFile(5, values(3)))).duplicate, true);
  await failsWith('update-replaced', () => rig.upload(leaves[0]!, toyFile(1, values(1))));
  await rig.upload(leaves[1]!, toyFile(5, values(9)));
  const done = await rig.settled(id, 1);
  assert.equal([done.total_weighting, done.updates.map((update) => update.weighting)], [10, [5, 5]]);
});

test('an update that was replaced is known by its key when its round is over, too', async () => {
  const { id, leaves } = await running({ aggregation_target: 2, replace: true }, 2);
  await rig.upload(leaves[0]!, toyFile(1), { idempotencyKey: 'first' });
  await rig.upload(leaves[0]!, toyFile(5), { idempotencyKey: 'second' });
  await rig.upload(leaves[1]!, toyFile(5));
  await rig.settled(id, 1);
  await failsWith('update-replaced', () => rig.upload(leaves[0]!, toyFile(1), { idempotencyKey: 'first' }));
  assert.is((await rig.round(id, 2)).updates.length, 0);
});

test('late updates: counted in the open round, or refused with what to do', async () => {
  const { id, leaves } = await running({ aggregation_target: 2 }, 3);
  const [a, b, c] = leaves as [(typeof leaves)[0], (typeof leaves)[0], (typeof leaves)[0]];
  await rig.upload(a, toyFile(1));
  await rig.upload(b, toyFile(2));
  const first = (await rig.settled(id, 1)).aggregation_id!;
  assert.is((await rig.upload(c, toyFile(4))).round, 2);
  assert.is((await rig.round(id, 2)).updates[0]?.staleness, 1);
  await giveUpRound(rig.domain, (await rig.round(id, 2)).id);
  await changeBranch(rig.domain, id, { late: 'refuse' });
  const late = await failsWith('update-late', () => rig.upload(c, toyFile(5)));
  assert.equal((late as { details?: unknown }).details, { round: 3, staleness: 1 });
  await markFetched(rig.domain, first, c.id);
  assert.is((await rig.upload(c, toyFile(5))).round, 3);
});

test('a sample is drawn for each round, recorded, and the same for the same seed', async () => {
  const sample = { leaves: 4, seed: 'lot' };
  const { id, leaves } = await running({ aggregation_target: 4, sample }, 12);
  const drawn: (readonly string[])[] = [];
  for (let round = 1; round <= 5; round++) {
    const asked = (await getRun(rig.domain, id)).sample!;
    drawn.push(asked);
    assert.equal((await rig.round(id, round)).missing.map((leaf) => leaf.leaf_id).sort(), [...asked]);
    for (const leaf of leaves.filter((one) => !asked.includes(one.id))) {
      await failsWith('leaf-not-sampled', () => rig.upload(leaf, toyFile(99, values(round, round))));
    }
    for (const leaf of leaves.filter((one) => asked.includes(one.id))) {
      await rig.upload(leaf, toyFile(round, values(round)));
    }
    await rig.settled(id, round);
  }
  assert.ok(new Set(drawn.map(String)).size > 1);
  const { sample: asked } = await getRun(rig.domain, id);
  await rig.restart();
  assert.equal((await getRun(rig.domain, id)).sample, asked);
  const lots = (seed: string) => drawLeaves(['a', 'b', 'c', 'd', 'e', 'f'], 3, seed, 7);
  assert.equal(lots('x'), lots('x'));
  assert.is.not(String(lots('x')), String(lots('y')));
});

test('who joins while fewer leaves are drawn than are wanted is asked as well', async () => {
  const id = await rig.branch({ aggregation_target: 2, sample: { leaves: 2 } });
  await changeRun(rig.domain, id, 'start');
  assert.equal((await getRun(rig.domain, id)).sample, []);
  const leaves = await rig.leaves(id, 3);
  assert.equal((await getRun(rig.domain, id)).sample, [leaves[0]!.id, leaves[1]!.id].sort());
  await failsWith('leaf-not-sampled', () => rig.upload(leaves[2]!, toyFile(1)));
  await rig.upload(leaves[0]!, toyFile(1));
  await rig.upload(leaves[1]!, toyFile(1));
  assert.is((await rig.settled(id, 1)).status, 'done');
});

test('an initial model is aggregation 0: announced, found by late joiners, the contract of all', async () => {
  const id = await rig.branch({
    aggregation_target: 1,
    strategy: { name: 'fedavg', parameters: { learningRate: 0.5 } },
  });
  const [leaf] = await rig.leaves(id, 1);
  for (const [bytes, code] of [
    [toyFile(null, []), 'layout-empty'],
    [toyFile(null, [{ values: ['NaN'] }]), 'non-finite'],
    [Buffer.from('no weights'), 'format-unknown'],
  ] as const) {
    await failsWith(code, async () => startWithModel(rig.domain, id, await rig.spool(bytes)));
    assert.is((await getRun(rig.domain, id)).run_number, 0);
  }
  const run = await startWithModel(rig.domain, id, await rig.spool(toyFile(null, values(7, 7))));
  assert.equal([run.run_status, run.run_number, run.round], ['start', 1, 1]);
  assert.equal(await rig.told(id), ['start 1', 'aggregation 0']);
  assert.equal(
    (await presentNotices(rig.domain.db, id)).map(({ data }) => [data.message_type, data.round]),
    [
      ['run_status', 1],
      ['aggregation_status', 0],
    ],
  );
  const model = await getResultFor(rig.domain.db, run.aggregation_id!, leaf!);
  assert.equal([model.round, model.leaves, model.total_weighting], [0, 0, 1]);
  await failsWith('layout-shape', () => rig.upload(leaf!, toyFile(1, values(1, 2, 3))));
  await failsWith('run-open', async () => startWithModel(rig.domain, id, await rig.spool(toyFile(null))));
  const started = await failsWith('model-fixed', () => resetModel(rig.domain, id));
  assert.match(started.message, /^the run has started with this model: stop the run and start another one$/);
  await rig.upload(leaf!, toyFile(1));
  await rig.settled(id, 1);
  const { strategy, model: path } = rig.toys.requests.at(-1)!;
  assert.equal([strategy?.name, path], ['fedavg', rig.domain.blobs.path(run.aggregation_id!)]);
});

test('without a global model the first round is the mean, and says so; the state goes from round to round', async () => {
  const strategy = { name: 'fedadam', parameters: { learningRate: 0.1 } };
  const { id, leaves } = await running({ aggregation_target: 1, strategy }, 1);
  const upload = async (round: number) => {
    await rig.upload(leaves[0]!, toyFile(round));
    return rig.settled(id, round);
  };
  assert.equal((await upload(1)).strategy, { name: 'mean', parameters: {} });
  const states: string[] = [];
  for (let round = 2; round <= 5; round++) {
    if (round === 4) await rig.restart();
    const done = await upload(round);
    assert.equal(done.strategy, strategy);
    const row = await rig.domain.db
      .selectFrom('aggregations')
      .select('state_id')
      .where('state_id', 'is not', null)
      .execute();
    assert.is(row.length, 1);
    states.push(readFileSync(rig.domain.blobs.path(row[0]!.state_id!), 'utf8'));
  }
  assert.equal(states, ['1', '2', '3', '4']);
});

test('FedBuff: every two updates, the staler the less', async () => {
  const strategy = { name: 'buffered', parameters: { learningRate: 1, exponent: 0.5 } };
  const id = await rig.branch({ aggregation_target: 2, strategy });
  const leaves = await rig.leaves(id, 3);
  const { aggregation_id } = await startWithModel(rig.domain, id, await rig.spool(toyFile(null)));
  for (const leaf of leaves) await markFetched(rig.domain, aggregation_id!, leaf.id);
  for (const round of [1, 2, 3]) {
    for (const leaf of leaves.slice(0, round === 3 ? 1 : 2)) {
      await rig.upload(leaf, toyFile(round));
      const newest = (await getRun(rig.domain, id)).aggregation_id!;
      await markFetched(rig.domain, newest, leaf.id);
    }
    if (round < 3) await markFetchedBy(await rig.settled(id, round), leaves.slice(0, 2));
  }
  await rig.upload(leaves[2]!, toyFile(9));
  await rig.settled(id, 3);
  const { perLeaf } = rig.toys.requests.at(-1)!.strategy!;
  assert.equal([perLeaf?.get(leaves[0]!.id), perLeaf?.get(leaves[2]!.id)], [0, 2]);
});

async function markFetchedBy(
  { aggregation_id }: { aggregation_id: string | null },
  leaves: readonly { id: string }[],
) {
  for (const leaf of leaves) await markFetched(rig.domain, aggregation_id!, leaf.id);
}

test('FedNova asks for local steps', async () => {
  const { id, leaves } = await running(
    { aggregation_target: 1, strategy: { name: 'fednova', parameters: {} } },
    1,
  );
  await failsWith('local-steps-missing', () => rig.upload(leaves[0]!, toyFile(1)));
  for (const round of [1, 2]) {
    await rig.upload(leaves[0]!, toyFile(round), { localSteps: 40 });
    await rig.settled(id, round);
  }
  assert.is(rig.toys.requests.at(-1)!.strategy?.perLeaf?.get(leaves[0]!.id), 40);
});

test('NaN may be let through', async () => {
  const { id, leaves } = await running({ aggregation_target: 1, non_finite: 'propagate' }, 1);
  await rig.upload(leaves[0]!, toyFile(1, [{ values: ['NaN', 1] }]));
  await rig.settled(id, 1);
  assert.is(rig.toys.requests[0]?.nonFinite, 'propagate');
});

test('who is excluded or revoked is not waited for', async () => {
  const { id, leaves } = await running({ aggregation_target: 3 }, 3);
  await rig.upload(leaves[0]!, toyFile(1, values(1)));
  await rig.upload(leaves[1]!, toyFile(1, values(3)));
  await excludeLeaf(rig.domain, (await rig.round(id, 1)).id, leaves[2]!.id);
  assert.is((await rig.settled(id, 1)).total_weighting, 2);
  await rig.upload(leaves[0]!, toyFile(3, values(1)));
  await excludeLeaf(rig.domain, (await rig.round(id, 2)).id, leaves[0]!.id);
  await failsWith('leaf-excluded', () => rig.upload(leaves[0]!, toyFile(4, values(1))));
  await rig.upload(leaves[1]!, toyFile(5, values(1)));
  await revokeLeaf(rig.domain, leaves[2]!.id);
  const second = await rig.settled(id, 2);
  assert.equal([second.status, second.total_weighting, second.excluded], ['done', 5, [leaves[0]!.id]]);
});

test('history: runs are listed, old aggregations given up as the policy says', async () => {
  const { id, leaves } = await running({ aggregation_target: 1, keep_aggregations: 2 }, 1);
  for (const run of [1, 2]) {
    for (const round of [1, 2]) {
      await rig.upload(leaves[0]!, toyFile(10 * run + round));
      await rig.settled(id, round);
    }
    await changeRun(rig.domain, id, 'stop');
    await changeRun(rig.domain, id, 'start');
  }
  assert.equal(
    (await listRuns(rig.domain, id)).map(({ run_number, run_status, rounds }) => [
      run_number,
      run_status,
      rounds,
    ]),
    [
      [3, 'start', 0],
      [2, 'stop', 2],
      [1, 'stop', 2],
    ],
  );
  const done = (await rig.rounds(id)).filter(({ status }) => status === 'done');
  const now = rig.clock.now();
  assert.equal(
    done.map((round) => round.aggregation_removed_at),
    [null, null, now, now],
  );
  const kept: unknown[] = [];
  for (const { aggregation_id } of done) {
    kept.push(
      await getResultFor(rig.domain.db, aggregation_id!, leaves[0]!).then(
        () => true,
        ({ code }) => code,
      ),
    );
  }
  assert.equal(kept, [true, true, 'aggregation-removed', 'aggregation-removed']);
});

test('means of branches go with the aggregation of their round', async () => {
  const { id, leaves } = await running({ aggregation_target: 1, keep_aggregations: 1 }, 1);
  await rig.upload(leaves[0]!, toyFile(1));
  const average = await averageOf(rig.domain, (await rig.settled(id, 1)).id, id);
  const path = rig.domain.blobs.path(average.aggregation_id);
  assert.ok(existsSync(path));
  await rig.upload(leaves[0]!, toyFile(2));
  await rig.settled(id, 2);
  await rig.recorded();
  assert.not.ok(existsSync(path));
  await failsWith('aggregation-unknown', () =>
    getResultFor(rig.domain.db, average.aggregation_id, leaves[0]!),
  );
});

test('trees: one round of the root for all leaves below, its aggregation for all of them', async () => {
  const root = await rig.branch({ aggregation_target: 3 });
  const { tree_id } = await rig.domain.db
    .selectFrom('branches')
    .selectAll()
    .where('id', '=', root)
    .executeTakeFirstOrThrow();
  const left = await rig.branch({ tree_id, aggregation_target: 2, parent_id: root });
  const right = await rig.branch({ tree_id, aggregation_target: 3, minimum: 2, parent_id: root });
  const own = await rig.leaves(root, 1);
  const lefts = await rig.leaves(left, 2);
  const rights = await rig.leaves(right, 3);
  await failsWith('branch-below', () => changeRun(rig.domain, left, 'start'));
  await failsWith('policy-of-root', () => changeBranch(rig.domain, left, { replace: true }));
  await failsWith('parent-cycle', () => changeBranch(rig.domain, root, { parent_id: left }));
  await failsWith('policy-sample-tree', () => changeBranch(rig.domain, root, { sample: { leaves: 9 } }));
  await changeRun(rig.domain, root, 'start');
  await failsWith('run-open', () => deleteBranch(rig.domain, left));
  await failsWith('run-open', () => changeBranch(rig.domain, left, { parent_id: null }));
  for (const [i, leaf] of [...own, ...lefts, ...rights].entries()) {
    assert.is((await rig.round(root, 1)).status, 'open');
    await rig.upload(leaf, toyFile(i + 1, values(i)));
  }
  const done = await rig.settled(root, 1);
  assert.equal([done.status, done.updates.length, done.total_weighting], ['done', 6, 21]);
  for (const branch of [root, left, right]) {
    assert.equal(await rig.told(branch), ['start 1', 'aggregation 1']);
    assert.is((await getRun(rig.domain, branch)).aggregation_id, done.aggregation_id);
  }
  for (const leaf of [own[0]!, lefts[0]!, rights[0]!]) {
    assert.is((await getResultFor(rig.domain.db, done.aggregation_id!, leaf)).leaves, 6);
  }
  const average = await averageOf(rig.domain, done.id, left);
  assert.equal([average.branch_id, average.leaves, average.total_weighting], [left, 2, 5]);
  assert.is((await averageOf(rig.domain, done.id, left)).aggregation_id, average.aggregation_id);
  await failsWith('branch-other', () => getResultFor(rig.domain.db, average.aggregation_id, own[0]!));

  // Ended by hand: a branch without its minimum is left out, one with it counts.
  await changeBranch(rig.domain, root, { minimum: 2 });
  for (const [i, leaf] of [own[0]!, lefts[0]!, rights[0]!, rights[1]!].entries()) {
    await rig.upload(leaf, toyFile(i + 1, values(10 + i)));
  }
  await closeNow(rig.domain, (await rig.round(root, 2)).id);
  const second = await rig.settled(root, 2);
  assert.is(second.total_weighting, 8);
  assert.equal(
    second.updates
      .filter(({ left_out }) => left_out !== null)
      .map(({ leaf_id, left_out }) => [leaf_id, left_out]),
    [[lefts[0]!.id, 'branch-incomplete']],
  );
  await changeRun(rig.domain, root, 'stop');
  await failsWith('branch-parent', () => deleteBranch(rig.domain, root));
  await deleteBranch(rig.domain, left);
  await failsWith('branch-unknown', () => getRun(rig.domain, left));
  await failsWith('parent-tree', async () => {
    await createBranch(rig.domain, {
      name: 'x',
      tree_id: await rig.tree(),
      aggregation_target: 1,
      parent_id: root,
    });
  });
});

test('trees: a branch below that asks for less completes the round at once', async () => {
  const tree_id = await rig.tree();
  const root = await rig.branch({ tree_id, aggregation_target: 2 });
  const left = await rig.branch({ tree_id, aggregation_target: 1, parent_id: root });
  const right = await rig.branch({ tree_id, aggregation_target: 2, parent_id: root });
  const [first] = await rig.leaves(left, 1);
  const [second] = await rig.leaves(right, 2);
  await changeRun(rig.domain, root, 'start');
  await rig.upload(first!, toyFile(1));
  await rig.upload(second!, toyFile(2));
  assert.is((await rig.round(root, 1)).status, 'open');
  await changeBranch(rig.domain, right, { aggregation_target: 1 });
  assert.is((await rig.settled(root, 1)).total_weighting, 3);
});

test('a branch that is deleted gives back the disk, but for its aggregations', async () => {
  const strategy = { name: 'fedadam', parameters: { learningRate: 0.1 } };
  const { id, leaves } = await running(
    { aggregation_target: 2, minimum: 1, deadline_ms: MINUTE, strategy },
    2,
  );
  const finished: string[] = [];
  for (const round of [1, 2]) {
    for (const leaf of leaves) await rig.upload(leaf, padded(toyFile(round)));
    finished.push((await rig.settled(id, round)).aggregation_id!);
  }
  const { id: third } = await rig.round(id, 3);
  await rig.upload(leaves[0]!, padded(toyFile(3)));
  rig.toys.failure = new Error('no memory');
  await closeNow(rig.domain, third);
  assert.is((await rig.settled(id, 3)).status, 'failed');
  await changeRun(rig.domain, id, 'stop');
  await rig.recorded();
  await deleteBranch(rig.domain, id);
  const kept: string[] = [];
  for await (const blob of rig.domain.blobs.list()) kept.push(blob);
  assert.equal(kept.sort(), finished.sort());
});

test('a branch is not deleted while a round of it is being aggregated or waits for the server above', async () => {
  const { id, leaves } = await running({ aggregation_target: 1, upstream: true }, 1);
  let open = () => {};
  rig.toys.gate = new Promise((resolve) => {
    open = resolve;
  });
  await rig.upload(leaves[0]!, toyFile(1));
  await changeRun(rig.domain, id, 'stop');
  await failsWith('round-unfinished', () => deleteBranch(rig.domain, id));
  open();
  const summed = await rig.settled(id, 1);
  await failsWith('round-unfinished', () => deleteBranch(rig.domain, id));
  await giveUpRound(rig.domain, summed.id);
  await deleteBranch(rig.domain, id);
});

test('fifty leaves, some silent, some late: every round ends, with the right weightings', async () => {
  const random = new Random(testSeed());
  const { id, leaves } = await running(
    { aggregation_target: 50, minimum: 20, deadline_ms: 10 * MINUTE, grace_ms: 2 * MINUTE },
    50,
  );
  const silent = new Set(leaves.slice(0, 10).map(({ id }) => id));
  const late = new Set(leaves.slice(10, 20).map(({ id }) => id));
  let carried = new Map<string, number>();
  for (let round = 1; round <= 3; round++) {
    const expected = new Map(carried);
    const weightings = new Map(leaves.map((leaf) => [leaf.id, random.integer(1, 1000)]));
    for (const leaf of leaves) {
      if (silent.has(leaf.id) || late.has(leaf.id)) continue;
      const weighting = weightings.get(leaf.id)!;
      await rig.upload(leaf, toyFile(weighting, values(weighting + 1000 * round)));
      expected.set(leaf.id, weighting);
    }
    await rig.quiet();
    const ended = await rig.expired(id, round, 2 * MINUTE);
    assert.is(ended.status, 'done', `round ${round}`);
    assert.equal(new Map(ended.updates.map((update) => [update.leaf_id, update.weighting])), expected);
    assert.is(
      ended.total_weighting,
      [...expected.values()].reduce((sum, weighting) => sum + weighting, 0),
    );
    assert.is(ended.missing.length, 50 - expected.size);
    // Now the late ones come: they are in the next round.
    carried = new Map();
    for (const leaf of leaves.filter(({ id }) => late.has(id))) {
      const weighting = weightings.get(leaf.id)!;
      const { round: counted } = await rig.upload(leaf, toyFile(weighting, values(weighting + 5000 * round)));
      assert.is(counted, round + 1);
      carried.set(leaf.id, weighting);
    }
  }
});

test('an update has a norm: of its weights, then of its distance to the newest model', async () => {
  const { id, leaves } = await running({ aggregation_target: 1, keep_aggregations: 1 }, 1);
  const leaf = leaves[0]!;
  const norms: unknown[] = [];
  for (const [number, x] of [
    [1, values(3, 4)],
    [2, values(3, 4)],
    [3, values(6, 8)],
  ] as const) {
    await rig.upload(leaf, toyFile(number, x)); // a new weighting makes new bytes
    const { updates } = await rig.settled(id, number);
    norms.push([updates[0]!.norm, updates[0]!.norm_base]);
  }
  const first = await rig.round(id, 1);
  const second = await rig.round(id, 2);
  assert.equal(norms, [
    [5, null],
    [0, first.aggregation_id],
    [5, second.aggregation_id],
  ]);
  assert.equal(
    [first.updates[0]!.receive_ms, typeof first.updates[0]!.examine_ms, typeof first.write_seconds],
    [null, 'number', 'number'],
  );
});

test.run();
