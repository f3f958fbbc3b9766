// The edge door in hosts that have little: a bare context with nothing but the language and WebAssembly, and Bun, whose
// engine is not V8. Both must give Node's bytes for every averaging case of the corpus.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createContext, runInContext } from 'node:vm';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as node from '../src/index.ts';
import { bundleEdge, openBareContext } from './helpers/bare-context.ts';
import { aggregate } from './hosts/aggregate.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const fixtures = `${root}test/fixtures/`;
const { sets } = JSON.parse(readFileSync(`${fixtures}fedavg.json`, 'utf8')) as {
  readonly sets: readonly { readonly set: string; readonly inputs: readonly { readonly file: string }[] }[];
};
const cases = [
  ...sets.map(({ set, inputs }) => ({ set: 'mean', name: set, files: inputs.map(({ file }) => file) })),
  ...['median', 'weighted-median', 'geometric-median'].map((name) => ({
    set: 'strategies',
    name,
    files: sets.find(({ set }) => set === 'sixty-four-leaves')!.inputs.map(({ file }) => file),
    strategy: { name },
  })),
];

const inputsOf = (files: readonly string[]) =>
  files.map((name) => ({ name, bytes: new Uint8Array(readFileSync(`${fixtures}${name}`)) }));

const digest = (result: Uint8Array | string) =>
  typeof result === 'string' ? result : createHash('sha256').update(result).digest('hex');

/** What Node gives, by set and case. */
async function inNode(): Promise<Record<string, Record<string, string>>> {
  const results: Record<string, Record<string, string>> = {};
  for (const { files, set, name, ...rest } of cases) {
    const result = await aggregate(node, { inputs: inputsOf(files), ...rest });
    results[set] = { ...results[set], [name]: digest(result) };
  }
  return results;
}

const expected = await inNode();
const test = suite('edge');

const bundle = await bundleEdge();

test('the door is one file without imports', () => {
  assert.equal(bundle.imports, []);
  assert.not.match(readFileSync(`${root}dist/edge.js`, 'utf8'), /\bfetch\s*\(|\bdocument\.|\batob\b/);
});

test('a bare context has none of what is usual', () => {
  const present = runInContext('Object.getOwnPropertyNames(globalThis).join()', createContext({}));
  for (const name of ['TextDecoder', 'TextEncoder', 'setTimeout', 'atob', 'fetch', 'process', 'Buffer']) {
    assert.not.ok((present as string).split(',').includes(name), name);
  }
});

test('a bare context gives the bytes of Node', async () => {
  const edge = openBareContext(bundle.text);
  for (const { files, set, name, ...rest } of cases) {
    const result = await edge.aggregate(edge, { inputs: inputsOf(files), ...rest });
    // A member of one archive is deflated.
    const wanted = name === 'container-mix' ? 'unavailable-inflate' : expected[set]![name];
    assert.is(digest(result), wanted, `${set}: ${name}`);
  }
});

test('a bare context inspects what Node inspects', async () => {
  const edge = openBareContext(bundle.text);
  for (const name of ['npz/savez.npz', 'safetensors/half.safetensors', 'weights/np1-orders.npy']) {
    const bytes = new Uint8Array(readFileSync(`${fixtures}${name}`));
    const [ours, theirs] = await Promise.all(
      [edge, node].map(async (door) => (await door.openWeights(door.memorySource(bytes, name))).layout),
    );
    assert.is(JSON.stringify(ours), JSON.stringify(theirs));
  }
});

test('a host that forbids WebAssembly is told so', async () => {
  const edge = openBareContext(bundle.text, false);
  const inputs = inputsOf(cases[0]!.files);
  assert.is(await edge.aggregate(edge, { inputs }), 'unavailable-compile');
});

test('Bun gives the bytes of Node', () => {
  const bun = join(root, 'node_modules/.bin/bun');
  if (spawnSync(bun, ['--version']).status !== 0) {
    console.log('SKIPPED (missing peer): Bun; npm install brings it where there is one for the platform');
    return;
  }
  const folder = mkdtempSync(join(tmpdir(), 'cambium-edge-'));
  try {
    const file = join(folder, 'cases.json');
    writeFileSync(
      file,
      JSON.stringify(cases.map((one) => ({ ...one, files: one.files.map((name) => `${fixtures}${name}`) }))),
    );
    const done = spawnSync(bun, ['test/hosts/run.mjs', 'dist/edge.js', file], {
      cwd: root,
      encoding: 'utf8',
    });
    assert.is(done.status, 0, done.stderr);
    assert.equal(JSON.parse(done.stdout), expected);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test.run();
