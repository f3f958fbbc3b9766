import type { FileHandle } from 'node:fs/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { WRITEBACK_BYTES, Writeback } from '../../src/node/writeback.ts';

interface Flush {
  end(): void;
  fail(error: Error): void;
}

/** A file whose flushes end when the test says so. */
function slowFile() {
  const flushes: Flush[] = [];
  const datasync = () => new Promise<void>((end, fail) => flushes.push({ end, fail }));
  return { flushes, handle: { datasync } as FileHandle };
}

/** Lets what can go on go on. */
const turn = () => new Promise(setImmediate);

test('one flush at a time, of enough bytes; the rest at the end', async () => {
  const { flushes, handle } = slowFile();
  const writeback = new Writeback();
  const wrote = async (byteLength: number) => {
    writeback.wrote(byteLength, handle);
    await turn();
    return flushes.length;
  };
  assert.is(await wrote(WRITEBACK_BYTES - 1), 0);
  assert.is(await wrote(1), 1);
  assert.is(await wrote(3 * WRITEBACK_BYTES), 1); // the first is under way
  flushes[0]!.end();
  await writeback.idle();
  assert.is(await wrote(1), 2);
  assert.is(await wrote(1), 2);
  let isFinished = false;
  const finishing = writeback.finish(handle).then(() => {
    isFinished = true;
  });
  await turn();
  assert.is(flushes.length, 2);
  flushes[1]!.end();
  await turn();
  assert.equal([flushes.length, isFinished], [3, false]);
  flushes[2]!.end();
  await finishing;
  await writeback.finish(handle); // nothing is left
  assert.is(flushes.length, 3);
});

test('what was there before is flushed too', async () => {
  const { flushes, handle } = slowFile();
  const finishing = new Writeback(1).finish(handle);
  await turn();
  flushes[0]!.end();
  await finishing;
  await new Writeback().finish(handle);
  assert.is(flushes.length, 1);
});

test('a flush that failed is told at the end, however often one asks', async () => {
  const { flushes, handle } = slowFile();
  const writeback = new Writeback(WRITEBACK_BYTES);
  writeback.wrote(1, handle);
  await turn();
  const failure = new Error('no space');
  flushes[0]!.fail(failure);
  await writeback.idle();
  writeback.wrote(WRITEBACK_BYTES, handle);
  for (let i = 0; i < 2; i++) {
    assert.is(await writeback.finish(handle).catch((error: unknown) => error), failure);
  }
  assert.is(flushes.length, 1);
});

test.run();
