// The rules that look at whole models, by way of the engine: the same bits for any cut into blocks and any order.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { average } from '../../src/aggregate/average.ts';
import { openStrategy, type Strategy } from '../../src/aggregate/strategies/index.ts';
import type { ModelUpdate } from '../../src/tensor/tensor.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { Random, testSeed } from '../helpers/random.ts';
import { type Model, meanOf, settle } from '../helpers/settle.ts';

const seed = testSeed();

/** Three tensors: of several chunks, of a few elements, of integers. */
function randomModel(random: Random): Model {
  return [
    Float32Array.from({ length: 9_001 }, () => random.gauss()),
    Float64Array.from({ length: 5 }, () => random.gauss()),
    Int32Array.from({ length: 4_100 }, () => random.integer(-3, 3)),
  ];
}

const DTYPES = ['float32', 'float64', 'int32'] as const;

const updateOf = (model: Model, weighting: number | null): ModelUpdate => ({
  weighting,
  tensors: model.map((tensor, t) => ({
    name: `tensor ${t}`,
    dtype: DTYPES[t]!,
    shape: [tensor.length],
    data: new Uint8Array(tensor.buffer),
  })),
});

const RULES: readonly Strategy[] = [
  openStrategy('krum', { byzantine: 2 }),
  openStrategy('multi-krum', { byzantine: 2, select: 3 }),
  openStrategy('geometric-median', { iterations: 4, tolerance: 0 }),
];

const test = suite('aggregate/distances');

test('any blocks, any order of arrival: the same bits', async () => {
  const random = new Random(seed);
  const models = Array.from({ length: 8 }, () => randomModel(random));
  const weightings = models.map(() => random.integer(1, 500));
  const leaves = models.map((_, i) => `leaf-${i}`);
  for (const strategy of RULES) {
    const settled = await settle(strategy, models, weightings);
    const expected = await meanOf(models, settled.weightings);
    for (const blockBytes of [undefined, 4_096, 50_000]) {
      const order = random.shuffle(models.map((_, i) => i));
      const { tensors } = await average(
        order.map((i) => updateOf(models[i]!, weightings[i]!)),
        { leaves: order.map((i) => leaves[i]!), strategy, blockBytes },
      );
      for (const [t, { data }] of tensors.entries()) {
        sameBytes(data, expected[t]!, `${strategy.name}, tensor ${t}, blocks of ${blockBytes}`);
      }
    }
  }
});

test('an update of weighting 0 counts for nothing', async () => {
  const random = new Random(seed + 1);
  const models = Array.from({ length: 8 }, () => randomModel(random));
  for (const strategy of RULES) {
    const all = await average(
      models.map((model, i) => updateOf(model, i === 2 ? 0 : 1)),
      { strategy },
    );
    const without = await average(
      models.filter((_, i) => i !== 2).map((model) => updateOf(model, 1)),
      { strategy },
    );
    for (const [t, { data }] of all.tensors.entries()) sameBytes(data, without.tensors[t]!.data);
  }
});

test('too few updates', async () => {
  const model = randomModel(new Random(seed + 2));
  for (const [name, least] of [
    ['krum', 7],
    ['multi-krum', 9],
  ] as const) {
    const parameters = name === 'krum' ? { byzantine: 2 } : { byzantine: 2, select: 9 };
    const strategy = openStrategy(name, parameters);
    const updates = Array.from({ length: least }, () => updateOf(model, 1));
    await average(updates, { strategy });
    await failsWith('strategy-too-few-inputs', () => average(updates.slice(1), { strategy }));
  }
});

test('NaN is refused by name, or keeps its input away', async () => {
  const random = new Random(seed + 3);
  const models = Array.from({ length: 8 }, () => randomModel(random));
  models[5]![0]![4_321] = Number.NaN;
  const updates = models.map((model) => updateOf(model, 1));
  for (const strategy of RULES) {
    const error = await failsWith('non-finite', () => average(updates, { strategy }));
    assert.match(error.message, 'tensor 0');
    assert.match(error.message, '[4321] of update 5');
    const { tensors } = await average(updates, { strategy, nonFinite: 'propagate' });
    const numbers = new Float32Array(tensors[0]!.data.buffer);
    assert.ok(numbers.every(Number.isFinite), strategy.name);
  }
});

test('a lone update comes back bit for bit from the geometric median', async () => {
  const model = randomModel(new Random(seed + 4));
  const { tensors } = await average([updateOf(model, 3)], { strategy: RULES[2]! });
  for (const [t, { data }] of tensors.entries()) sameBytes(data, model[t]!);
});

test.run();
