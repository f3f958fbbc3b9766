import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { settleWeightings } from '../../src/aggregate/weightings.ts';
import { failsWith } from '../helpers/errors.ts';

const test = suite('weightings');

const inputs = (...weightings: (number | null)[]) =>
  weightings.map((weighting, i) => ({ leaf: `leaf-${i}`, weighting }));

test('accepts zero and everything within 2^-64 and 2^53', () => {
  assert.equal(settleWeightings(inputs(0, 2 ** -64, 2 ** 53, 1.5, -0)), [0, 2 ** -64, 2 ** 53, 1.5, -0]);
});

test('counts each as 1 where none has a weighting', () =>
  assert.equal(settleWeightings(inputs(null, null)), [1, 1]));

for (const [code, weightings] of [
  ['weighting-missing', [1, null]],
  ['average-nan-weight', [1, Number.NaN]],
  ['average-inf-weight', [1, Infinity]],
  ['average-inf-weight', [-Infinity]],
  ['average-negative-weight', [-1, 1]],
  ['average-weight-range', [2 ** -65]],
  ['average-weight-range', [2 ** 53 + 2]],
  ['average-all-zero', [0, 0]],
] as const) {
  test(`${code} for ${weightings.join(', ')}`, async () => {
    await failsWith(code, () => settleWeightings(inputs(...weightings)));
  });
}

test.run();
