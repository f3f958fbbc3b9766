// Transfers over lines that cut, delay, dribble and change bytes. The long ones: broken-line.long.ts.
import { suite } from 'uvu';
import { crossBrokenLine } from '../helpers/broken-line.ts';
import { testSeed } from '../helpers/random.ts';

const test = suite('broken line');
const seed = testSeed();
const MiB = 1 << 20;

test('40 cuts at random bytes, delays, small pieces', () =>
  crossBrokenLine(seed, 3 * MiB, { cutAfter: 128 << 10, cuts: 40, delayOneIn: 10, pieces: 10_000 }));

test('changed bytes on the way up cost what is on the line', () =>
  crossBrokenLine(seed + 1, 2 * MiB, { corruptOneIn: 150 }));

test.run();
