import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { weightings } from '../../src/client/weightings.ts';

test('gives what it says', () => {
  assert.is(weightings.samples(600), 600);
  assert.is(weightings.equal(), 1);
  assert.is(weightings.quality(0.75), 0.75);
  assert.is(weightings.quality(0.5, { samples: 600 }), 300);
  assert.is(weightings.manual(0.1), 0.1);
  assert.ok(Object.isFrozen(weightings));
});

const SENSELESS: readonly (() => number)[] = [
  () => weightings.samples(0),
  () => weightings.samples(1.5),
  () => weightings.samples(Number.NaN),
  () => weightings.quality(0),
  () => weightings.quality(-1),
  () => weightings.quality(Number.POSITIVE_INFINITY),
  () => weightings.quality(1, { samples: 0 }),
  () => weightings.manual(2 ** 54),
  () => weightings.manual(2 ** -65),
];

test('refuses what the server would refuse', () => {
  for (const weighting of SENSELESS) {
    assert.throws(weighting, (error: unknown) => error instanceof RangeError, String(weighting));
  }
});

test.run();
