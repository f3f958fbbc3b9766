/** What arrives in pieces of any size is written in order, in few large writes, and counted only when it is there. */
import { createHash } from 'node:crypto';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { CheckedSink, Sha256 } from '../../src/client/file-access.ts';
import { Receiver } from '../../src/client/receiver.ts';
import { memorySink, memorySource } from '../../src/tensor/bytes.ts';
import { Random, testSeed } from '../helpers/random.ts';

const MiB = 1 << 20;

function startHash(): Sha256 {
  const hash = createHash('sha256');
  return {
    update: (bytes) => void hash.update(bytes),
    copy: startHash,
    digest: () => hash.digest('hex'),
    digestBytes: () => hash.digest(),
  };
}

const sha256Of = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** A sink in memory that writes down its writes and ends each when `release` says so. */
function slowSink(byteLength: number) {
  const memory = memorySink(byteLength);
  const writes: (readonly [number, number])[] = [];
  const releases: ((error?: Error) => void)[] = [];
  const sink: CheckedSink = {
    ...memory,
    readInto: memorySource(memory.bytes).readInto,
    write: (offset, bytes) => {
      writes.push([offset, bytes.byteLength]);
      return new Promise((resolve, reject) => {
        releases.push((error) => {
          if (error !== undefined) return reject(error);
          // Only now: the bytes must have stayed as they were.
          memory.bytes.set(bytes, offset);
          resolve();
        });
      });
    },
  };
  return { sink, bytes: memory.bytes, writes, releases };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

test('every way to cut bytes into chunks gives the same file and digest', async () => {
  const random = new Random(testSeed());
  const bytes = Uint8Array.from({ length: 3 * MiB + 17 }, () => random.integer(0, 255));
  for (const gathers of [true, false]) {
    for (const largest of [70_000, 2.5 * MiB, 4 * MiB]) {
      const memory = memorySink(bytes.byteLength);
      const sink = { ...memory, readInto: memorySource(memory.bytes).readInto };
      const receiver = new Receiver(sink, { startHash, gathers });
      for (let at = 0; at < bytes.byteLength; ) {
        const end = Math.min(bytes.byteLength, at + random.integer(1, largest));
        const pending = receiver.add(bytes.slice(at, end));
        if (pending !== undefined) await pending;
        at = end;
        assert.is(receiver.bytesDone, at);
        assert.ok(receiver.bytesWritten <= at);
      }
      await receiver.settle();
      assert.is(receiver.bytesWritten, bytes.byteLength);
      assert.is(receiver.digest(), sha256Of(bytes));
      assert.is(sha256Of(memory.bytes), sha256Of(bytes));
    }
  }
});

test('one write at a time, in order, and no more memory than two blocks', async () => {
  const bytes = new Uint8Array(6 * MiB).map((_, i) => i >> 12);
  const { sink, bytes: there, writes, releases } = slowSink(bytes.byteLength);
  const receiver = new Receiver(sink, { startHash, gathers: true });
  let added = 0;
  const adding = (async () => {
    for (; added < 6; added++) await receiver.add(bytes.slice(added * MiB, (added + 1) * MiB));
    await receiver.settle();
  })();
  for (let i = 0; i < 6; i++) {
    while (releases.length <= i) await turn();
    await turn();
    assert.is(writes.length, i + 1, 'the next write waits for this one');
    assert.ok(added <= i + 1, `${added} blocks taken, ${i} written`);
    assert.is(receiver.bytesWritten, i * MiB);
    releases[i]!();
  }
  await adding;
  assert.equal(
    writes,
    Array.from({ length: 6 }, (_, i) => [i * MiB, MiB]),
  );
  assert.is(sha256Of(there), sha256Of(bytes));
});

test('of a disk that fills up only what was written counts', async () => {
  const { sink, releases } = slowSink(4 * MiB);
  const receiver = new Receiver(sink, { startHash, gathers: true });
  const full = new Error('no space');
  const failed = (async () => {
    for (let i = 0; i < 4; i++) await receiver.add(new Uint8Array(MiB));
    await receiver.settle();
  })().catch((error: unknown) => error);
  while (releases.length < 1) await turn();
  releases[0]!();
  while (releases.length < 2) await turn();
  releases[1]!(full);
  assert.is(await failed, full);
  assert.is(receiver.bytesWritten, MiB);
  assert.ok(receiver.bytesDone > MiB);
});

test('goes on after bytes that are there, and begins again', async () => {
  const bytes = new Uint8Array(2 * MiB + 5).map((_, i) => i >> 10);
  const memory = memorySink(bytes.byteLength);
  memory.bytes.set(bytes.subarray(0, MiB + 3));
  const sink = { ...memory, readInto: memorySource(memory.bytes).readInto };
  const receiver = new Receiver(sink, { startHash, gathers: true });
  await receiver.resume(MiB + 3, undefined);
  assert.is(receiver.bytesDone, MiB + 3);
  await receiver.add(bytes.slice(MiB + 3));
  await receiver.settle();
  assert.is(receiver.digest(), sha256Of(bytes));
  receiver.restart();
  assert.is(receiver.bytesDone, 0);
  assert.is(receiver.reached, bytes.byteLength);
  await receiver.add(bytes);
  await receiver.settle();
  assert.is(receiver.digest(), sha256Of(bytes));

  const given = new AbortController();
  given.abort(new Error('enough'));
  const stopped = new Receiver(sink, { startHash, gathers: true });
  assert.is(await stopped.resume(MiB, given.signal).catch((error: Error) => error.message), 'enough');
  assert.is(stopped.bytesWritten, MiB, 'what is there stays');
});

test.run();
