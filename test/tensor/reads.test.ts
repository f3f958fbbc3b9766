import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { planReads } from '../../src/tensor/reads.ts';

const test = suite('reads');

const want = (offset: number, byteLength: number) => ({ offset, byteLength });

for (const [name, wants, spare, reads, places] of [
  ['nothing', [], 100, [], []],
  ['one', [want(7, 9)], 0, [{ offset: 7, byteLength: 9, at: 0 }], [0]],
  ['neighbours', [want(0, 10), want(10, 5)], 0, [{ offset: 0, byteLength: 15, at: 0 }], [0, 10]],
  ['a small gap', [want(0, 10), want(30, 5)], 64, [{ offset: 0, byteLength: 35, at: 0 }], [0, 30]],
  [
    'a gap without room',
    [want(0, 10), want(30, 5)],
    19,
    [
      { offset: 0, byteLength: 10, at: 0 },
      { offset: 30, byteLength: 5, at: 10 },
    ],
    [0, 10],
  ],
  [
    'a wide gap',
    [want(0, 10), want(10_000, 5)],
    20_000,
    [
      { offset: 0, byteLength: 10, at: 0 },
      { offset: 10_000, byteLength: 5, at: 10 },
    ],
    [0, 10],
  ],
  [
    'backwards',
    [want(100, 10), want(0, 5)],
    100,
    [
      { offset: 100, byteLength: 10, at: 0 },
      { offset: 0, byteLength: 5, at: 10 },
    ],
    [0, 10],
  ],
] as const) {
  test(name, () => assert.equal(planReads(wants, spare), { reads, places }));
}

test.run();
