import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { fedNova } from '../../../src/aggregate/strategies/fednova.ts';
import { openStrategy, STRATEGY_NAMES } from '../../../src/aggregate/strategies/index.ts';
import {
  fedAdagrad,
  fedAdam,
  fedAvg,
  fedAvgM,
  fedYogi,
} from '../../../src/aggregate/strategies/optimisers.ts';
import {
  buffered,
  type StalenessRule,
  stalenessWeight,
} from '../../../src/aggregate/strategies/staleness.ts';
import type { Settled, Strategy } from '../../../src/aggregate/strategies/strategy.ts';
import { failsWith } from '../../helpers/errors.ts';

/** What a rule that needs no pass decides. */
function settle(strategy: Strategy, leaves: readonly string[], weightings: readonly number[]): Settled {
  const steps = strategy.settle?.({ leaves, weightings, tensors: [] });
  const step = steps?.next();
  if (step?.done !== true) throw new Error('asked for a pass');
  return step.value;
}

const test = suite('strategies/optimisers');

test('every rule carries its parameters as plain data', () => {
  const specs = [
    fedAvg({ learningRate: 0.5 }),
    fedAvgM(),
    fedAdagrad({ learningRate: 0.1 }),
    fedAdam({ learningRate: 0.1 }),
    fedYogi({ learningRate: 0.1, beta1: 0.5, beta2: 0.9, tau: 1 }),
  ].map(({ step }) => JSON.parse(JSON.stringify(step)));
  assert.equal(specs, [
    { kind: 'rate' },
    { kind: 'momentum', learningRate: 1, beta1: 0.9 },
    { kind: 'adagrad', learningRate: 0.1, beta1: 0, tau: 1e-3 },
    { kind: 'adam', learningRate: 0.1, beta1: 0.9, beta2: 0.99, tau: 1e-3 },
    { kind: 'yogi', learningRate: 0.1, beta1: 0.5, beta2: 0.9, tau: 1 },
  ]);
  assert.is(settle(fedAvg({ learningRate: 0.5 }), ['a'], [3]).rate, 0.5);
});

test('by name, with the same defaults', async () => {
  for (const [name, made] of [
    ['fedavgm', fedAvgM()],
    ['fedadagrad', fedAdagrad({ learningRate: 0.1 })],
    ['fedadam', fedAdam({ learningRate: 0.1 })],
    ['fedyogi', fedYogi({ learningRate: 0.1 })],
  ] as const) {
    assert.ok(STRATEGY_NAMES.includes(name));
    const opened = openStrategy(name, name === 'fedavgm' ? {} : { learningRate: 0.1 });
    assert.equal(opened.step, made.step, name);
  }
  await failsWith('strategy-parameter', () => openStrategy('fedadam'));
  await failsWith('strategy-parameter', () =>
    openStrategy('mean', { toLocaleString: 1 } as object as Record<string, number>),
  );
  await failsWith('strategy-parameter', () => openStrategy('fedadam', { learningRate: 1, momentum: 1 }));
});

test('parameters that make no sense are refused', async () => {
  for (const make of [
    () => fedAvg({ learningRate: 0 }),
    () => fedAvg({ learningRate: Number.NaN }),
    () => fedAvgM({ learningRate: -1 }),
    () => fedAvgM({ momentum: 1 }),
    () => fedAvgM({ momentum: -0.1 }),
    () => fedAdagrad({ learningRate: Infinity }),
    () => fedAdagrad({ learningRate: 1, tau: 0 }),
    () => fedAdam({ learningRate: 1, beta1: 1 }),
    () => fedAdam({ learningRate: 1, beta2: Number.NaN }),
    () => fedYogi({ learningRate: 1, beta2: 1 }),
    () => fedNova({ localSteps: new Map([['a', 0]]) }),
    () => buffered({ staleness: new Map([['a', -1]]) }),
    () => buffered({ staleness: new Map([['a', 0.5]]) }),
    () => buffered({ staleness: new Map(), learningRate: 0 }),
    () => buffered({ staleness: new Map(), rule: { kind: 'polynomial', exponent: 0.3 } }),
    () => buffered({ staleness: new Map(), rule: { kind: 'polynomial', exponent: 17 } }),
    () => buffered({ staleness: new Map(), rule: { kind: 'hinge', slope: 0, delay: 1 } }),
    () => buffered({ staleness: new Map(), rule: { kind: 'hinge', slope: 1, delay: -1 } }),
  ]) {
    await failsWith('strategy-parameter', make);
  }
});

test('FedNova is a mean under nᵢ/τᵢ at the rate τ_eff·A/N', async () => {
  const rule = fedNova({
    localSteps: new Map([
      ['a', 2],
      ['b', 8],
    ]),
  });
  // N = 40, A = 5 + 30/8, τ_eff = (10·2 + 30·8)/40
  assert.equal(settle(rule, ['a', 'b'], [10, 30]), { weightings: [5, 3.75], rate: (6.5 * 8.75) / 40 });
  const error = await failsWith('strategy-parameter', () => settle(rule, ['a', 'c'], [1, 1]));
  assert.match(error.message, /c made/);
  const even = fedNova({
    localSteps: new Map([
      ['a', 7],
      ['b', 7],
    ]),
  });
  assert.equal(settle(even, ['a', 'b'], [10, 30]), { weightings: [10, 30], rate: 1 });
});

test('stale updates count less', () => {
  const rules: [StalenessRule, number, number][] = [
    [{ kind: 'constant' }, 9, 1],
    [{ kind: 'polynomial' }, 0, 1],
    [{ kind: 'polynomial' }, 3, 0.5],
    [{ kind: 'polynomial', exponent: 1 }, 3, 0.25],
    [{ kind: 'polynomial', exponent: 2.5 }, 3, 1 / 32],
    [{ kind: 'polynomial', exponent: 0 }, 3, 1],
    [{ kind: 'hinge', slope: 10, delay: 4 }, 4, 1],
    [{ kind: 'hinge', slope: 10, delay: 4 }, 6, 1 / 21],
  ];
  for (const [rule, staleness, expected] of rules) assert.is(stalenessWeight(rule, staleness), expected);
  const rule = buffered({ staleness: new Map([['b', 3]]), learningRate: 0.5 });
  assert.equal(settle(rule, ['a', 'b'], [1, 1]), { weightings: [1, 0.5], rate: 0.375 });
  assert.equal(settle(rule, ['a', 'c'], [2, 3]), { weightings: [2, 3], rate: 0.5 });
});

test.run();
