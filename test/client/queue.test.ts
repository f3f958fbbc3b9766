import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { NoticeQueue, type QueuePolicy } from '../../src/client/queue.ts';
import { UnavailableError } from '../../src/errors.ts';
import { ManualClock } from '../helpers/clock.ts';
import { failsWith } from '../helpers/errors.ts';

function queueOf(policy: QueuePolicy) {
  const clock = new ManualClock();
  const demands: number[] = [];
  return { clock, demands, queue: new NoticeQueue(policy, clock, () => demands.push(1)) };
}

test('a burst: `all` keeps everything in order, `newest` the last', async () => {
  const burst = Array.from({ length: 100 }, (_, i) => `id-${i}`);
  const all = queueOf('all').queue;
  const newest = queueOf('newest').queue;
  for (const id of burst) {
    all.put(id);
    newest.put(id);
  }
  const taken: string[] = [];
  while (!all.empty()) taken.push(await all.get());
  assert.equal(taken, burst);
  assert.is(await newest.get(), 'id-99');
  assert.ok(newest.empty());
});

for (const policy of ['all', 'newest'] as const) {
  test(`${policy}: who waits gets the first, in the order of asking; what comes after them is kept`, async () => {
    const { queue, demands } = queueOf(policy);
    const waiting = [queue.get(), queue.get()];
    assert.is(demands.length, 2);
    for (const id of ['a', 'b', 'c']) queue.put(id);
    assert.equal(await Promise.all(waiting), ['a', 'b']);
    assert.is(await queue.get({ timeoutMs: 0 }), 'c');
    assert.is(demands.length, 2);
  });

  test(`${policy}: puts and takes in every order lose nothing that the policy keeps`, async () => {
    // All words of eight steps over {put, get}: the race of a queue that looks first and takes later.
    for (let word = 0; word < 256; word++) {
      const { queue } = queueOf(policy);
      const gets: Promise<string>[] = [];
      const expected: string[] = [];
      let kept: string[] = [];
      let unanswered = 0;
      for (let step = 0; step < 8; step++) {
        if (word & (1 << step)) {
          const id = `${step}`;
          queue.put(id);
          if (unanswered > 0) {
            unanswered--;
            expected.push(id);
          } else if (policy === 'all') kept.push(id);
          else kept = [id];
        } else {
          const id = kept.shift();
          if (id === undefined) unanswered++;
          else expected.push(id);
          gets.push(queue.get());
        }
      }
      queue.close();
      const outcomes = await Promise.allSettled(gets);
      const taken = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
      assert.equal(taken, expected, `word ${word}`);
    }
  });
}

test('a wait ends in time, and what comes later is not lost', async () => {
  const { clock, queue } = queueOf('all');
  const waiting = queue.get({ timeoutMs: 1000 });
  clock.pass(1000);
  assert.ok((await failsWith('timeout', () => waiting)) instanceof UnavailableError);
  await failsWith('timeout', () => queue.get({ timeoutMs: 0 }));
  queue.put('a');
  assert.is(await queue.get({ timeoutMs: 0 }), 'a');
  assert.is(clock.waiting, 0);
});

test('a wait ends by its signal, and what comes later is not lost', async () => {
  const { clock, queue } = queueOf('all');
  const controller = new AbortController();
  const waiting = queue.get({ signal: controller.signal, timeoutMs: 1000 });
  controller.abort('enough');
  assert.is(await waiting.catch((reason: unknown) => reason), 'enough');
  assert.is(await queue.get({ signal: controller.signal }).catch((reason: unknown) => reason), 'enough');
  queue.put('a');
  assert.is(await queue.get(), 'a');
  assert.is(clock.waiting, 0);
});

test('close ends waits; what is left can still be taken', async () => {
  const { queue } = queueOf('all');
  const waiting = queue.get();
  queue.close();
  await failsWith('client-closed', () => waiting);

  const { queue: full } = queueOf('all');
  full.put('a');
  full.put('b');
  full.close();
  full.put('c');
  const taken: string[] = [];
  for await (const id of full) taken.push(id);
  assert.equal(taken, ['a', 'b']);
  await failsWith('client-closed', () => full.get());
});

test('iteration ends by close, also while waiting, and by break', async () => {
  const { queue } = queueOf('all');
  const iterator = queue[Symbol.asyncIterator]();
  const next = iterator.next();
  queue.close();
  assert.equal(await next, { done: true, value: undefined });

  const { queue: other } = queueOf('all');
  other.put('a');
  other.put('b');
  for await (const id of other) {
    assert.is(id, 'a');
    break;
  }
  assert.is(await other.get(), 'b');
});

test('an iterator that was returned leaves the next id to others', async () => {
  const { queue } = queueOf('all');
  const iterator = queue[Symbol.asyncIterator]();
  const next = iterator.next();
  await iterator.return?.();
  assert.equal(await next, { done: true, value: undefined });
  assert.equal(await iterator.next(), { done: true, value: undefined });
  queue.put('a');
  assert.is(await queue.get({ timeoutMs: 0 }), 'a');
});

test('an error reaches everyone who waits, and only them', async () => {
  const { queue } = queueOf('all');
  const waiting = [queue.get(), queue.get()];
  queue.fail(new UnavailableError('unavailable-server', 'gone'));
  for (const each of waiting) await failsWith('unavailable-server', () => each);
  queue.put('a');
  assert.is(await queue.get(), 'a');
});

test.run();
