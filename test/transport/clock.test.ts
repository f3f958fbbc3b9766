import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { sleep, systemClock } from '../../src/transport/clock.ts';
import { ManualClock } from '../helpers/clock.ts';

test('a sleep ends in time, or with the reason of its signal', async () => {
  const clock = new ManualClock();
  const sleeping = sleep(clock, 100);
  clock.pass(100);
  await sleeping;
  const controller = new AbortController();
  const aborted = sleep(clock, 100, controller.signal).catch((reason: unknown) => reason);
  controller.abort('enough');
  assert.is(await aborted, 'enough');
  assert.is(await sleep(clock, 1, controller.signal).catch((reason: unknown) => reason), 'enough');
  assert.is(clock.waiting, 0);
});

test('the system clock: what was taken back does not happen, what was not does', async () => {
  let isCalled = false;
  systemClock.after(0, () => {
    isCalled = true;
  })();
  // Timers of one delay fire in the order in which they were set.
  await sleep(systemClock, 0);
  assert.is(isCalled, false);
  assert.ok(systemClock.now() > Date.UTC(2020, 0, 1));
});

test('a delay beyond what timers hold does not fire at once', async () => {
  let isCalled = false;
  const cancel = systemClock.after(2 ** 40, () => {
    isCalled = true;
  });
  await sleep(systemClock, 0);
  await sleep(systemClock, 1);
  cancel();
  assert.is(isCalled, false);
});

test.run();
