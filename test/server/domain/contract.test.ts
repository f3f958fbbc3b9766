import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  checkContract,
  checkTotal,
  checkUpdate,
  contractOf,
  withNamesOf,
} from '../../../src/server/domain/contract.ts';
import { DEFAULT_POLICY } from '../../../src/server/domain/policy.ts';
import { Refusal } from '../../../src/server/domain/refusal.ts';
import type { DType } from '../../../src/tensor/dtypes.ts';
import type { Layout, TensorLayout } from '../../../src/tensor/layout.ts';
import { failsWith } from '../../helpers/errors.ts';

const POLICY = { ...DEFAULT_POLICY, aggregation_target: 1 };

function tensor(dtype: DType, shape: readonly number[], name: string | null = null): TensorLayout {
  return { name, dtype, shape, order: 'C', byteOrder: 'little', byteOffset: 0, byteLength: 0 };
}

function layout(tensors: readonly TensorLayout[], weighting: number | null = 1): Layout {
  return { format: 'npy-object', weighting, weightingType: 'int', tensors, byteLength: 1 };
}

const one = [tensor('float32', [2, 3])];

for (const [weighting, code] of [
  [null, 'weighting-missing'],
  [Number.NaN, 'weighting-nan'],
  [Number.POSITIVE_INFINITY, 'weighting-infinite'],
  [Number.NEGATIVE_INFINITY, 'weighting-infinite'],
  [0, 'weighting-zero'],
  [-0, 'weighting-zero'],
  [-1, 'weighting-negative'],
  [2 ** -65, 'weighting-range'],
  [2 ** 53 + 2, 'weighting-range'],
  [1e300, 'weighting-range'],
] as const) {
  test(`weighting ${weighting}: ${code}`, async () => {
    const error = await failsWith(code, () =>
      checkUpdate({ layout: layout(one, weighting), nonFinite: [] }, POLICY),
    );
    assert.instance(error, Refusal);
    assert.is((error as Refusal).reason, 'unprocessable');
  });
}

test('weightings within the bounds are accepted', () => {
  for (const weighting of [1, 0.5, 2 ** -64, 2 ** 53, 1e15, 0.1]) {
    assert.is(checkUpdate({ layout: layout(one, weighting), nonFinite: [] }, POLICY), weighting);
  }
});

test('no tensors, element types without a mean, and non-finite elements are refused', async () => {
  await failsWith('layout-empty', () => checkUpdate({ layout: layout([]), nonFinite: [] }, POLICY));
  const error = await failsWith('aggregate-dtype-unsupported', () =>
    checkUpdate({ layout: layout([...one, tensor('void16', [1])]), nonFinite: [] }, POLICY),
  );
  assert.match(error.message, /tensor 1 is void16/);
  const nonFinite = [
    { tensor: 0, index: 4, leaf: 'a' },
    { tensor: 0, index: 5, leaf: 'a' },
  ];
  const found = (await failsWith('non-finite', () =>
    checkUpdate({ layout: layout(one), nonFinite }, POLICY),
  )) as Refusal;
  assert.match(found.message, /tensor 0 .* element 4/);
  assert.equal(found.details, {
    non_finite: [
      { tensor: 0, index: 4 },
      { tensor: 0, index: 5 },
    ],
  });
});

test('totals are compared exactly', async () => {
  checkTotal([2 ** 53 - 1]);
  checkTotal([2 ** 52, 2 ** 52 - 1]);
  checkTotal(Array.from({ length: 1000 }, () => 2 ** -64));
  checkTotal([2 ** 53 - 2, 0.5, 0.5]);
  await failsWith('weighting-total', () => checkTotal([2 ** 53]));
  await failsWith('weighting-total', () => checkTotal([2 ** 53 - 1, 2 ** -64]));
  await failsWith('weighting-total', () => checkTotal([2 ** -64, 2 ** 53 - 1]));
  await failsWith('weighting-total', () => checkTotal([2 ** 52, 2 ** 52]));
});

const named = [tensor('float32', [2], 'w'), tensor('float64', [3], 'b')];
const cases: [string, readonly TensorLayout[], readonly TensorLayout[], string | undefined, RegExp?][] = [
  ['equal', one, one, undefined],
  ['named, in another order', named, [...named].reverse(), undefined],
  ['other memory order', one, [{ ...one[0]!, order: 'F', byteOrder: 'big' }], undefined],
  ['names on one side: by position', [tensor('float32', [2, 3], 'w')], one, undefined],
  ['fewer', named, [named[0]!], 'layout-count', /has 1 tensors.* have 2/],
  ['more', one, [...one, ...one], 'layout-count'],
  ['other name', named, [named[0]!, tensor('float64', [3], 'c')], 'layout-name', /tensor "b"/],
  [
    'other dtype',
    one,
    [tensor('float64', [2, 3])],
    'layout-dtype',
    /tensor 0 is float64, the run's is float32/,
  ],
  ['other shape', one, [tensor('float32', [3, 2])], 'layout-shape', /tensor 0 has the shape \[3, 2\]/],
  ['other rank', one, [tensor('float32', [6])], 'layout-shape'],
  ['a scalar is not one element', [tensor('float32', [])], [tensor('float32', [1])], 'layout-shape'],
];
for (const [name, expected, actual, code, message] of cases) {
  test(`contract: ${name}`, async () => {
    const contract = JSON.parse(JSON.stringify(contractOf(layout(expected))));
    if (code === undefined) return checkContract(contract, layout(actual));
    const error = await failsWith(code, () => checkContract(contract, layout(actual)));
    if (message !== undefined) assert.match(error.message, message);
  });
}

for (const [name, contract, update, names] of [
  ['a first update with names', one, [tensor('float32', [2, 3], 'w')], ['w']],
  ['one without', one, one, [null]],
  ['a contract with names keeps them', named, [...named].reverse(), ['w', 'b']],
  ['two tensors of one name tell nothing', [...one, ...one], [named[0]!, named[0]!], [null, null]],
] as const) {
  test(`names of the contract: ${name}`, () => {
    const before = contractOf(layout(contract));
    const after = withNamesOf(layout(update), before);
    assert.equal(
      after.map((each) => each.name),
      names,
    );
    assert.equal(
      after.map(({ dtype, shape }) => ({ dtype, shape })),
      before.map(({ dtype, shape }) => ({ dtype, shape })),
    );
  });
}

test.run();
