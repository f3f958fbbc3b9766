import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { matchTensors } from '../../src/aggregate/match.ts';
import type { DType } from '../../src/tensor/dtypes.ts';
import type { TensorLayout } from '../../src/tensor/layout.ts';
import { failsWith } from '../helpers/errors.ts';

const test = suite('match');

function tensor(name: string | null, shape: readonly number[], dtype: DType = 'float32'): TensorLayout {
  return { name, dtype, shape, order: 'C', byteOrder: 'little', byteOffset: 0, byteLength: 0 };
}

const input = (leaf: string, ...tensors: TensorLayout[]) => ({ leaf, layout: { tensors } });

test('by position where names are missing', () => {
  const { sources, tensors } = matchTensors([
    input('a', tensor('w', [2]), tensor('b', [3])),
    input('b', tensor(null, [2]), tensor(null, [3])),
  ]);
  assert.equal(sources, [
    [0, 1],
    [0, 1],
  ]);
  assert.equal(tensors[0], { name: 'w', dtype: 'float32', shape: [2] });
});

test('by name where all have names', () => {
  const { sources } = matchTensors([
    input('a', tensor('w', [2]), tensor('b', [3])),
    input('b', tensor('b', [3]), tensor('w', [2])),
  ]);
  assert.equal(sources[1], [1, 0]);
});

test('with what is expected each input is paired by itself, in that order', () => {
  const expected = [tensor('w', [2]), tensor('b', [2])];
  const inputs = [
    input('a', tensor('b', [2]), tensor('w', [2])),
    input('b', tensor(null, [2]), tensor(null, [2])),
    input('c', tensor('w', [2]), tensor('b', [2])),
    input('d', tensor('w', [2]), tensor('w', [2])),
  ];
  const { sources, tensors } = matchTensors(inputs, expected);
  assert.equal(sources, [
    [1, 0],
    [0, 1],
    [0, 1],
    [0, 1],
  ]);
  assert.equal(
    tensors.map(({ name }) => name),
    ['w', 'b'],
  );
  const nameless = [tensor(null, [2]), tensor(null, [2])];
  assert.equal(matchTensors(inputs, nameless).sources[0], [0, 1]);
});

test('what is expected refuses even a lone input', async () => {
  for (const [code, tensors] of [
    ['average-count', []],
    ['average-name', [tensor('v', [2])]],
    ['average-shape', [tensor('w', [3])]],
  ] as const) {
    await failsWith(code, () => matchTensors([input('a', ...tensors)], [tensor('w', [2])]));
  }
});

for (const [code, a, b] of [
  ['average-count', input('a', tensor(null, [2])), input('b')],
  ['average-dtype', input('a', tensor(null, [2])), input('b', tensor(null, [2], 'float64'))],
  ['average-shape', input('a', tensor(null, [2, 3])), input('b', tensor(null, [3, 2]))],
  ['average-shape', input('a', tensor(null, [6])), input('b', tensor(null, [6, 1]))],
  ['average-name', input('a', tensor('w', [2])), input('b', tensor('v', [2]))],
] as const) {
  test(code, async () => {
    const error = await failsWith(code, () => matchTensors([a, b]));
    assert.match(error.message, /^b/);
  });
}

test.run();
