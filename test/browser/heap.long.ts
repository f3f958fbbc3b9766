// Models of 100 MB from Blobs: the bits of Node, in a page whose heap stays small, and in a window that keeps no Blob on disk.
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { open as openFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type * as Door from '../../src/browser.ts';
import { encodeWeights } from '../../src/formats/encode.ts';
import type { Jobs } from '../../src/node/jobs.ts';
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
const folder = mkdtempSync(join(tmpdir(), 'cambium-heap-'));
const paths = Array.from({ length: MODELS }, (_, i) => join(folder, `model-${i}.npy`));
const output = join(folder, 'mean.npy');
let browser: Browser;
let jobs: Jobs;

test.before(async () => {
  browser = await launchChromium();
  jobs = startJobs({ workerUrl: new URL('../../dist/worker.js', import.meta.url) });
  for (const [i, path] of paths.entries()) await writeModel(path, i);
});

test.after(async () => {
  await browser?.close();
  await jobs?.close();
  rmSync(folder, { recursive: true });
});

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
  const open = await openPage(browser, SCRIPT);
  try {
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
      assert.is(await resultDigest(page, length), expected.sha256, `${workers} workers`);
    }
    assert.equal(open.complaints, []);
    assert.equal(open.strangers, []);
  } finally {
    await open.close();
  }
});

test('Blobs in memory are averaged where there is no room to copy them', async () => {
  const few = paths.slice(0, 2);
  const expected = await jobs.aggregate({ inputs: few.map((path) => ({ path })), output });
  const open = await openPage(browser, SCRIPT);
  try {
    await open.page.locator('input').setInputFiles(few);
    const actual = await open.page.evaluate(async () => {
      const inputs = [];
      for (const file of document.querySelector('input')!.files!) {
        inputs.push({ blob: new Blob([await file.arrayBuffer()]), leaf: file.name });
      }
      const digests = [];
      for (const workers of [1, 2]) {
        const { blob } = await cambium.aggregateBlobs(inputs, { workers });
        const digest = await crypto.subtle.digest('SHA-256', await blob.arrayBuffer());
        digests.push(
          Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join(''),
        );
      }
      return digests;
    });
    assert.equal(actual, [expected.sha256, expected.sha256]);
  } finally {
    await open.close();
  }
});

/** SHA-256 of the page's result, part by part. */
async function resultDigest(page: Page, length: number): Promise<string> {
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
  return hash.digest('hex');
}

if (hasChromium()) test.run();
