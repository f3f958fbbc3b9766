import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { average, inputOf } from '../../src/aggregate/average.ts';
import { fedAvg } from '../../src/aggregate/strategies/optimisers.ts';
import { tensorOf } from '../../src/tensor/tensor.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';

const test = suite('average');

const update = (weighting: number | null, ...arrays: (Float32Array | Float64Array)[]) => ({
  weighting,
  tensors: arrays.map((array) => tensorOf(array)),
});

test('the weighted mean and the sum of the weightings', async () => {
  const result = await average([
    update(1, Float32Array.of(1, 2, 3), Float64Array.of(10)),
    update(3, Float32Array.of(5, 6, 7), Float64Array.of(20)),
  ]);
  assert.is(result.weighting, 4);
  sameBytes(result.tensors[0]!.data, Float32Array.of(4, 5, 6));
  sameBytes(result.tensors[1]!.data, Float64Array.of(17.5));
});

test('what is no rule, but the name of one or what makes one, is refused with what to write', async () => {
  for (const strategy of ['median', { name: 'median' }, fedAvg, null]) {
    const error = await failsWith('strategy-unknown', () => average([], { strategy: strategy as never }));
    assert.match(error.message, 'strategies.median');
  }
});

test('elements that are no bytes are refused: they would be taken for some', async () => {
  const data = Float32Array.of(1, 2) as unknown as Uint8Array;
  const tensors = [{ name: null, dtype: 'float32', shape: [2], data }] as const;
  const error = await average([{ weighting: 1, tensors }]).catch((caught: unknown) => caught);
  assert.ok(error instanceof RangeError);
  assert.match(error.message, 'a Uint8Array of 8 bytes, not 2');
});

test('does not change its inputs', async () => {
  const x = Float32Array.of(1, 2);
  await average([update(1, x), update(1, Float32Array.of(3, 4))]);
  sameBytes(x, Float32Array.of(1, 2));
});

test('one update comes back bit for bit', async () => {
  const x = Float32Array.of(-0, 1e-45, 3.4e38, 0.1);
  const result = await average([update(77, x)]);
  sameBytes(result.tensors[0]!.data, x);
});

test('a result goes into the arrays that the caller gives', async () => {
  const x = Float32Array.of(1, 2);
  const updates = [update(1, x), update(1, Float32Array.of(3, 4))];
  const room = Float32Array.of(9, 9);
  const result = await average(updates, { into: [new Uint8Array(room.buffer)] });
  sameBytes(room, Float32Array.of(2, 3));
  assert.is(result.tensors[0]!.data.buffer, room.buffer);
  for (const into of [[new Uint8Array(4)], [new Uint8Array(x.buffer)]]) {
    const error = await average(updates, { into }).catch((caught: unknown) => caught);
    assert.ok(error instanceof RangeError);
  }
  sameBytes(x, Float32Array.of(1, 2));
});

test('a rule that refers to a global model takes its tensors, or what it is read from', async () => {
  const model = update(null, Float32Array.of(1, 2));
  const updates = [update(1, Float32Array.of(3, 2)), update(1, Float32Array.of(3, 6))];
  const strategy = fedAvg({ learningRate: 0.5 });
  for (const given of [model, inputOf(model, 'model')]) {
    const result = await average(updates, { strategy, model: given });
    sameBytes(result.tensors[0]!.data, Float32Array.of(2, 3));
  }
  await failsWith('strategy-model-missing', () => average(updates, { strategy }));
  await failsWith('average-shape', () =>
    average(updates, { strategy, model: update(null, Float32Array.of(1)) }),
  );
});

test('weighting 0 counts for nothing, not even NaN', async () => {
  const result = await average([update(0, Float32Array.of(Number.NaN)), update(5, Float32Array.of(2))]);
  sameBytes(result.tensors[0]!.data, Float32Array.of(2));
  assert.is(result.weighting, 5);
});

test('without weightings each counts 1', async () => {
  const result = await average([update(null, Float32Array.of(1)), update(null, Float32Array.of(2))]);
  sameBytes(result.tensors[0]!.data, Float32Array.of(1.5));
  assert.is(result.weighting, 2);
});

test('empty tensors and scalars', async () => {
  const make = (x: number) => ({
    weighting: 1,
    tensors: [tensorOf(new Float32Array(0), [0, 3]), tensorOf(Float32Array.of(x), [])],
  });
  const result = await average([make(1), make(2)]);
  assert.equal(
    result.tensors.map((tensor) => tensor.shape),
    [[0, 3], []],
  );
  sameBytes(result.tensors[1]!.data, Float32Array.of(1.5));
});

test('names the first eight non-finite elements by tensor, index and leaf', async () => {
  const bad = Float32Array.from({ length: 6000 }, (_, i) => (i % 1000 === 0 ? Number.NaN : 1));
  const worse = Float32Array.from({ length: 6000 }, (_, i) => (i === 0 || i === 5999 ? Infinity : 1));
  const error = await failsWith('non-finite', () =>
    average([update(1, worse, bad), update(1, bad, bad)], { leaves: ['b', 'a'], blockBytes: 4096 }),
  );
  assert.equal((error as unknown as { nonFinite: unknown }).nonFinite, [
    { tensor: 0, index: 0, leaf: 'a' },
    { tensor: 0, index: 0, leaf: 'b' },
    { tensor: 0, index: 1000, leaf: 'a' },
    { tensor: 0, index: 2000, leaf: 'a' },
    { tensor: 0, index: 3000, leaf: 'a' },
    { tensor: 0, index: 4000, leaf: 'a' },
    { tensor: 0, index: 5000, leaf: 'a' },
    { tensor: 0, index: 5999, leaf: 'b' },
  ]);
});

test('lets NaN through when asked to, in canonical form', async () => {
  const odd = new Float32Array(Uint32Array.of(0xffc12345, 0x7f800000).buffer);
  const result = await average([update(1, odd), update(1, Float32Array.of(1, 1))], {
    nonFinite: 'propagate',
  });
  sameBytes(result.tensors[0]!.data, Uint32Array.of(0x7fc00000, 0x7f800000));
});

test('refuses what cannot be averaged', async () => {
  const one = update(1, Float32Array.of(1));
  await failsWith('average-no-input', () => average([]));
  await failsWith('average-count', () => average([one, update(1)]));
  await failsWith('average-dtype', () => average([one, update(1, Float64Array.of(1))]));
  await failsWith('average-sum-overflow', () =>
    average([update(2 ** 53, Float32Array.of(1)), update(2 ** 53, Float32Array.of(1))]),
  );
  await failsWith('average-duplicate-leaf', () => average([one, one], { leaves: ['a', 'a'] }));
  const opaque = { weighting: 1, tensors: [{ ...tensorOf(Int16Array.of(1)), dtype: 'void16' as const }] };
  await failsWith('aggregate-dtype-unsupported', () => average([opaque]));
});

test('stops when the signal says so', async () => {
  const reason = new Error('enough');
  let caught: unknown;
  try {
    await average([update(1, Float32Array.of(1))], { signal: AbortSignal.abort(reason) });
  } catch (error) {
    caught = error;
  }
  assert.is(caught, reason);
});

test.run();
