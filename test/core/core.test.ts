import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openCore } from '../../src/core/core.ts';

const test = suite('core');

test('what a job takes is aligned, apart from other takings, and given back by a scope', async () => {
  const core = await openCore();
  const first = core.take(3);
  const inScope = core.scope(() => core.take(100));
  assert.is(first % 16, 0);
  assert.ok(inScope >= first + 3);
  assert.is(core.take(1), inScope);
  core.close();
});

test('a scope gives back what it took when it throws', async () => {
  const core = await openCore();
  const before = core.free;
  try {
    core.scope(() => {
      core.take(1000);
      throw new Error('on purpose');
    });
  } catch {}
  assert.is(core.free, before);
  core.close();
});

test('an arena is as large as was asked for, and not larger than memory', async () => {
  const core = await openCore(20 << 20);
  core.take(20 << 20);
  assert.throws(
    () => core.take(64 << 20),
    (error: unknown) => error instanceof RangeError,
  );
  core.close();
});

test('a closed instance serves the next job, wiped', async () => {
  const core = await openCore();
  const address = core.take(1000);
  core.bytes(address, 1000).fill(0xa5);
  core.close();
  core.close();
  const next = await openCore();
  assert.is(next, core);
  assert.is(next.take(1000), address);
  assert.ok(next.bytes(address, 1000).every((byte) => byte === 0));
  const other = await openCore();
  assert.is.not(other, next);
  next.close();
  other.close();
});

test('a large instance is not kept', async () => {
  const core = await openCore(20 << 20);
  core.close();
  assert.is.not(await openCore(20 << 20), core);
});

test.run();
