import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Watchdog } from '../../src/transport/watchdog.ts';
import { ManualClock } from '../helpers/clock.ts';

test('aborts when nothing moves, not before', () => {
  const clock = new ManualClock();
  const watchdog = new Watchdog(clock);
  watchdog.feed(100);
  clock.pass(99);
  watchdog.feed(50);
  clock.pass(49);
  assert.is(watchdog.signal.aborted, false);
  clock.pass(1);
  assert.is(watchdog.signal.aborted, true);
  assert.is(watchdog.expired, true);
  watchdog.feed(100);
  assert.is(clock.waiting, 0);
});

test('rests while the other side is not waited for', () => {
  const clock = new ManualClock();
  const watchdog = new Watchdog(clock);
  watchdog.feed(100);
  watchdog.rest();
  clock.pass(1000);
  assert.is(watchdog.signal.aborted, false);
});

test('aborts with its caller, which is no expiry', () => {
  const clock = new ManualClock();
  const caller = new AbortController();
  const watchdog = new Watchdog(clock, caller.signal);
  caller.abort('enough');
  assert.is(watchdog.signal.reason, 'enough');
  assert.is(watchdog.expired, false);
});

test('`stop` ends the exchange and leaves no timer', () => {
  const clock = new ManualClock();
  const watchdog = new Watchdog(clock, new AbortController().signal);
  watchdog.feed(100);
  watchdog.stop();
  assert.is(watchdog.signal.aborted, true);
  assert.is(watchdog.expired, false);
  assert.is(clock.waiting, 0);
});

test.run();
