import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type NoticeMessage, noticesFrom } from '../../src/transport/notices.ts';

const notice = (data: string): NoticeMessage => ({ id: null, type: 't', data });

/** Notices of a carrier that says two things and then waits; what it saw of its end is written down. */
function waiting(seen: string[]) {
  return noticesFrom(async function* read(signal, after) {
    seen.push(`begun after ${after}`);
    try {
      yield notice('a');
      yield notice('b');
      await new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(new Error('torn from its wait')));
      });
    } finally {
      seen.push(signal.aborted ? 'aborted' : 'ended');
    }
  });
}

test('nothing begins before the first step, and each stream begins anew', async () => {
  const seen: string[] = [];
  const notices = waiting(seen);
  const first = notices.open({ after: '7' });
  const second = notices.open();
  assert.equal(seen, []);
  for (const stream of [first, second]) {
    const steps = stream[Symbol.asyncIterator]();
    assert.equal((await steps.next()).value, notice('a'));
    await steps.return?.();
  }
  assert.equal(seen, ['begun after 7', 'aborted', 'begun after null', 'aborted']);
});

test('a wait ends normally with close and with return, and harmlessly again', async () => {
  for (const end of ['close', 'return'] as const) {
    const stream = waiting([]).open();
    const steps = stream[Symbol.asyncIterator]();
    await steps.next();
    await steps.next();
    const waits = steps.next();
    if (end === 'close') stream.close();
    else await steps.return?.();
    assert.is((await waits).done, true, end);
    stream.close();
    assert.is((await steps.next()).done, true, end);
  }
});

test("the reason of the caller's signal is thrown, an own failure as it is", async () => {
  const caller = new AbortController();
  const steps = waiting([]).open({ signal: caller.signal })[Symbol.asyncIterator]();
  await steps.next();
  await steps.next();
  const waits = steps.next();
  const reason = new Error('enough');
  caller.abort(reason);
  assert.is(await waits.catch((error: unknown) => error), reason);

  // biome-ignore lint/correctness/useYield: it fails before it has anything to say
  const failing = noticesFrom(async function* read() {
    throw Object.assign(new Error('no'), { code: 'timeout' });
  });
  const error = await failing
    .open()
    [Symbol.asyncIterator]()
    .next()
    .catch((thrown: unknown) => thrown);
  assert.is((error as { code?: string }).code, 'timeout');
});

test("a stream that is over has let go of the caller's signal", async () => {
  const caller = new AbortController();
  const { signal } = caller;
  const listeners = new Set<unknown>();
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...args: Parameters<typeof add>) => {
    listeners.add(args[1]);
    add(...args);
  };
  signal.removeEventListener = (...args: Parameters<typeof remove>) => {
    listeners.delete(args[1]);
    remove(...args);
  };
  const begun = waiting([]).open({ signal });
  for await (const _ of begun) break;
  const untouched = waiting([]).open({ signal });
  untouched.close();
  assert.is(listeners.size, 0);
});

test.run();
