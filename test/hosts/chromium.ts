import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type * as Door from '../../src/browser.ts';
import { hasChromium, launchChromium, openPage } from '../helpers/page.ts';
import { type Case, collect, folder, type Row } from './cases.ts';

/** What the page's script puts where `evaluate` finds it. */
declare const cambium: typeof Door;
declare const hosts: typeof import('./aggregate.mjs');
declare const outcomes: typeof import('../browser/outcomes.mjs');

const SCRIPT = `
import * as cambium from '/dist/browser.js';
import * as hosts from '/aggregate.js';
import * as outcomes from '/outcomes.js';
Object.assign(globalThis, { cambium, hosts, outcomes, isReady: true });`;

/** The page's own thread, and its jobs on workers; the second worker starts where there are more than 16 MiB. */
const HOSTS = [
  { host: 'Chromium, main thread', workers: 0 },
  { host: 'Chromium, one worker', workers: 1 },
  { host: 'Chromium, two workers', workers: 2 },
] as const;

/** The cases in headless Chromium, from the built files. No rows where there is none. */
export async function chromiumRows(cases: readonly Case[]): Promise<Row[]> {
  if (!hasChromium()) return [];
  const browser = await launchChromium();
  const script = (name: string) => readFileSync(new URL(name, import.meta.url));
  const files = [...new Set(cases.flatMap((one) => one.files))];
  const addressOf = (file: string) => `/input-${files.indexOf(file)}`;
  const open = await openPage(browser, SCRIPT, {
    extras: {
      '/aggregate.js': script('aggregate.mjs'),
      '/outcomes.js': script('../browser/outcomes.mjs'),
      ...Object.fromEntries(files.map((file) => [addressOf(file), readFileSync(resolve(folder, file))])),
    },
  });
  try {
    const rows: Row[] = [];
    for (const { host, workers } of HOSTS) {
      const digests: string[] = [];
      for (const { files: names, strategy } of cases) {
        const inputs = names.map((name) => ({ name, address: addressOf(name) }));
        digests.push(await open.page.evaluate(aggregateInPage, { inputs, strategy, workers }));
      }
      rows.push({ host, results: collect(cases, digests) });
    }
    if (open.complaints.length > 0) throw new Error(`Chromium complains: ${open.complaints.join('; ')}`);
    return rows;
  } finally {
    await open.close();
    await browser.close();
  }
}

interface PageWork {
  readonly inputs: readonly { readonly name: string; readonly address: string }[];
  readonly strategy: Case['strategy'];
  readonly workers: number;
}

/** Runs in the page. Without workers through the door's parts, as `run.mjs` does it, else by jobs on Blobs. */
async function aggregateInPage({ inputs, strategy, workers }: PageWork): Promise<string> {
  const blobs = await Promise.all(
    // Files: workers share no other Blobs.
    inputs.map(async ({ name, address }) => {
      const blob = await (await fetch(address)).blob();
      return { leaf: name, blob: new File([blob], name) };
    }),
  );
  if (workers > 0) {
    try {
      const { blob } = await cambium.aggregateBlobs(blobs, { strategy, workers });
      return await outcomes.sha256(await blob.arrayBuffer());
    } catch (error) {
      if (!cambium.isCambiumError(error)) throw error;
      return error.code;
    }
  }
  const opened = await Promise.all(
    blobs.map(async ({ leaf, blob }) => ({ name: leaf, bytes: new Uint8Array(await blob.arrayBuffer()) })),
  );
  const result = await hosts.aggregate(cambium, {
    inputs: opened,
    ...(strategy === undefined ? {} : { strategy }),
  });
  return typeof result === 'string' ? result : await outcomes.sha256(result);
}
