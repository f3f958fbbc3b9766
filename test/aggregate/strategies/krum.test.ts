import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { krum, multiKrum } from '../../../src/aggregate/strategies/krum.ts';
import { sameBytes } from '../../helpers/bytes.ts';
import { askNumpy } from '../../helpers/distances-peer.ts';
import { failsWith } from '../../helpers/errors.ts';
import { hasPythonModule } from '../../helpers/peers.ts';
import { Random, testSeed } from '../../helpers/random.ts';
import { type Model, meanOf, settle } from '../../helpers/settle.ts';

const seed = testSeed();

/** k models of one round, the first `bad` of them far off; two tensors, one of more than a chunk. */
function round(random: Random, k: number, bad: number): Model[] {
  const common = [Float32Array.from({ length: 4_500 }, () => random.gauss()), new Float64Array(37)];
  return Array.from({ length: k }, (_, i) =>
    common.map((tensor) => tensor.map((x) => x + (i < bad ? 1 : 1e-2) * random.gauss())),
  );
}

const chosen = (weightings: readonly number[]) => weightings.flatMap((w, i) => (w === 0 ? [] : [i]));
const ones = (k: number) => new Array<number>(k).fill(1);

const test = suite('aggregate/strategies/krum');

if (hasPythonModule('numpy')) {
  test('selects what NumPy selects', async () => {
    const random = new Random(seed);
    const cases = Array.from({ length: 18 }, (_, n) => {
      const k = n + 3;
      const byzantine = random.integer(0, Math.floor((k - 3) / 2));
      const models = round(random, k, random.integer(0, byzantine));
      return { models: random.shuffle(models), weightings: ones(k), parameters: { byzantine } };
    });
    const answers = askNumpy<{ order: number[] }>(cases);
    for (const [n, { models, parameters }] of cases.entries()) {
      const { order } = answers[n]!;
      const what = `K = ${models.length}, f = ${parameters.byzantine}`;
      const weightings = models.map(() => random.integer(1, 5000));
      const one = await settle(krum(parameters), models, weightings);
      assert.equal(chosen(one.weightings), [order[0]], what);
      for (const select of [1, 2, models.length - parameters.byzantine - 2, models.length]) {
        const many = await settle(multiKrum({ ...parameters, select }), models, weightings);
        const expected = order.slice(0, select).sort((a, b) => a - b);
        assert.equal(chosen(many.weightings), expected, `${what}, m = ${select}`);
        assert.ok(many.weightings.every((weighting) => weighting === 0 || weighting === 1));
      }
    }
  });
}

test('the chosen input comes back bit for bit', async () => {
  const random = new Random(seed + 1);
  const models = round(random, 7, 2);
  models[3]![0]!.fill(-0, 0, 100);
  const { weightings } = await settle(krum({ byzantine: 2 }), models, ones(7));
  const [i] = chosen(weightings);
  const result = await meanOf(models, weightings);
  for (const [t, tensor] of models[i!]!.entries()) sameBytes(result[t]!, tensor);
});

test('ties go to the first', async () => {
  // At the corners of a cube of ±1 every input has the same distances.
  const corners = Array.from({ length: 8 }, (_, i) => [
    Float32Array.from([i & 1, (i >> 1) & 1, (i >> 2) & 1], (bit) => 2 * bit - 1),
  ]);
  const { weightings } = await settle(multiKrum({ byzantine: 1, select: 3 }), corners, ones(8));
  assert.equal(chosen(weightings), [0, 1, 2]);
});

test('what is not finite is far from everything', async () => {
  const random = new Random(seed + 2);
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    // More of them than f, the first included, and all alike.
    const models = round(random, 7, 0);
    for (const i of [0, 1, 2, 4, 6]) models[i]![0]![17] = value;
    const { weightings } = await settle(multiKrum({ byzantine: 2, select: 2 }), models, ones(7));
    assert.equal(chosen(weightings), [3, 5], `${value}`);
  }
});

test('squares that overflow tell nothing apart from infinity', async () => {
  const models = [-1e200, 1e200, 0, 1, 2].map((x) => [Float64Array.of(x)]);
  const { weightings } = await settle(multiKrum({ byzantine: 1, select: 3 }), models, ones(5));
  assert.equal(chosen(weightings), [2, 3, 4]);
});

test('how many inputs', async () => {
  assert.is(krum({ byzantine: 0 }).minimumInputs, 3);
  assert.is(krum({ byzantine: 4 }).minimumInputs, 11);
  assert.is(multiKrum({ byzantine: 1, select: 9 }).minimumInputs, 9);
  const settling = krum({ byzantine: 1 }).settle!({ leaves: [], weightings: ones(4_097), tensors: [] });
  await failsWith('strategy-too-many-inputs', () => settling.next());
});

test('parameters', async () => {
  for (const byzantine of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    await failsWith('strategy-parameter', () => krum({ byzantine }));
    await failsWith('strategy-parameter', () => multiKrum({ byzantine, select: 1 }));
  }
  for (const select of [0, -1, 1.5, Number.NaN]) {
    await failsWith('strategy-parameter', () => multiKrum({ byzantine: 1, select }));
  }
});

test.run();
