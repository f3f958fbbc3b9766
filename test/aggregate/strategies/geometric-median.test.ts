import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { geometricMedian } from '../../../src/aggregate/strategies/geometric-median.ts';
import { askNumpy, flat } from '../../helpers/distances-peer.ts';
import { failsWith } from '../../helpers/errors.ts';
import { hasPythonModule } from '../../helpers/peers.ts';
import { Random, testSeed } from '../../helpers/random.ts';
import { type Model, meanOf, settle } from '../../helpers/settle.ts';

const seed = testSeed();

/** k inputs around a common point, some far off. */
function round(random: Random, k: number, numbers: number): Model[] {
  const common = [new Float64Array(numbers), new Float64Array(3)].map((tensor) =>
    tensor.map(() => random.gauss()),
  );
  return Array.from({ length: k }, () => {
    const scale = random.uniform() < 0.3 ? 10 : 0.1;
    return common.map((tensor) => tensor.map((x) => x + scale * random.gauss()));
  });
}

const distance = (a: Float64Array, b: Float64Array) =>
  Math.sqrt(a.reduce((sum, x, i) => sum + (x - b[i]!) ** 2, 0));

function objective(models: readonly Model[], masses: readonly number[], z: Float64Array): number {
  return models.reduce((sum, model, i) => sum + masses[i]! * distance(flat(model), z), 0);
}

/** The largest difference, relative to the largest number. */
function difference(actual: Float64Array, expected: readonly number[]): number {
  const largest = expected.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  return actual.reduce((most, x, i) => Math.max(most, Math.abs(x - expected[i]!)), 0) / largest;
}

const ones = (k: number) => new Array<number>(k).fill(1);

async function result(
  options: Parameters<typeof geometricMedian>[0],
  models: readonly Model[],
  weightings: readonly number[],
): Promise<Float64Array> {
  const settled = await settle(geometricMedian(options), models, weightings);
  return flat(await meanOf(models, settled.weightings));
}

const test = suite('aggregate/strategies/geometric-median');

if (hasPythonModule('numpy')) {
  test('is where NumPy arrives, after few steps and after many', async () => {
    const random = new Random(seed);
    const cases = Array.from({ length: 36 }, (_, n) => {
      const k = (n % 18) + 3;
      return {
        models: round(random, k, random.pick([2, 40, 4_100])),
        weightings: Array.from({ length: k }, () => random.integer(1, 500) / random.pick([1, 8])),
        parameters: {
          smoothing: random.pick([1e-9, 1e-6, 0.5]),
          steps: n < 18 ? random.integer(1, 4) : 1_000,
        },
      };
    });
    const answers = askNumpy<{ result: number[]; objective: number }>(cases);
    for (const [n, { models, weightings, parameters }] of cases.entries()) {
      const { steps, smoothing } = parameters;
      const z = await result({ iterations: steps, smoothing, tolerance: 0 }, models, weightings);
      const { result: expected, objective: least } = answers[n]!;
      const what = `K = ${models.length}, ${steps} steps`;
      assert.ok(objective(models, weightings, z) <= least * (1 + 1e-12), `${what}: worse than NumPy's`);
      const off = difference(z, expected);
      assert.ok(off < (steps < 10 ? 1e-12 : 1e-6), `${what}: ${off} beside NumPy's`);
    }
  });
}

test('no place near is better', async () => {
  const random = new Random(seed + 1);
  for (let k = 3; k <= 20; k++) {
    const models = round(random, k, 5);
    const masses = models.map(() => random.integer(1, 9));
    const z = await result({ iterations: 2_000, smoothing: 1e-9, tolerance: 0 }, models, masses);
    const least = objective(models, masses, z);
    for (let n = 0; n < 50; n++) {
      const beside = z.map((x) => x + 10 ** random.integer(-6, 0) * random.gauss());
      assert.ok(objective(models, masses, beside) >= least * (1 - 1e-12), `K = ${k}`);
    }
  }
});

test('with more than half of the mass in one place the median is there', async () => {
  const models = [0, 0, 0, 7, -100].map((x) => [Float64Array.of(x, -x)]);
  const z = await result({ iterations: 500, tolerance: 0 }, models, ones(5));
  assert.ok(distance(z, Float64Array.of(0, 0)) < 1e-6, `${z}`);
  const heavy = await result({ iterations: 500, tolerance: 0 }, models, [1, 1, 1, 1, 9]);
  assert.ok(distance(heavy, Float64Array.of(-100, 100)) < 1e-6, `${heavy}`);
});

test('ends when there is nothing more to gain', async () => {
  const random = new Random(seed + 2);
  const models = round(random, 9, 30);
  const passes = async (options: Parameters<typeof geometricMedian>[0]) =>
    (await settle(geometricMedian(options), models, ones(9))).passes.length;
  assert.is(await passes({ iterations: 3, tolerance: 0 }), 3);
  assert.is(await passes({ iterations: 1 }), 1);
  const loose = await passes({ iterations: 1_000, tolerance: 1e-3 });
  const strict = await passes({ iterations: 1_000, tolerance: 1e-9 });
  assert.ok(1 < loose && loose < strict && strict < 200, `${loose} and ${strict} passes`);
  const identical = [models[0]!, models[0]!, models[0]!];
  const { passes: few } = await settle(geometricMedian(), identical, ones(3));
  assert.is(few.length, 2);
});

test('a lone input is not even looked at, two of the same mass keep it', async () => {
  const models = round(new Random(seed + 3), 2, 10);
  const one = await settle(geometricMedian(), models.slice(0, 1), [17]);
  assert.equal([one.weightings, one.passes.length], [[17], 0]);
  const { weightings } = await settle(geometricMedian(), models, [3, 3]);
  assert.ok(Math.abs(weightings[0]! / weightings[1]! - 1) < 1e-14, `${weightings}`);
});

test('inputs with NaN or infinity have no part, unless there is no other', async () => {
  const random = new Random(seed + 4);
  for (const value of [Number.NaN, Number.NEGATIVE_INFINITY]) {
    const models = round(random, 5, 20);
    const clean = models.filter((_, i) => i !== 0 && i !== 3);
    for (const i of [0, 3]) models[i]![0]![4] = value;
    const settled = await settle(geometricMedian(), models, [5, 4, 3, 2, 1]);
    const expected = await settle(geometricMedian(), clean, [4, 3, 1]);
    assert.equal(
      settled.weightings.filter((_, i) => i !== 0 && i !== 3),
      expected.weightings,
    );
    assert.equal([settled.weightings[0], settled.weightings[3]], [0, 0]);
    const spoilt = await settle(geometricMedian(), [models[0]!, models[3]!], [5, 2]);
    assert.equal(spoilt.weightings, [5, 2]);
  }
});

test('weightings stay within what the mean takes', async () => {
  const models = [0, 1e-90, 1, 1e90].map((x) => [Float64Array.of(x)]);
  for (const masses of [
    ones(4),
    [2 ** 50, 2 ** -64, 1, 2 ** 53 - 2 ** 51],
    [2 ** -64, 2 ** -64, 2 ** -64, 2 ** -64],
  ]) {
    for (const smoothing of [1e-100, 1e-6, 1e100]) {
      const { weightings } = await settle(geometricMedian({ smoothing, iterations: 40 }), models, masses);
      await meanOf(models, weightings); // refuses what does not fit
      assert.ok(weightings.some((weighting) => weighting > 0));
    }
  }
});

test('parameters', async () => {
  const bad = [
    { iterations: 0 },
    { iterations: 1.5 },
    { smoothing: 0 },
    { smoothing: -1 },
    { smoothing: Number.NaN },
    { smoothing: Number.POSITIVE_INFINITY },
    { tolerance: -1 },
    { tolerance: Number.NaN },
  ];
  for (const options of bad) await failsWith('strategy-parameter', () => geometricMedian(options));
  assert.is(geometricMedian({ iterations: undefined }).name, 'geometric-median');
});

test.run();
