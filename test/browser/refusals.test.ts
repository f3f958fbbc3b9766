// Hosts that miss something: an error that says what, never half a result.
import type { Browser } from 'playwright-core';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type * as Door from '../../src/browser.ts';
import { hasChromium, launchChromium, openPage } from '../helpers/page.ts';

declare const cambium: typeof Door;

const SCRIPT = `
import * as cambium from '/dist/browser.js';
Object.assign(globalThis, { cambium, isReady: true });`;

const test = suite('browser/refusals');
let browser: Browser;

test.before(async () => {
  browser = await launchChromium();
});

test.after(() => browser?.close());

interface Attempt {
  readonly name: string;
  readonly workers: number;
  readonly expected: readonly [name: string, code: string];
  readonly policy?: string;
  /** Runs in the page before anything else. */
  readonly before?: string;
  /** Address that takes the worker's place. */
  readonly worker?: string;
  /** What the browser itself says on its console: a page cannot keep it from that. */
  readonly says?: RegExp;
}

const NO_WASM = "default-src 'self'; script-src 'self'";
const NO_WORKERS = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'none'";
const REFUSE_MEMORY = 'WebAssembly.Memory.prototype.grow = () => { throw new RangeError("no more"); };';

const ATTEMPTS: readonly Attempt[] = [
  {
    name: 'a policy without wasm-unsafe-eval, on the page',
    workers: 0,
    policy: NO_WASM,
    expected: ['UnavailableError', 'unavailable-compile'],
  },
  {
    name: 'a policy without wasm-unsafe-eval, in a worker',
    workers: 1,
    policy: NO_WASM,
    expected: ['UnavailableError', 'unavailable-compile'],
  },
  {
    name: 'a policy without workers',
    workers: 1,
    policy: NO_WORKERS,
    expected: ['UnavailableError', 'unavailable-worker'],
    says: /worker-src/,
  },
  {
    name: 'a worker that is not there',
    workers: 1,
    worker: '/dist/no-worker.js',
    expected: ['UnavailableError', 'unavailable-worker'],
    says: /404/,
  },
  {
    name: 'a worker that is no script',
    workers: 2,
    worker: '/broken.js',
    expected: ['UnavailableError', 'unavailable-worker'],
  },
  {
    name: 'a worker of another origin',
    workers: 1,
    worker: 'https://example.invalid/worker.js',
    expected: ['UnavailableError', 'unavailable-worker'],
    says: /worker-src|Content Security Policy/,
  },
  {
    name: 'no WebAssembly',
    workers: 0,
    before: 'delete globalThis.WebAssembly;',
    expected: ['UnavailableError', 'unavailable-webassembly'],
  },
  {
    name: 'no memory',
    workers: 0,
    before: REFUSE_MEMORY,
    expected: ['UnavailableError', 'unavailable-memory'],
  },
];

for (const { name, workers, expected, policy, before, worker, says } of ATTEMPTS) {
  test(name, async () => {
    const open = await openPage(browser, SCRIPT, {
      ...(policy === undefined ? {} : { policy }),
      ...(before === undefined ? {} : { before }),
      extras: { '/broken.js': 'import nothing from' },
    });
    try {
      const outcome = await open.page.evaluate(
        async ([count, address]) => {
          const blob = await (await fetch('/test/fixtures/npy/f4-c-2x3.npy')).blob();
          const startWorker =
            address === undefined ? undefined : () => new Worker(address, { type: 'module' });
          try {
            // Enough inputs for an arena that has to grow, and enough bytes for the workers that are asked for.
            const inputs = Array.from({ length: 40 }, (_, i) => ({ blob, leaf: `${i}` }));
            if (count > 1) inputs.push({ blob: new Blob([new Uint8Array(20 << 20)]), leaf: 'large' });
            await cambium.aggregateBlobs(inputs, { workers: count, startWorker });
            return ['nothing', 'nothing'];
          } catch (error) {
            return cambium.isCambiumError(error) ? [error.name, error.code] : [String(error), ''];
          }
        },
        [workers, worker] as const,
      );
      assert.equal(outcome, expected);
      assert.equal(
        open.complaints.filter((text) => says?.test(text) !== true),
        [],
      );
    } finally {
      await open.close();
    }
  });
}

test('a signal ends a job at once, and the next one goes its way', async () => {
  const open = await openPage(browser, SCRIPT);
  try {
    const outcome = await open.page.evaluate(async () => {
      const blob = await (await fetch('/test/fixtures/npy/f4-c-2x3.npy')).blob();
      const seen: string[] = [];
      for (const workers of [0, 1]) {
        const jobs = cambium.startJobs({ workers });
        const controller = new AbortController();
        const reason = new Error('enough');
        const job = jobs.aggregate({ inputs: [{ blob }] }, { signal: controller.signal });
        const next = jobs.aggregate({ inputs: [{ blob }] });
        controller.abort(reason);
        seen.push(
          await job.then(
            () => 'done',
            (error) => (error === reason ? 'aborted' : String(error)),
          ),
        );
        seen.push(await next.then(({ leaves }) => `${leaves} leaf`, String));
        jobs.close();
        seen.push(
          await jobs.aggregate({ inputs: [{ blob }] }).then(
            () => 'done',
            (error) => error.code,
          ),
        );
      }
      return seen;
    });
    const one = ['aborted', '1 leaf', 'internal-closed'];
    assert.equal(outcome, [...one, ...one]);
    assert.equal(open.complaints, []);
  } finally {
    await open.close();
  }
});

if (hasChromium()) test.run();
