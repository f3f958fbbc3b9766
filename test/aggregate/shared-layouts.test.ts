import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { SharedLayouts } from '../../src/aggregate/shared-layouts.ts';
import type { TensorLayout } from '../../src/tensor/layout.ts';

const test = suite('shared layouts');

const weight: TensorLayout = {
  name: 'w',
  dtype: 'float32',
  shape: [2, 3],
  order: 'C',
  byteOrder: 'little',
  byteOffset: 128,
  byteLength: 24,
};
const bias: TensorLayout = { ...weight, name: 'b', shape: [3], byteOffset: 152, byteLength: 12 };

/** The same tensors in other objects. */
const copy = (tensors: readonly TensorLayout[]) =>
  tensors.map((tensor) => ({ ...tensor, shape: [...tensor.shape] }));

test('equal lists become one', () => {
  const layouts = new SharedLayouts();
  const first = layouts.share([weight, bias]);
  assert.equal(first, [weight, bias]);
  assert.is(layouts.share(copy(first)), first);
});

test('nothing that a reader made is kept', () => {
  const made = [weight, bias];
  const kept = new SharedLayouts().share(made);
  assert.ok(kept !== made && kept.every((tensor, i) => tensor !== made[i]));
});

const OTHERS: Readonly<Record<string, Partial<TensorLayout>>> = {
  name: { name: null },
  dtype: { dtype: 'int32' },
  shape: { shape: [3, 2] },
  dimensions: { shape: [2, 3, 1] },
  order: { order: 'F' },
  'byte order': { byteOrder: 'big' },
  place: { byteOffset: 129 },
  'no place': { byteOffset: null },
  length: { byteLength: 20 },
  encoding: { encoding: 'plain' },
  parts: {
    encoding: 'float16',
    parts: { encoding: 'float16', offsets: [0], block: null, pairs: 0, marks: null },
  },
};
for (const [what, change] of Object.entries(OTHERS)) {
  test(`another ${what} is another layout`, () => {
    const layouts = new SharedLayouts();
    layouts.share([weight, bias]);
    const other = [{ ...weight, ...change }, bias];
    assert.equal(layouts.share(other), other);
  });
}

test('another number of tensors is another layout', () => {
  const layouts = new SharedLayouts();
  layouts.share([weight, bias]);
  for (const other of [[weight], [weight, bias, bias], []]) assert.equal(layouts.share(other), other);
});

test('encoded tensors are not shared: their parts are their own', () => {
  const layouts = new SharedLayouts();
  const encoded = [{ ...weight, ...OTHERS.parts }];
  assert.is.not(layouts.share(encoded), layouts.share(copy(encoded)));
});

test('only a few are remembered', () => {
  const layouts = new SharedLayouts();
  const lists = Array.from({ length: 40 }, (_, i) => [{ ...weight, byteOffset: i }]);
  const shared = lists.map((list) => layouts.share(list));
  const known = lists.filter((list, i) => layouts.share(copy(list)) === shared[i]);
  assert.is(known.length, 16);
});

test.run();
