import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UnavailableError } from '../../src/errors.ts';
import {
  backoffMs,
  type Retry,
  type RetryOptions,
  readRetryAfter,
  retryPolicy,
  TransientFailure,
  withRetries,
} from '../../src/transport/retry.ts';
import { HastyClock, ManualClock } from '../helpers/clock.ts';
import { failsWith } from '../helpers/errors.ts';

const failure = new UnavailableError('unavailable-server', 'gone');

function policyOf(options: RetryOptions, random = 1 - 2 ** -53) {
  const clock = new HastyClock(() => true);
  return { clock, policy: retryPolicy(options, clock, () => random) };
}

/** Fails as often as there are failures, then gives the number of the attempt. */
function attempts(failures: readonly unknown[]) {
  let count = 0;
  const attempt = async () => {
    const error = failures[count++];
    if (error !== undefined) throw error;
    return count;
  };
  return { attempt, count: () => count };
}

test('pauses double up to the limit and are at least half of it', () => {
  const bounds = [100, 200, 400, 800, 1000, 1000];
  const { policy: longest } = policyOf({ baseMs: 100, maxMs: 1000 });
  const { policy: shortest } = policyOf({ baseMs: 100, maxMs: 1000 }, 0);
  assert.equal(
    bounds.map((_, i) => Math.round(backoffMs(longest, i + 1))),
    bounds,
  );
  assert.equal(
    bounds.map((_, i) => backoffMs(shortest, i + 1)),
    bounds.map((bound) => bound / 2),
  );
});

test('succeeds after transient failures', async () => {
  const { clock, policy } = policyOf({ baseMs: 8 }, 0);
  const { attempt } = attempts([new TransientFailure(failure), new TransientFailure(failure)]);
  assert.is(await withRetries(policy, undefined, attempt), 3);
  assert.equal(clock.pauses, [4, 8]);
});

test('stops after the last attempt with the failure itself', async () => {
  const { policy } = policyOf({ attempts: 3 });
  const { attempt, count } = attempts(Array(9).fill(new TransientFailure(failure)));
  assert.is(await failsWith('unavailable-server', () => withRetries(policy, undefined, attempt)), failure);
  assert.is(count(), 3);
  assert.is(failure.attempts, 3);
});

test('tells of each try that is made again', async () => {
  const told: Retry[] = [];
  const clock = new HastyClock(() => true);
  const policy = retryPolicy(
    { attempts: 3, baseMs: 8, factor: 3 },
    clock,
    () => 0,
    (retry) => told.push(retry),
  );
  const { attempt } = attempts(Array(9).fill(new TransientFailure(failure)));
  await failsWith('unavailable-server', () => withRetries(policy, undefined, attempt));
  assert.equal(
    told.map(({ attempt, delayMs }) => [attempt, delayMs]),
    [
      [1, 4],
      [2, 12],
    ],
  );
});

test('does not try again what is no transient failure', async () => {
  const { policy } = policyOf({});
  const { attempt, count } = attempts([failure]);
  await failsWith('unavailable-server', () => withRetries(policy, undefined, attempt));
  assert.is(count(), 1);
});

test('honours Retry-After, up to its limit', async () => {
  const { clock, policy } = policyOf({ maxRetryAfterMs: 5000 });
  const fine = attempts([new TransientFailure(failure, 5000), new TransientFailure(failure, 0)]);
  assert.is(await withRetries(policy, undefined, fine.attempt), 3);
  assert.equal(clock.pauses, [5000, 0]);
  const tooLong = attempts([new TransientFailure(failure, 5001)]);
  await failsWith('unavailable-server', () => withRetries(policy, undefined, tooLong.attempt));
  assert.is(tooLong.count(), 1);
});

test('an abort ends a pause at once, with its reason', async () => {
  const clock = new ManualClock();
  const policy = retryPolicy({}, clock, () => 0);
  const controller = new AbortController();
  const { attempt, count } = attempts([new TransientFailure(failure)]);
  const running = withRetries(policy, controller.signal, attempt);
  await clock.asked(1);
  controller.abort('enough');
  assert.is(await running.catch((reason) => reason), 'enough');
  assert.is(count(), 1);
  assert.is(clock.waiting, 0);
});

test('nothing is attempted under an aborted signal', async () => {
  const { policy } = policyOf({});
  const { attempt, count } = attempts([]);
  assert.is(await withRetries(policy, AbortSignal.abort('no'), attempt).catch((reason) => reason), 'no');
  assert.is(count(), 0);
});

test('senseless policies are refused', () => {
  for (const options of [{ attempts: 0 }, { attempts: 1.5 }, { baseMs: -1 }, { maxMs: Number.NaN }]) {
    assert.throws(
      () => policyOf(options),
      (error: unknown) => error instanceof RangeError,
    );
  }
});

test('Retry-After is read as seconds or as a date', () => {
  const now = Date.parse('Mon, 23 Nov 2026 20:00:00 GMT');
  const table: readonly [string | null, number | undefined][] = [
    [null, undefined],
    ['0', 0],
    [' 17 ', 17_000],
    ['Mon, 23 Nov 2026 20:00:05 GMT', 5000],
    ['Mon, 23 Nov 2026 19:00:00 GMT', 0],
    ['soon', undefined],
    ['', undefined],
  ];
  for (const [value, expected] of table) assert.is(readRetryAfter(value, now), expected, String(value));
});

test.run();
