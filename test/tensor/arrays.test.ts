import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { arraysOf, nestedOf, updateFromArrays } from '../../src/tensor/arrays.ts';
import type { DType } from '../../src/tensor/dtypes.ts';
import { tensorOf } from '../../src/tensor/tensor.ts';
import { failsWith } from '../helpers/errors.ts';

test('takes weights in every form, in order, without copying typed arrays', () => {
  const data = Float64Array.of(1, 2, 3, 4, 5, 6);
  const { weighting, tensors } = updateFromArrays(
    [
      data,
      { data, shape: [2, 3] },
      [
        [1, 2],
        [3, 4],
        [5, 6],
      ],
      7,
      [],
      [[], []],
      tensorOf(Int8Array.of(1), [1], 'named'),
    ],
    600,
  );
  assert.is(weighting, 600);
  assert.equal(
    tensors.map(({ name, dtype, shape }) => [name, dtype, shape]),
    [
      [null, 'float64', [6]],
      [null, 'float64', [2, 3]],
      [null, 'float32', [3, 2]],
      [null, 'float32', []],
      [null, 'float32', [0]],
      [null, 'float32', [2, 0]],
      ['named', 'int8', [1]],
    ],
  );
  assert.is(tensors[1]!.data.buffer, data.buffer);
  assert.equal([...new Float32Array(tensors[2]!.data.buffer)], [1, 2, 3, 4, 5, 6]);
});

test('an object gives names; nested numbers become what is asked for', () => {
  const { tensors } = updateFromArrays({ kernel: [[0.1]], bias: Float32Array.of(1) }, null, {
    dtype: 'float64',
  });
  assert.equal(
    tensors.map(({ name, dtype }) => [name, dtype]),
    [
      ['kernel', 'float64'],
      ['bias', 'float32'],
    ],
  );
  assert.is(new Float64Array(tensors[0]!.data.buffer)[0], 0.1);
});

const RAGGED: readonly unknown[] = [
  [[1], [1, 2]],
  [1, [2]],
  [[1], 2],
  [[[1]], [1]],
  [1, null],
  [1, 'x'],
  ['x'],
  [1, undefined],
];

test('what is no array is refused, naming the place', () => {
  const endless: unknown[] = [];
  endless.push(endless);
  assert.throws(
    () => updateFromArrays([endless as number[]], 1),
    (error: unknown) => error instanceof RangeError && /^array 0: /.test(error.message),
  );
  for (const array of RAGGED) {
    assert.throws(
      () => updateFromArrays([0, array as number[]], 1),
      (error: unknown) => error instanceof RangeError && /^array 1: no array of shape \(/.test(error.message),
      JSON.stringify(array),
    );
  }
  assert.throws(
    () => updateFromArrays([{ data: new Float32Array(3), shape: [2] }], 1),
    (error: unknown) => error instanceof RangeError,
  );
  for (const nothing of [null, 'text', {}, { data: [1] }]) {
    assert.throws(
      () => updateFromArrays({ w: nothing as unknown as number }, 1),
      (error: unknown) => error instanceof TypeError && /^w: give a typed array/.test(error.message),
    );
  }
});

const bytes = (...values: number[]) => Uint8Array.from(values);

/** Elements in their bytes, little endian. */
const ELEMENTS: readonly [DType, Uint8Array, string, unknown[]][] = [
  ['bool', bytes(0, 1), 'Uint8Array', [0, 1]],
  ['int16', bytes(0xfe, 0xff), 'Int16Array', [-2]],
  ['uint64', bytes(255, 255, 255, 255, 255, 255, 255, 255), 'BigUint64Array', [2n ** 64n - 1n]],
  ['int64', bytes(255, 255, 255, 255, 255, 255, 255, 255), 'BigInt64Array', [-1n]],
  ['float16', bytes(0, 0x3c, 1, 0, 0, 0xfc), 'Float32Array', [1, 2 ** -24, Number.NEGATIVE_INFINITY]],
  ['bfloat16', bytes(0x80, 0x3f, 0xc0, 0xbf), 'Float32Array', [1, -1.5]],
  ['float32', bytes(0, 0, 0x80, 0x3f), 'Float32Array', [1]],
  ['float64', bytes(0, 0, 0, 0, 0, 0, 0, 0x80), 'Float64Array', [-0]],
];

for (const [dtype, data, type, values] of ELEMENTS) {
  test(`${dtype} as ${type}, also from an odd place`, () => {
    const odd = new Uint8Array(data.length + 1);
    odd.set(data, 1);
    const tensor = { name: 'w', dtype, shape: [values.length], data: odd.subarray(1) };
    const [array] = arraysOf({ tensors: [tensor] });
    assert.is(array!.data[Symbol.toStringTag], type);
    assert.ok(values.every((value, i) => Object.is(array!.data[i], value)));
    assert.equal([array!.name, array!.shape], ['w', [values.length]]);
  });
}

test('what no typed array holds is named', async () => {
  await failsWith('aggregate-dtype-unsupported', () =>
    arraysOf({ tensors: [{ name: null, dtype: 'complex64', shape: [1], data: new Uint8Array(8) }] }),
  );
});

test('there and back again, nested', () => {
  for (const nested of [
    3,
    [],
    [1, 2],
    [
      [1, 2, 3],
      [4, 5, 6],
    ],
    [
      [[1], [2]],
      [[3], [4]],
      [[5], [6]],
    ],
    [[], []],
  ]) {
    const [array] = arraysOf(updateFromArrays([nested], 1));
    assert.equal(nestedOf(array!), nested);
  }
});

test.run();
