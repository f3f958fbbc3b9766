import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CLASSES, PIXELS } from '../../../src/cli/demo/digits.ts';
import { pool, splitDigits } from '../../../src/cli/demo/shards.ts';
import { sameBytes } from '../../helpers/bytes.ts';

const test = suite('cli/demo/shards');

const PER_DIGIT = 900;

/** Images that can be told apart: each carries its digit and its number. */
const digits = Array.from({ length: CLASSES }, (_, digit) => {
  const images = new Uint8Array(PER_DIGIT * PIXELS);
  for (let i = 0; i < PER_DIGIT; i++) images.set([digit, i >> 8, i & 255], i * PIXELS);
  return images;
});

function namesOf({ images, labels }: { readonly images: Uint8Array; readonly labels: Uint8Array }): string[] {
  assert.is(images.length, labels.length * PIXELS);
  return Array.from(labels, (label, i) => {
    const [digit, high, low] = images.subarray(i * PIXELS);
    assert.is(digit, label);
    return `${digit}/${high! * 256 + low!}`;
  });
}

function countsOf(labels: Uint8Array): number[] {
  return Array.from({ length: CLASSES }, (_, digit) => labels.filter((label) => label === digit).length);
}

for (const leaves of [1, 2, 3, 5, 10, 20]) {
  for (const seed of [0, 1, 2 ** 31 - 1]) {
    test(`${leaves} leaves, seed ${seed}: nobody shares an image, the held-out set is balanced`, () => {
      const { shards, heldOut } = splitDigits(digits, leaves, seed);
      assert.is(shards.length, leaves);
      const names = [...shards.flatMap((shard) => namesOf(shard.samples)), ...namesOf(heldOut)];
      assert.is(new Set(names).size, names.length);
      assert.equal(countsOf(heldOut.labels), Array(CLASSES).fill(200));
      assert.is(new Set(shards.flatMap((shard) => shard.own)).size, CLASSES);
      for (const { samples } of shards) assert.ok(samples.labels.length > 40);
    });
  }
}

test('shards differ in number and in kind', () => {
  const { shards } = splitDigits(digits, 5, 1);
  assert.equal(
    shards.map((shard) => shard.samples.labels.length),
    [200, 450, 700, 950, 1200],
  );
  for (const { own, samples } of shards) {
    assert.is(own.length, 2);
    const counts = countsOf(samples.labels);
    const part = own.reduce((sum, digit) => sum + counts[digit]!, 0) / samples.labels.length;
    assert.ok(part > 0.7, `own digits make up ${part}`);
  }
});

test('the same seed gives the same split, another one another', () => {
  const [one, same, other] = [7, 7, 8].map((seed) => splitDigits(digits, 5, seed));
  sameBytes(one!.heldOut.images, same!.heldOut.images);
  sameBytes(pool(one!.shards).images, pool(same!.shards).images);
  sameBytes(pool(one!.shards).labels, pool(same!.shards).labels);
  assert.not.equal(namesOf(one!.heldOut), namesOf(other!.heldOut));
});

test('the pool is all shards, one after the other', () => {
  const { shards } = splitDigits(digits, 3, 1);
  assert.equal(
    namesOf(pool(shards)),
    shards.flatMap((shard) => namesOf(shard.samples)),
  );
});

test.run();
