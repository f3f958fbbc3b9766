// A round with the page as one leaf and Node as two, over fetch and server-sent events across origins.
import type { Browser } from 'playwright-core';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type * as Door from '../../src/browser.ts';
import { Client } from '../../src/node/client.ts';
import { startJobs } from '../../src/node/workers.ts';
import { tensorOf } from '../../src/tensor/tensor.ts';
import { hasChromium, launchChromium, openPage, STRICT_POLICY } from '../helpers/page.ts';
import { Random } from '../helpers/random.ts';
import { Harness } from '../server/harness.ts';

declare const cambium: typeof Door;
declare let leaf: Door.Client;

const SCRIPT = `
import * as cambium from '/dist/browser.js';
Object.assign(globalThis, { cambium, isReady: true });`;

const test = suite('browser/round');
let browser: Browser;

test.before(async () => {
  browser = await launchChromium();
});

test.after(() => browser?.close());

test('the page uploads, is told, and downloads the exact mean, as Node does', async () => {
  const jobs = startJobs({ workerUrl: new URL('../../dist/worker.js', import.meta.url) });
  const harness = new Harness();
  const clients: Client[] = [];
  // The page's policy names the server of the federation, and that server names the page's origin.
  const policy = async (url: string) => {
    await harness.start({ jobs, corsOrigins: [url] });
    return `${STRICT_POLICY}; connect-src 'self' ${harness.server.url}`;
  };
  const open = await openPage(browser, SCRIPT, { policy });
  try {
    const { leaves } = await harness.branch(3, 3);
    const [own, ...others] = leaves;
    for (const credentials of others) clients.push(new Client(credentials));
    const random = new Random(66);
    const { page } = open;
    await page.evaluate(async (credentials) => {
      leaf = new cambium.Client(credentials);
      await leaf.authenticate();
    }, own!);
    await Promise.all(clients.map((client) => client.authenticate()));

    for (const round of [1, 2]) {
      const values = [0, 1, 2].map(() => Array.from({ length: 1_000 }, () => Math.fround(random.gauss())));
      const told = page.evaluate(
        async ([numbers, weighting]) => {
          const tensors = [cambium.tensorOf(Float32Array.from(numbers))];
          await leaf.fileUpload({ weighting, tensors });
          const id = await leaf.queue.get();
          const { bytes, totalWeighting } = await leaf.fileDownload(id);
          const { tensors: mean } = await cambium.readTensors(cambium.memorySource(bytes));
          return { id, totalWeighting, mean: [...new Float32Array(mean[0]!.data.buffer)] };
        },
        [values[0]!, 5] as const,
      );
      for (const [i, client] of clients.entries()) {
        const tensors = [tensorOf(Float32Array.from(values[i + 1]!))];
        await client.fileUpload({ weighting: 7 * i + 2, tensors }, { round });
      }
      const [here, ...there] = await Promise.all([told, ...clients.map((client) => client.queue.get())]);
      assert.equal(
        there.map((id) => id === here.id),
        [true, true],
      );
      assert.is(here.totalWeighting, 16);
      const { bytes } = await clients[0]!.fileDownload(here.id);
      // The payload is the last thing in the file but for the pickle's end: the same numbers, found another way.
      const payload = Buffer.from(new Float32Array(here.mean).buffer);
      assert.ok(Buffer.from(bytes).includes(payload), `round ${round}`);
    }
    await page.evaluate(() => leaf.close());
    assert.equal(open.complaints, []);
    const { origin } = new URL(harness.server.url);
    assert.equal(
      open.strangers.filter((url) => !url.startsWith(`${origin}/`)),
      [],
    );
    assert.ok(
      open.strangers.some((url) => url.includes('/notices')),
      'notices came by a stream',
    );
  } finally {
    for (const client of clients) await client.close();
    await open.close();
    await harness.end();
    await jobs.close();
  }
});

if (hasChromium()) test.run();
