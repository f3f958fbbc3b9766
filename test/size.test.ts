// Budgets of what is shipped. The built files are weighed: the core as it is, JavaScript gzipped.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const dist = fileURLToPath(new URL('../dist', import.meta.url));

/** The module goes to edge devices. */
const CORE_BYTES = 24 << 10;

/** The second module holds the mean again, and every other rule. It is loaded when such a rule is used. */
const STRATEGIES_BYTES = 48_000;

/**
 * The built files of the browser door without the core, gzipped one by one, as a page loads them without a bundler: ky and
 * the loader are in them. At once: what is loaded before anything is done.
 */
const BROWSER_BYTES = 50_000;

/** The same with all that is loaded when it is needed: archives, safetensors, rules, transfers, the worker's own. */
const BROWSER_BYTES_IN_ALL = 84_500;

const STATIC = /(?:from|import)\s*['"]([^'"]+)['"]/g;
const STATIC_OR_DYNAMIC = /(?:from|import)\s*\(?\s*['"]([^'"]+)['"]/g;

/** A file and the chunks it imports, with their texts. */
function closure(entry: string, imports: RegExp, seen = new Map<string, string>()): Map<string, string> {
  if (seen.has(entry)) return seen;
  const text = readFileSync(join(dist, entry), 'utf8');
  seen.set(entry, text);
  for (const [, target] of text.matchAll(imports)) {
    if (target!.startsWith('.')) closure(join(entry, '..', target!), imports, seen);
  }
  return seen;
}

/** Bytes of a page's JavaScript without the core, gzipped. */
function gzipped(files: ReadonlyMap<string, string>): number {
  return [...files]
    .filter(([name]) => !/-wasm/.test(name))
    .reduce((sum, [, text]) => sum + gzipSync(text, { level: 9 }).length, 0);
}

/**
 * Pages that bundle what they use. At once: what is loaded before a page meets a format, a rule, a refusal or a request,
 * whose code is loaded on demand, gzipped chunk by chunk; that is all a page needs that averages .npy files. In all: every
 * byte of it in one file. The core is weighed apart; the loader (2.1 kB) and ky (8.4 kB) count, in all but for the codecs.
 */
const PAGES = [
  {
    name: 'codecs',
    doors: ['formats/encode', 'formats/open', 'formats/read', 'formats/write'],
    without: ['@assemblyscript/loader'],
    atOnce: 12_000,
    inAll: 28_000,
  },
  {
    name: 'codecs and aggregation',
    doors: [
      ...['formats/encode', 'formats/open', 'formats/read', 'formats/write'],
      ...['aggregate/average', 'aggregate/aggregation', 'browser/aggregate-blobs', 'browser/pool'],
    ],
    without: [],
    // 20,000 are wanted. The loader is 2,100 of the rest, kernels of rules beyond the mean about as much.
    atOnce: 26_000,
    inAll: 47_500,
  },
  {
    name: 'codecs, aggregation and client',
    doors: [
      ...['formats/encode', 'formats/open', 'formats/read', 'formats/write'],
      ...['aggregate/average', 'aggregate/aggregation', 'browser/aggregate-blobs', 'browser/pool'],
      'client/client',
    ],
    without: [],
    // 30,000 are wanted; a client that has made a request has loaded ky too.
    atOnce: 37_000,
    inAll: 71_000,
  },
] as const;

/** Gzipped bytes of the page: with `split`, of what it loads before it meets a format that is loaded on demand. */
async function pageBytes({ doors, without }: (typeof PAGES)[number], split: boolean): Promise<number> {
  const contents = doors.map((door) => `export * from './src/${door}.ts';`).join('\n');
  const { outputFiles, metafile } = await build({
    stdin: { contents, resolveDir: fileURLToPath(new URL('..', import.meta.url)), loader: 'ts' },
    bundle: true,
    splitting: split,
    minify: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    external: ['*/wasm.ts', '*-wasm.ts', ...without],
    outdir: '.',
    write: false,
    metafile: true,
  });
  const wanted = new Set(
    Object.keys(metafile.outputs).filter((name) => metafile.outputs[name]?.entryPoint === '<stdin>'),
  );
  for (const name of wanted) {
    for (const { kind, path } of metafile.outputs[name]?.imports ?? []) {
      if (kind === 'import-statement' && metafile.outputs[path] !== undefined) wanted.add(path);
    }
  }
  assert.is(wanted.size > 1, split);
  return outputFiles
    .filter(({ path }) => wanted.has(basename(path)))
    .reduce((sum, { contents }) => sum + gzipSync(contents, { level: 9 }).length, 0);
}

/** JavaScript of the edge door, gzipped, without the bytes of the modules in it: all formats and rules, in one file. */
const EDGE_BYTES = 45_500;

const test = suite('size');

test('the modules of the core have no imports and keep their budgets', () => {
  for (const [file, budget] of [
    ['core.wasm', CORE_BYTES],
    ['core.scalar.wasm', CORE_BYTES],
    ['strategies.wasm', STRATEGIES_BYTES],
    ['strategies.scalar.wasm', STRATEGIES_BYTES],
  ] as const) {
    const bytes = readFileSync(join(dist, file));
    const module = new WebAssembly.Module(bytes);
    assert.equal(WebAssembly.Module.imports(module), []);
    console.log(`${file}: ${bytes.length} bytes`);
    assert.ok(bytes.length <= budget, `${file}: ${bytes.length} bytes`);
  }
});

test('the browser door keeps its budget and knows nothing of Node', () => {
  const all = closure('browser.js', STATIC_OR_DYNAMIC);
  for (const [name, text] of all) {
    for (const [, target] of text.matchAll(STATIC_OR_DYNAMIC)) {
      assert.not.match(target!, /^node:/, `${name} imports ${target}`);
      assert.not.ok(builtinModules.includes(target!), `${name} imports ${target}`);
    }
  }
  const atOnce = gzipped(closure('browser.js', STATIC));
  const inAll = gzipped(all);
  console.log(`browser.js without the core, gzipped: ${atOnce} bytes at once, ${inAll} in all`);
  assert.ok(atOnce <= BROWSER_BYTES, `${atOnce} bytes at once`);
  assert.ok(inAll <= BROWSER_BYTES_IN_ALL, `${inAll} bytes in all`);
});

test('the edge door keeps its budget', () => {
  const text = readFileSync(join(dist, 'edge.js'), 'utf8');
  const code = gzipSync(text.replaceAll(/[A-Za-z0-9+/=]{5000,}/g, ''), { level: 9 }).length;
  console.log(`edge.js: ${text.length} bytes, without the core, gzipped: ${code}`);
  assert.ok(code <= EDGE_BYTES, `${code} bytes`);
});

for (const page of PAGES) {
  test(`${page.name}: a page keeps its budget`, async () => {
    const atOnce = await pageBytes(page, true);
    const inAll = await pageBytes(page, false);
    console.log(`${page.name} without the core, gzipped: ${atOnce} bytes at once, ${inAll} in all`);
    assert.ok(atOnce <= page.atOnce, `${atOnce} bytes at once`);
    assert.ok(inAll <= page.inAll, `${inAll} bytes in all`);
  });
}

test('every file of dist is small enough to be looked at', () => {
  const total = readdirSync(dist, { recursive: true, encoding: 'utf8' })
    .map((file) => statSync(join(dist, file)))
    .reduce((sum, stat) => sum + (stat.isFile() ? stat.size : 0), 0);
  console.log(`dist: ${total} bytes`);
  assert.ok(total <= 6_000_000, `${total} bytes`);
});

test.run();
