import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { scaleWeightings } from '../../../src/aggregate/strategies/scaled-weightings.ts';

const test = suite('aggregate/strategies/scaled-weightings');

test('the same proportions by a power of two, what is too small counts as 0', () => {
  const table: [given: number[], expected: number[]][] = [
    [
      [1, 2, 4],
      [2 ** 49, 2 ** 50, 2 ** 51],
    ],
    [
      [0, 3, 0],
      [0, 3 * 2 ** 50, 0],
    ],
    [
      [0.1, 0.2],
      [0.1 * 2 ** 53, 0.2 * 2 ** 53],
    ],
    [
      [2 ** 53, 2 ** 53, 2 ** -60],
      [2 ** 50, 2 ** 50, 2 ** -63],
    ],
    [
      [1, 2 ** -115],
      [2 ** 51, 2 ** -64],
    ],
    [
      [1, 2 ** -116],
      [2 ** 51, 0],
    ],
    [
      [2 ** 900, 1],
      [2 ** 51, 0],
    ],
    [
      [2 ** -1074, 2 ** -1073],
      [2 ** 50, 2 ** 51],
    ],
    [
      [0, 0],
      [0, 0],
    ],
  ];
  for (const [given, expected] of table) assert.equal(scaleWeightings(given), expected, `${given}`);
});

test.run();
