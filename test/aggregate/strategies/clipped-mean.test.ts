import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { clippedMean } from '../../../src/aggregate/strategies/clipped-mean.ts';
import { askNumpy, flat } from '../../helpers/distances-peer.ts';
import { failsWith } from '../../helpers/errors.ts';
import { hasPythonModule } from '../../helpers/peers.ts';
import { Random, testSeed } from '../../helpers/random.ts';
import { type Model, meanOf, settle } from '../../helpers/settle.ts';

const seed = testSeed();

/** A global model and k inputs at distances from it that vary. */
function round(random: Random, k: number): { model: Model; models: Model[] } {
  const model = [new Float64Array(random.pick([3, 50, 4_100])), new Float64Array(5)].map((tensor) =>
    tensor.map(() => random.gauss()),
  );
  const models = Array.from({ length: k }, () => {
    const scale = random.uniform() * 2;
    return model.map((tensor) => tensor.map((x) => x + scale * random.gauss()));
  });
  return { model, models };
}

const norm = (model: Model) => Math.sqrt(flat(model).reduce((sum, x) => sum + x * x, 0));

const test = suite('aggregate/strategies/clipped-mean');

if (hasPythonModule('numpy')) {
  test('is the mean of clipped differences, as NumPy has it', async () => {
    const random = new Random(seed);
    const cases = Array.from({ length: 20 }, (_, n) => {
      const { model, models } = round(random, n + 1);
      const weightings = models.map(() => random.integer(1, 5000) / 4);
      return { model, models, weightings, parameters: { norm: random.pick([1e-3, 0.5, 2, 20, 1e4]) } };
    });
    const answers = askNumpy<{ result: number[] }>(cases);
    for (const [n, { model, models, weightings, parameters }] of cases.entries()) {
      const { weightings: clipped, rate = 1 } = await settle(
        clippedMean(parameters),
        models,
        weightings,
        model,
      );
      const mean = flat(await meanOf(models, clipped));
      const x = flat(model);
      const expected = answers[n]!.result;
      for (const [i, m] of mean.entries()) {
        const actual = x[i]! + rate * (m - x[i]!);
        const off = Math.abs(actual - expected[i]!);
        assert.ok(off <= 1e-13 * (1 + Math.abs(m)), `case ${n}[${i}]: ${actual}, NumPy has ${expected[i]}`);
      }
    }
  });
}

test('where nothing is clipped the weightings stay, and there is no rate', async () => {
  const { model, models } = round(new Random(seed + 1), 5);
  const settled = await settle(clippedMean({ norm: 1e6 }), models, [1, 2, 3, 4, 0.1], model);
  assert.equal([settled.weightings, settled.rate], [[1, 2, 3, 4, 0.1], undefined]);
  const same = await settle(clippedMean({ norm: 1e-100 }), [model, model], [1, 2], model);
  assert.equal([same.weightings, same.rate], [[1, 2], undefined]);
});

test('a lone input comes as far as the norm allows', async () => {
  const { model, models } = round(new Random(seed + 2), 1);
  const length = norm(models[0]!.map((tensor, t) => tensor.map((x, i) => x - model[t]![i]!)));
  const { rate } = await settle(clippedMean({ norm: length / 4 }), models, [9], model);
  assert.ok(Math.abs(rate! - 0.25) < 1e-14, `${rate}`);
});

test('integers count by value', async () => {
  const model = [Int32Array.of(0, 0), Float32Array.of(0)];
  const models = [[Int32Array.of(3, 4), Float32Array.of(12)], model]; // of norm 13
  const { weightings, rate } = await settle(clippedMean({ norm: 6.5 }), models, [1, 1], model);
  assert.is(weightings[0]! / weightings[1]!, 0.5);
  assert.is(rate, 0.75);
});

test('inputs with NaN or infinity are as good as absent, unless there is no other', async () => {
  const { model, models } = round(new Random(seed + 3), 4);
  const bound = { norm: 0.5 };
  const expected = await settle(clippedMean(bound), models.slice(2), [3, 4], model);
  models[0]![0]![2] = Number.NaN;
  models[1]![1]![4] = Number.POSITIVE_INFINITY;
  const settled = await settle(clippedMean(bound), models, [1, 2, 3, 4], model);
  assert.equal(settled.weightings, [0, 0, ...expected.weightings]);
  assert.is(settled.rate, expected.rate);
  const spoilt = await settle(clippedMean(bound), models.slice(0, 2), [1, 2], model);
  assert.equal([spoilt.weightings, spoilt.rate], [[1, 2], undefined]);
});

test('parameters', async () => {
  for (const bad of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
    await failsWith('strategy-parameter', () => clippedMean({ norm: bad }));
  }
  assert.equal(
    [clippedMean({ norm: 1 }).needsModel, clippedMean({ norm: 1 }).step],
    [true, { kind: 'rate' }],
  );
});

test.run();
