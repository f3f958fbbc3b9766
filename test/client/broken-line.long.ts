import { suite } from 'uvu';
import { crossBrokenLine } from '../helpers/broken-line.ts';
import { testSeed } from '../helpers/random.ts';

const test = suite('broken line, long');

test('100 MB each way with 500 cuts each', () =>
  crossBrokenLine(testSeed(), 25_000_000, { cutAfter: 100_000, cuts: 500 }));

test.run();
