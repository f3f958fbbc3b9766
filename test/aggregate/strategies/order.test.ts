import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { average } from '../../../src/aggregate/average.ts';
import { openStrategy, type Strategy, strategies } from '../../../src/aggregate/strategies/index.ts';
import type { ModelUpdate } from '../../../src/tensor/tensor.ts';
import { sameBytes } from '../../helpers/bytes.ts';
import { failsWith } from '../../helpers/errors.ts';

const update = (weighting: number | null, ...xs: number[]): ModelUpdate => ({
  weighting,
  tensors: [
    { name: 'a', dtype: 'float32', shape: [xs.length], data: new Uint8Array(Float32Array.from(xs).buffer) },
  ],
});

const UPDATES = [update(1, 5, 1), update(1, 1, 2), update(9, 3, 7), update(1, 100, 4), update(0, -9, -9)];

const test = suite('aggregate/strategies/order');

test('rules as an aggregation uses them', async () => {
  for (const [name, parameters, rule, expected] of [
    ['median', {}, strategies.median, [4, 3]],
    ['weighted-median', {}, strategies.weightedMedian, [3, 7]],
    ['trimmed-mean', { trim: 0.25 }, strategies.trimmedMean({ trim: 0.25 }), [4, 3]],
    ['trimmed-mean', { trim: 0 }, strategies.trimmedMean({ trim: 0 }), [27.25, 3.5]],
  ] as [string, Record<string, number>, Strategy, number[]][]) {
    for (const strategy of [rule, openStrategy(name, parameters)]) {
      assert.is(strategy.name, name);
      const { tensors, weighting } = await average(UPDATES, { strategy });
      sameBytes(tensors[0]!.data, Float32Array.from(expected), name);
      assert.is(weighting, 12);
    }
  }
});

test('what is cut is counted', async () => {
  for (const [trim, least] of [
    [0, 1],
    [0.1, 10],
    [0.2, 5],
    [0.3, 4],
    [0.49, 3],
    [1 / 3, 3],
    [1 / 49, 50], // 49 · (1 / 49) is below one in binary64
  ] as const) {
    const rule = strategies.trimmedMean({ trim });
    assert.is(rule.minimumInputs, least, `trim ${trim}`);
    const inputs = Array.from({ length: least }, () => update(null, 1));
    sameBytes((await average(inputs, { strategy: rule })).tensors[0]!.data, Float32Array.of(1));
    if (least === 1) continue;
    await failsWith('strategy-too-few-inputs', () => average(inputs.slice(1), { strategy: rule }));
  }
});

test('fractions that make no sense', async () => {
  for (const trim of [0.5, 1, -0.1, Number.NaN, Infinity]) {
    await failsWith('strategy-parameter', () => strategies.trimmedMean({ trim }));
    await failsWith('strategy-parameter', () => openStrategy('trimmed-mean', { trim }));
  }
  await failsWith('strategy-parameter', () => openStrategy('trimmed-mean'));
  await failsWith('strategy-parameter', () => openStrategy('median', { trim: 0.1 }));
});

test('NaN and infinity are refused with their places, or go the way of the rule', async () => {
  const dirty = [...UPDATES.slice(0, 3), update(1, Number.NaN, Infinity)];
  const { median } = strategies;
  const error = await failsWith('non-finite', () => average(dirty, { strategy: median }));
  assert.match(error.message, /a.*\[0\] of update 3/);
  const { tensors } = await average(dirty, { strategy: median, nonFinite: 'propagate' });
  sameBytes(tensors[0]!.data, Float32Array.of(Number.NaN, 4.5));
});

test.run();
