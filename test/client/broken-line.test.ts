// Transfers over lines that cut, delay, throttle, change and reorder bytes. The long ones: broken-line.long.ts.
import { suite } from 'uvu';
import { crossBrokenLine } from '../helpers/broken-line.ts';
import { testSeed } from '../helpers/random.ts';

const test = suite('broken line');
const seed = testSeed();
const MiB = 1 << 20;

test('40 cuts at random bytes, delays, small pieces', () =>
  crossBrokenLine(seed, 3 * MiB, { cutAfter: 128 << 10, cuts: 40, delayOneIn: 10, pieces: 10_000 }));

test('changed bytes on the way up cost what is on the line', () =>
  crossBrokenLine(seed + 1, 2 * MiB, { corruptOneIn: 100 }));

test('what was sent before a cut and arrives after the next request spoils nothing', () =>
  crossBrokenLine(seed + 2, 2 * MiB, { cutAfter: 128 << 10, cuts: 20, lateOneIn: 3 }));

test('bytes that change places are found out', () => crossBrokenLine(seed + 3, 2 * MiB, { swapOneIn: 100 }));

test('a throttled line is a slow one, not a broken one', () =>
  crossBrokenLine(seed + 4, MiB, { bytesPerTurn: 4096, delayOneIn: 20 }));

test.run();
