import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Random } from '../../../src/cli/demo/random.ts';

const test = suite('cli/demo/random');

const draw = (random: Random, n = 1000) => Array.from({ length: n }, () => random.number());

test('repeats itself for a seed and a stream, and for no other', () => {
  const first = draw(new Random(3, 1));
  assert.equal(draw(new Random(3, 1)), first);
  const all = [...first, ...draw(new Random(3, 2)), ...draw(new Random(4, 1)), ...draw(new Random(1, 3))];
  assert.ok(new Set(all).size > all.length - 3);
});

test('numbers lie within (0, 1) and fill it evenly', () => {
  const numbers = draw(new Random(1), 20_000);
  assert.ok(numbers.every((x) => x > 0 && x < 1));
  for (let tenth = 0; tenth < 10; tenth++) {
    const count = numbers.filter((x) => Math.floor(x * 10) === tenth).length;
    assert.ok(Math.abs(count - 2000) < 200, `${count} of 20,000 in tenth ${tenth}`);
  }
});

test('shuffles keep every element and move most of them', () => {
  const array = new Random(1).shuffle(Array.from({ length: 100 }, (_, i) => i));
  assert.ok(array.filter((x, i) => x === i).length < 10);
  assert.equal(
    array.toSorted((a, b) => a - b),
    Array.from({ length: 100 }, (_, i) => i),
  );
});

test('mixtures add up to one', () => {
  const mixture = new Random(1).mixture(10);
  assert.is(mixture.length, 10);
  assert.ok(mixture.every((part) => part > 0));
  assert.ok(Math.abs(mixture.reduce((sum, part) => sum + part, 0) - 1) < 1e-12);
});

test.run();
