// 10 × 100 MB from Blobs: the bits of Node, in a page whose heap stays small.
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { open as openFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type * as Door from '../../src/browser.ts';
import { encodeWeights } from '../../src/formats/encode.ts';
import { startJobs } from '../../src/node/workers.ts';
import { hasChromium, launchChromium, openPage } from '../helpers/page.ts';
import { Random } from '../helpers/random.ts';

declare const cambium: typeof Door;

const MODELS = 10;
const ELEMENTS = 25_000_000;
const MAX_HEAP = 64e6;

const SCRIPT = `
import * as cambium from '/dist/browser.js';
document.body.append(Object.assign(document.createElement('input'), { type: 'file', multiple: true }));
Object.assign(globalThis, { cambium, isReady: true });`;

const test = suite('browser/heap');

/** A model of one tensor, written block by block. */
async function writeModel(path: string, seed: number): Promise<void> {
  const random = new Random(seed);
  const { literals, payloads } = await encodeWeights({
    format: 'npy-object',
    weighting: seed + 1,
    tensors: [{ name: null, dtype: 'float32', shape: [ELEMENTS] }],
  });
  const file = await openFile(path, 'w');
  for (const { offset, bytes } of literals) await file.write(bytes, 0, bytes.byteLength, offset);
  const block = new Float32Array(1_000_000);
  for (let at = 0; at < ELEMENTS; at += block.length) {
    for (let i = 0; i < block.length; i++) block[i] = (random.bits() - 2 ** 31) * 2 ** -33;
    await file.write(new Uint8Array(block.buffer), 0, block.byteLength, payloads[0]!.offset + 4 * at);
  }
  await file.close();
}

test('ten models of 100 MB take no more heap than small ones', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cambium-heap-'));
  const jobs = startJobs({ workerUrl: new URL('../../dist/worker.js', import.meta.url) });
  const browser = await launchChromium();
  const open = await openPage(browser, SCRIPT);
  try {
    const paths = Array.from({ length: MODELS }, (_, i) => join(folder, `model-${i}.npy`));
    for (const [i, path] of paths.entries()) await writeModel(path, i);
    const output = join(folder, 'mean.npy');
    const expected = await jobs.aggregate({ inputs: paths.map((path) => ({ path })), output });
    const { page } = open;
    await page.locator('input').setInputFiles(paths);

    // What V8 counts for the page: its objects, and buffers and WebAssembly memory besides.
    const session = await page.context().newCDPSession(page);
    let peak = 0;
    const look = async () => {
      const { usedSize, embedderHeapUsedSize, backingStorageSize } = (await session.send(
        'Runtime.getHeapUsage',
      )) as { usedSize: number; embedderHeapUsedSize: number; backingStorageSize: number };
      peak = Math.max(peak, usedSize + embedderHeapUsedSize + backingStorageSize);
    };
    for (const workers of [0, 1, 2]) {
      peak = 0;
      let isRunning = true;
      const aggregating = page
        .evaluate(async (count) => {
          const files = [...document.querySelector('input')!.files!];
          const { blob, bytesRead } = await cambium.aggregateBlobs(
            files.map((file) => ({ blob: file })),
            { workers: count },
          );
          Object.assign(globalThis, { result: blob });
          return { length: blob.size, bytesRead };
        }, workers)
        .finally(() => {
          isRunning = false;
        });
      while (isRunning) await look(); // as often as the page answers
      const { length, bytesRead } = await aggregating;
      assert.is(bytesRead, 4 * ELEMENTS * MODELS);
      console.log(`${workers} workers: the page's heap took ${(peak / 1e6).toFixed(1)} MB at most`);
      assert.ok(peak <= MAX_HEAP, `${peak} bytes`);
      const hash = createHash('sha256');
      for (let at = 0; at < length; at += 8 << 20) {
        const text = await page.evaluate(async (from) => {
          const part = (globalThis as unknown as { result: Blob }).result.slice(from, from + (8 << 20));
          return await new Promise<string>((resolve) => {
            const reader = new FileReader();
            reader.onload = () => resolve(String(reader.result).replace(/^.*,/, ''));
            reader.readAsDataURL(part);
          });
        }, at);
        hash.update(Buffer.from(text, 'base64'));
      }
      assert.is(hash.digest('hex'), expected.sha256, `${workers} workers`);
    }
    assert.equal(open.complaints, []);
    assert.equal(open.strangers, []);
  } finally {
    await open.close();
    await browser.close();
    await jobs.close();
    rmSync(folder, { recursive: true });
  }
});

if (hasChromium()) test.run();
