import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Spool, type SpoolOptions } from '../../../src/server/store/spool.ts';
import { failsWith } from '../../helpers/errors.ts';
import { ToyTimers } from '../harness.ts';

const folder = mkdtempSync(join(tmpdir(), 'cambium-spool-'));
test.after(() => rmSync(folder, { recursive: true }));
test.after.each(() => {
  assert.equal(readdirSync(folder), []);
});

const timers = new ToyTimers();
const spool = (options: Partial<SpoolOptions> = {}) =>
  new Spool(folder, { maxBytes: 1000, idleMs: 60_000, timers, ...options });

test('a body is stored as it came, with its digest, and a small one is held', async () => {
  for (const sizes of [[], [1], [4096], [1, 2, 3], [400, 3696], [400, 3697], [4097], [1, 5000, 3000]]) {
    const chunks = sizes.map((size, i) => Buffer.alloc(size, i + 1));
    const bytes = Buffer.concat(chunks);
    const body = () => Readable.from(chunks, { objectMode: false });
    const larger = spool({ maxBytes: 10_000 });
    for (const arrived of [await larger.receive(body()), await larger.receiveFile(body())]) {
      assert.is(arrived.byteLength, bytes.byteLength);
      assert.is(arrived.sha256, createHash('sha256').update(bytes).digest('hex'));
      if (!('path' in arrived)) {
        assert.ok(bytes.byteLength <= 4096);
        assert.ok(bytes.equals(arrived.bytes));
        assert.is(arrived.bytes.buffer.byteLength, bytes.byteLength); // it is sent to another thread whole
        continue;
      }
      assert.ok(readFileSync(arrived.path).equals(bytes));
      await arrived.remove();
      await arrived.remove();
    }
    assert.is('bytes' in (await larger.receive(body())), bytes.byteLength <= 4096);
    for (const file of readdirSync(folder)) rmSync(join(folder, file));
  }
  assert.equal(timers.waiting, []);
});

test('a large body is brought to the disk while it arrives, a small one later with its name', async () => {
  const MIB = 1 << 20;
  for (const [size, least, most] of [
    [1, 0, 0],
    [15, 0, 0],
    [40, 2, 4],
  ] as const) {
    let flushes = 0;
    let closed = 0;
    const counting = async (...args: Parameters<typeof open>) => {
      const handle = await open(...args);
      const { datasync, close } = handle;
      handle.datasync = () => {
        flushes++;
        return datasync.call(handle);
      };
      handle.close = () => {
        closed++;
        return close.call(handle);
      };
      return handle;
    };
    const chunks = Array.from({ length: size }, () => Buffer.alloc(MIB));
    const spooled = await spool({ maxBytes: 64 * MIB, openFile: counting }).receiveFile(
      Readable.from(chunks, { objectMode: false }),
    );
    await spooled.flushed();
    assert.ok(flushes >= least && flushes <= most, `${flushes} flushes of ${size} MiB`);
    assert.is(closed, 1);
    await spooled.remove();
  }
});

test('a disk that is full when it is flushed is told to whoever waits for it', async () => {
  const failing = async (...args: Parameters<typeof open>) => {
    const handle = await open(...args);
    handle.datasync = async () => {
      throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
    };
    return handle;
  };
  const body = Readable.from([Buffer.alloc(20 << 20)]);
  const spooled = await spool({ maxBytes: 64 << 20, openFile: failing }).receiveFile(body);
  await failsWith('disk-full', () => spooled.flushed());
  await spooled.remove();
});

test('one byte over the limit is refused', async () => {
  await failsWith('upload-too-large', () => spool().receive(Readable.from([Buffer.alloc(1001)])));
  await failsWith('upload-too-large', () => spool().receiveFile(Readable.from([Buffer.alloc(1001)])));
  const larger = spool({ maxBytes: 5000 });
  await failsWith('upload-too-large', () =>
    larger.receive(Readable.from([Buffer.alloc(5000), Buffer.alloc(1)])),
  );
  await failsWith('upload-too-large', () => spool().check(1001));
  await spool().check(1000);
});

test('a body that breaks off is refused', async () => {
  const body = new PassThrough();
  body.write('abc');
  const receiving = spool().receive(body);
  body.destroy();
  await failsWith('upload-incomplete', () => receiving);
  const failing = new PassThrough();
  const reading = spool().receive(failing);
  failing.destroy(new Error('aborted'));
  await failsWith('upload-incomplete', () => reading);
  await failsWith('upload-incomplete', () => spool().receive(failing)); // over before it began
});

test('silence is cut, and every byte breaks it', async () => {
  const body = new PassThrough();
  const receiving = spool().receive(body);
  const waits = async () => {
    while (timers.waiting.length === 0) await new Promise(setImmediate);
  };
  await waits();
  for (let i = 0; i < 3; i++) {
    timers.pass(59_999);
    body.write('x');
    while (timers.waiting[0] !== 60_000) await new Promise(setImmediate);
  }
  timers.pass(60_000);
  await failsWith('upload-idle', () => receiving);
  assert.not.ok(body.destroyed); // the answer still has to go out on it
});

test('a full disk is refused, whether it shows at the start, on the way or in the middle of a write', async () => {
  const disk = (free: number) => async () => ({ total: 10_000, free });
  await failsWith('disk-full', () => spool({ disk: disk(499) }).check(undefined));
  await failsWith('disk-full', () => spool({ disk: disk(600) }).check(101));
  await spool({ disk: disk(600) }).check(100);
  let asked = 0;
  const counted = spool({ maxBytes: 5000, disk: async () => ({ total: 1e9, free: 1e9 - asked++ }) });
  for (let i = 0; i < 2 * 257; i++) await counted.check(4096);
  assert.is(asked, 2); // small bodies ask once in a MiB
  await counted.check(4097);
  await counted.check(undefined);
  assert.is(asked, 4);

  const failing = async (...args: Parameters<typeof open>) => {
    const handle = await open(...args);
    handle.write = async () => {
      throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
    };
    return handle;
  };
  const openFile = failing as typeof open;
  await failsWith('disk-full', () => spool({ openFile }).receiveFile(Readable.from([Buffer.alloc(10)])));

  const big = Readable.from([Buffer.alloc(64 << 20)], { objectMode: false });
  await failsWith('disk-full', () => spool({ maxBytes: 1 << 30, disk: disk(1) }).receive(big));
});

test.run();
