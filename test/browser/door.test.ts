// The browser's door in real Chromium, under a strict content security policy: everything comes out as in Node.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser } from 'playwright-core';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type * as Door from '../../src/browser.ts';
import { readTensors } from '../../src/formats/read.ts';
import { type WriteOptions, writeWeights } from '../../src/formats/write.ts';
import type { Jobs } from '../../src/node/jobs.ts';
import { startJobs } from '../../src/node/workers.ts';
import { memorySink, memorySource } from '../../src/tensor/bytes.ts';
import type { ModelUpdate } from '../../src/tensor/tensor.ts';
import { elements } from '../helpers/arbitraries.ts';
import { fixtureBytes, fixtures } from '../helpers/fixtures.ts';
import { hasChromium, launchChromium, type OpenPage, openPage } from '../helpers/page.ts';
import { Random } from '../helpers/random.ts';
import { failure, outcomeOf, sha256 } from './outcomes.mjs';

/** What the page's script puts where `evaluate` finds it. */
declare const cambium: typeof Door;
declare const outcomes: typeof import('./outcomes.mjs');

const SCRIPT = `
import * as cambium from '/dist/browser.js';
import * as outcomes from '/outcomes.js';
Object.assign(globalThis, { cambium, outcomes, isReady: true });`;

const OUTCOMES = readFileSync(new URL('outcomes.mjs', import.meta.url));
const WORKERS = [0, 1, 2];

const test = suite('browser/door');
const folder = mkdtempSync(join(tmpdir(), 'cambium-page-'));
let browser: Browser;
let jobs: Jobs;

test.before(async () => {
  browser = await launchChromium();
  jobs = startJobs({ workerUrl: new URL('../../dist/worker.js', import.meta.url) });
});

test.after(async () => {
  await browser?.close();
  await jobs?.close();
  rmSync(folder, { recursive: true });
});

/** Works with a page, which must not complain, nor ask for anything that is not its own. */
async function withPage(
  work: (open: OpenPage) => Promise<void>,
  { from = browser, ...options }: Parameters<typeof openPage>[2] & { readonly from?: Browser } = {},
): Promise<void> {
  const extras = { '/outcomes.js': OUTCOMES, ...options.extras };
  const open = await openPage(from, SCRIPT, { ...options, extras });
  try {
    await work(open);
    assert.equal(open.complaints, []);
    assert.equal(open.strangers, []);
  } finally {
    await open.close();
  }
}

const manifest = fixtures().map(({ file }) => file);

test('every fixture is read, or refused, as in Node', () =>
  withPage(async ({ page }) => {
    const expected = [];
    for (const file of manifest) {
      expected.push(await outcomeOf({ readTensors }, memorySource(fixtureBytes(file), file)));
    }
    const actual = await page.evaluate(async (files) => {
      const all = [];
      for (const file of files) {
        const blob = await (await fetch(`/test/fixtures/${file}`)).blob();
        all.push(await outcomes.outcomeOf(cambium, cambium.blobSource(blob, file)));
      }
      return all;
    }, manifest);
    for (const [i, file] of manifest.entries()) {
      assert.equal(JSON.stringify(actual[i]), JSON.stringify(expected[i]), file);
    }
  }));

test('every fixture is converted by a worker as by Node', () =>
  withPage(async ({ page }) => {
    for (const format of ['npz', 'safetensors'] as const) {
      const expected = [];
      for (const file of manifest) {
        const input = join(folder, 'input');
        const output = join(folder, 'output');
        writeFileSync(input, fixtureBytes(file));
        try {
          expected.push((await jobs.convert({ input, output, format, weighting: 7 })).sha256);
        } catch (error) {
          expected.push((failure(error) as { code: string }).code);
        }
      }
      const actual = await page.evaluate(
        async ([files, to]) => {
          const all: (string | undefined)[] = [];
          const work = cambium.startJobs({ workers: 1 });
          for (const file of files) {
            const input = await fetch(`/test/fixtures/${file}`);
            try {
              const { blob } = await work.convert({ input, format: to, weighting: 7 });
              all.push(await outcomes.sha256(await blob.arrayBuffer()));
            } catch (error) {
              all.push(cambium.isCambiumError(error) ? error.code : String(error));
            }
          }
          work.close();
          return all;
        },
        [manifest, format] as const,
      );
      for (const [i, file] of manifest.entries()) assert.is(actual[i], expected[i], `${file} to ${format}`);
    }
  }));

/** Six updates with so many are more than 16 MiB, below which jobs take one worker only. */
const FLOATS = 700_003;

/** An update whose floats are finite. */
function randomUpdate(random: Random): ModelUpdate {
  const floats = Float32Array.from({ length: FLOATS }, () => random.gauss());
  const doubles = Float64Array.from({ length: 40_001 }, () => random.gauss());
  return {
    weighting: random.integer(1, 900),
    tensors: [
      { name: 'a', dtype: 'float32', shape: [FLOATS], data: new Uint8Array(floats.buffer) },
      { name: 'b', dtype: 'float64', shape: [40_001], data: new Uint8Array(doubles.buffer) },
      { name: 'c', dtype: 'int16', shape: [3, 5_001], data: elements('int16', [3, 5_001], random.bits()) },
      { name: 'd', dtype: 'bool', shape: [], data: elements('bool', [], random.bits()) },
    ],
  };
}

const FORMS: readonly WriteOptions[] = [
  { format: 'npy-object' },
  { format: 'npz', compress: true },
  { format: 'npz' },
  { format: 'safetensors' },
  { format: 'torch' },
  { format: 'npy-object', align: 64 },
];

const outcomeSha = (path: string) => sha256(readFileSync(path));

async function writeInputs(seed: number): Promise<{ paths: string[]; extras: Record<string, Uint8Array> }> {
  const random = new Random(seed);
  const paths: string[] = [];
  const extras: Record<string, Uint8Array> = {};
  for (const [i, form] of FORMS.entries()) {
    let sink = memorySink(0);
    const open = (byteLength: number) => {
      sink = memorySink(byteLength);
      return sink;
    };
    await writeWeights(open, randomUpdate(random), form);
    const path = join(folder, `input-${i}`);
    writeFileSync(path, sink.bytes);
    paths.push(path);
    extras[`/input-${i}`] = sink.bytes;
  }
  return { paths, extras };
}

const STRATEGIES: readonly { name: string; parameters?: Record<string, number> }[] = [
  { name: 'mean' },
  { name: 'median' },
  { name: 'weighted-median' },
  { name: 'trimmed-mean', parameters: { trim: 0.2 } },
  { name: 'krum', parameters: { byzantine: 1 } },
  { name: 'multi-krum', parameters: { byzantine: 1, select: 3 } },
  { name: 'geometric-median' },
];

test('every rule gives the bytes of Node, on the page and on any number of workers', async () => {
  const { paths, extras } = await writeInputs(6);
  const inputs = paths.map((path, i) => ({ path, leaf: `leaf ${i}` }));
  const output = join(folder, 'mean');
  await withPage(
    async ({ page }) => {
      for (const [i, strategy] of STRATEGIES.entries()) {
        const format = (['npy-object', 'npz', 'safetensors'] as const)[i % 3]!;
        const expected = await jobs.aggregate({ inputs, output, format, strategy, threads: 1 });
        for (const workers of WORKERS) {
          const actual = await page.evaluate(
            async ([count, options]) => {
              // Workers share Files only.
              const all = Array.from({ length: count }, async (_, k) => {
                const response = await fetch(`/input-${k}`);
                const blob = options.workers === 2 ? new File([await response.blob()], '') : response;
                return { blob, leaf: `leaf ${k}` };
              });
              let told = 0;
              const { blob, ...report } = await cambium.aggregateBlobs(await Promise.all(all), {
                ...options,
                onProgress: ({ bytesDone }) => {
                  told = bytesDone;
                },
              });
              return {
                ...report,
                told,
                length: blob.size,
                sha256: await outcomes.sha256(await blob.arrayBuffer()),
              };
            },
            [paths.length, { strategy, format, workers }] as const,
          );
          const what = `${strategy.name} on ${workers} workers`;
          assert.is(actual.sha256, expected.sha256, what);
          assert.is(actual.totalWeighting, expected.totalWeighting, what);
          assert.is(actual.leaves, expected.leaves, what);
          assert.is(actual.told, actual.length, what);
        }
      }
    },
    { extras },
  );
});

const OPTIMISERS = [
  { name: 'fedavgm', parameters: { learningRate: 0.7 } },
  { name: 'fedadam', parameters: { learningRate: 0.01 } },
  { name: 'fedyogi', parameters: { learningRate: 0.01 } },
];

test('optimisers go on from round to round, models and states with the bits of Node', async () => {
  const { paths, extras } = await writeInputs(8);
  const inputs = paths.map((path, i) => ({ path, leaf: `leaf ${i}` }));
  await withPage(
    async ({ page }) => {
      for (const [i, strategy] of OPTIMISERS.entries()) {
        const format = (['npy-object', 'safetensors', 'npz'] as const)[i]!;
        const start = FORMS.findIndex((form) => form.format === format);
        const state = join(folder, `state-${i}`);
        const expected: string[] = [];
        let model = paths[start]!;
        for (let round = 0; round < 3; round++) {
          const output = join(folder, `model-${round}`);
          const leaves = inputs.slice(1 + round, 4 + round);
          await jobs.aggregate({ inputs: leaves, output, format, strategy, model, state, threads: 1 });
          model = output;
          expected.push(await outcomeSha(model), await outcomeSha(state));
        }
        // Three updates are too few for a second worker.
        for (const workers of [0, 1]) {
          const actual = await page.evaluate(
            async ([rule, to, first, count]) => {
              const input = async (k: number) => (await fetch(`/input-${k}`)).blob();
              const seen: string[] = [];
              let [from, kept]: [Blob, Blob | null] = [await input(first), null];
              const work = cambium.startJobs({ workers: count });
              for (let round = 0; round < 3; round++) {
                const leaves = [1, 2, 3].map(async (k) => ({
                  blob: await input(k + round),
                  leaf: `leaf ${k + round}`,
                }));
                const report = await work.aggregate({
                  inputs: await Promise.all(leaves),
                  strategy: rule,
                  format: to,
                  model: from,
                  state: kept,
                });
                from = report.blob;
                kept = report.state!;
                for (const blob of [from, kept]) seen.push(await outcomes.sha256(await blob.arrayBuffer()));
              }
              work.close();
              return seen;
            },
            [strategy, format, start, workers] as const,
          );
          assert.equal(actual, expected, `${strategy.name} on ${workers} workers`);
        }
      }
      const codes = await page.evaluate(async (rule) => {
        const blobs = await Promise.all([0, 1].map(async (k) => (await fetch(`/input-${k}`)).blob()));
        const all = blobs.map((blob) => ({ blob }));
        const [model, other] = blobs as [Blob, Blob];
        const { state } = await cambium.aggregateBlobs(all, {
          strategy: rule,
          format: 'npz',
          model,
          state: null,
        });
        const tries = [{ model }, { state: null }, { model: other, state: state! }, { model, state: other }];
        return await Promise.all(
          tries.map((options) =>
            cambium.aggregateBlobs(all, { strategy: rule, format: 'npz', ...options }).then(
              () => 'done',
              (error) => error.code,
            ),
          ),
        );
      }, OPTIMISERS[1]!);
      assert.equal(codes.slice(0, 3), ['strategy-state-missing', 'strategy-model-missing', 'state-mismatch']);
      assert.match(codes[3]!, /^st-|^not-/, 'no state at all');
    },
    { extras },
  );
});

test('rules hear of each leaf what they want to know', async () => {
  const { paths, extras } = await writeInputs(3);
  const steps: readonly (readonly [string, number])[] = [0, 1].map((k) => [`blob ${k}`, 2 * k + 1]);
  const { sha256 } = await jobs.aggregate({
    inputs: paths.slice(0, 2).map((path, i) => ({ path, leaf: `blob ${i}` })),
    model: paths[2]!,
    output: join(folder, 'fednova'),
    format: 'npz',
    strategy: { name: 'fednova', perLeaf: new Map(steps) },
  });
  await withPage(
    async ({ page }) => {
      const actual = await page.evaluate(async (steps) => {
        const [first, second, model] = await Promise.all(
          [0, 1, 2].map(async (k) => (await fetch(`/input-${k}`)).blob()),
        );
        const { blob } = await cambium.aggregateBlobs([{ blob: first! }, { blob: second! }], {
          strategy: { name: 'fednova', perLeaf: new Map(steps) },
          format: 'npz',
          model: model!,
        });
        return outcomes.sha256(await blob.arrayBuffer());
      }, steps);
      assert.is(actual, sha256);
    },
    { extras },
  );
});

test('a result goes into a file of the origin, whole or not at all', async () => {
  const { paths, extras } = await writeInputs(7);
  const output = join(folder, 'mean');
  const inputs = paths.map((path, i) => ({ path, leaf: `blob ${i}` }));
  const expected = await jobs.aggregate({ inputs, output, format: 'npz', threads: 1 });
  await withPage(
    async ({ page }) => {
      const [sha256, name, unfinished] = await page.evaluate(async (count) => {
        const root = await navigator.storage.getDirectory();
        const responses = await Promise.all(Array.from({ length: count }, (_, k) => fetch(`/input-${k}`)));
        const blobs = await Promise.all(responses.map((response) => response.blob()));
        const file = await root.getFileHandle('mean.npz', { create: true });
        const all = blobs.map((blob) => ({ blob }));
        const { blob } = await cambium.aggregateBlobs(all, { output: file, format: 'npz' });
        const other = await root.getFileHandle('other.npz', { create: true });
        const cut = [...all, { blob: blobs[0]!.slice(0, 1000) }];
        const failed = await cambium
          .aggregateBlobs(cut, { output: other, format: 'npz' })
          .catch((e) => e.code);
        return [
          await outcomes.sha256(await blob.arrayBuffer()),
          (blob as File).name,
          [failed, (await other.getFile()).size],
        ] as const;
      }, paths.length);
      assert.is(sha256, expected.sha256);
      assert.is(name, 'mean.npz');
      assert.equal(unfinished, ['pickle-truncated', 0]);
    },
    { extras },
  );
});

test('streams of Blobs outlive the garbage collector', async () => {
  const { paths, extras } = await writeInputs(9);
  const inputs = paths.map((path, i) => ({ path, leaf: `leaf ${i}` }));
  const expected = await jobs.aggregate({ inputs, output: join(folder, 'mean'), format: 'npz', threads: 1 });
  const collecting = await launchChromium(['--js-flags=--expose-gc']);
  try {
    await withPage(
      async ({ page }) => {
        const actual = await page.evaluate(async (count) => {
          const leaves = Array.from({ length: count }, async (_, k) => ({
            blob: await (await fetch(`/input-${k}`)).blob(),
            leaf: `leaf ${k}`,
          }));
          const { blob } = await cambium.aggregateBlobs(await Promise.all(leaves), {
            format: 'npz',
            workers: 1,
            startWorker: () => new Worker('/collecting.js', { type: 'module' }),
            signal: AbortSignal.timeout(200_000), // a stream that is lost never ends
          });
          return outcomes.sha256(await blob.arrayBuffer());
        }, paths.length);
        assert.is(actual, expected.sha256);
      },
      {
        extras: { ...extras, '/collecting.js': "import '/dist/browser-worker.js'; setInterval(gc, 1);" },
        from: collecting,
      },
    );
  } finally {
    await collecting.close();
  }
});

test('the core is compiled from its file where the server gives it the right type', () =>
  withPage(async ({ page, server }) => {
    const counted = () => server.requests.filter((line) => line.endsWith('core.wasm')).length;
    const length = (core: string) =>
      page.evaluate(async (url) => {
        const blob = await (await fetch('/test/fixtures/weights/np1-int.npy')).blob();
        const work = cambium.startJobs({ workers: 1, core: { core: url } });
        const report = await work.aggregate({ inputs: [{ blob }] });
        work.close();
        return report.blob.size;
      }, core);
    const streamed = await length('/dist/core.wasm');
    assert.is(counted(), 1);
    const inside = () => server.requests.filter((line) => line.includes('core-wasm')).length;
    assert.is(inside(), 0, 'the bytes inside are not loaded then');
    assert.is(await length('/dist/browser.js'), streamed, 'a file of another type');
    assert.is(inside(), 1);
  }));

if (hasChromium()) test.run();
