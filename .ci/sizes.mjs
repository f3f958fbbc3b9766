// What is shipped, in bytes, with its budgets: `node .ci/sizes.mjs` (the build too) prints it, test/size.test.ts holds it.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { rollup } from 'rollup';
import { minify } from 'terser';

const dist = fileURLToPath(new URL('../dist', import.meta.url));

/** Modules of the core, as they are: codecs and the mean; the mean and every other rule, loaded when one is used. */
export const MODULES = [
  { file: 'core.wasm', budget: 24_000 },
  { file: 'core.scalar.wasm', budget: 24_000 },
  { file: 'strategies.wasm', budget: 48_000 },
  { file: 'strategies.scalar.wasm', budget: 48_000 },
];

/**
 * Doors as a page loads them without a bundler, files gzipped one by one and without the core. At once: what is loaded before
 * anything is done. In all: with what is loaded when it is needed.
 */
export const DOORS = [
  { file: 'browser.js', atOnce: 35_200, inAll: 105_400 },
  { file: 'browser-worker.js', atOnce: 31_500, inAll: 66_800 },
  { file: 'edge.js', atOnce: 48_000, inAll: 48_000 },
];

const CODECS = ['openWeights', 'readTensors', 'encodeWeights', 'writeWeights'];
const AGGREGATION = ['average', 'Aggregation', 'aggregateBlobs', 'startJobs'];

/**
 * Pages that a bundler makes of the package, without the core, gzipped chunk by chunk: rollup, which drops what a page does not
 * use, and terser. What a page loads at once counts, and chunks of the package that it loads while it does what `loads` says.
 * The loader of the core is in all of them; ky, the HTTP library, arrives with the first request.
 */
export const PAGES = [
  { name: 'reads and writes .npy', imports: CODECS, loads: [], budget: 9_100 },
  {
    name: 'the same, and has met every format',
    imports: CODECS,
    loads: ['npz', 'npz-writer', 'deflate', 'safetensors', 'torch', 'torch-writer', 'latin1', 'encoded'],
    budget: 30_300,
  },
  { name: 'averages Blobs on workers', imports: ['aggregateBlobs', 'startJobs'], loads: [], budget: 10_400 },
  { name: 'codecs and aggregation', imports: [...CODECS, ...AGGREGATION], loads: [], budget: 20_000 },
  {
    name: 'codecs, aggregation and client',
    imports: [...CODECS, ...AGGREGATION, 'Client'],
    loads: [],
    budget: 24_200,
  },
  {
    name: 'the same, and has sent an update and fetched an aggregation',
    imports: [...CODECS, ...AGGREGATION, 'Client'],
    loads: ['connection', 'ky', 'upload', 'download'],
    budget: 48_000,
  },
];

const isCore = (name) => /wasm/.test(name);
const gzipped = (text) => gzipSync(text, { level: 9 }).length;

const STATIC = /(?:from|import)\s*['"]([^'"]+)['"]/g;
const STATIC_OR_DYNAMIC = /(?:from|import)\s*\(?\s*['"]([^'"]+)['"]/g;

/** A built file and those that it imports, with their texts. */
function closure(file, imports, seen = new Map()) {
  if (seen.has(file) || isCore(file)) return seen;
  const text = readFileSync(join(dist, file), 'utf8');
  seen.set(file, text);
  for (const [, target] of text.matchAll(imports)) {
    if (target.startsWith('.')) closure(join(file, '..', target), imports, seen);
  }
  return seen;
}

/** The files of a door without the core, and what they weigh. The core's modules in one of them do not count. */
export function weighDoor({ file }) {
  const weigh = (files) =>
    [...files.values()].reduce(
      (sum, text) => sum + gzipped(text.replaceAll(/[A-Za-z0-9+/=]{5000,}/g, '')),
      0,
    );
  const files = closure(file, STATIC_OR_DYNAMIC);
  return { files, atOnce: weigh(closure(file, STATIC)), inAll: weigh(files) };
}

/** By the names that pages import: the chunks of a page, and what each weighs. Pages that differ in `loads` only share one. */
const pages = new Map();

async function bundlePage(names) {
  const entry = join(dist, 'page.js');
  const bundle = await rollup({
    input: entry,
    // As package.json says: files that a page uses nothing of are left out.
    treeshake: { moduleSideEffects: (id) => id === entry },
    plugins: [
      {
        name: 'page',
        resolveId: (id) => (id === entry ? id : null),
        // A page exports nothing: it would get a file of its own for that.
        load: (id) =>
          id === entry ? `import { ${names} } from './browser.js'; globalThis.page = [${names}];` : null,
      },
    ],
  });
  const { output } = await bundle.generate({ format: 'esm', hoistTransitiveImports: false });
  return output.filter(({ fileName }) => !isCore(fileName)).map((chunk) => ({ chunk, bytes: null }));
}

/** Gzipped bytes of a page that has loaded chunks of the package besides what it starts with. */
export async function weighPage({ imports, loads }) {
  const names = imports.join(', ');
  if (!pages.has(names)) pages.set(names, await bundlePage(names));
  const all = pages.get(names);
  const wanted = new Set(all.filter(({ chunk }) => chunk.isEntry));
  for (const name of loads) {
    const file = join(dist, `browser-${name}.js`);
    const found = all.find(({ chunk }) => chunk.moduleIds.includes(file));
    if (found === undefined) throw new Error(`the page never loads ${file}`);
    wanted.add(found);
  }
  let sum = 0;
  for (const part of wanted) {
    for (const other of all) if (part.chunk.imports.includes(other.chunk.fileName)) wanted.add(other);
    part.bytes ??= gzipped((await minify(part.chunk.code, { module: true, ecma: 2022 })).code);
    sum += part.bytes;
  }
  return sum;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const { file, budget } of MODULES) {
    console.log(`${file}: ${readFileSync(join(dist, file)).length} bytes (${budget} at most)`);
  }
  console.log('without the core, gzipped:');
  for (const door of DOORS) {
    const { atOnce, inAll } = weighDoor(door);
    console.log(`  ${door.file}: ${atOnce} at once (${door.atOnce}), ${inAll} in all (${door.inAll})`);
  }
  for (const page of PAGES) {
    console.log(`  page: ${page.name}: ${await weighPage(page)} (${page.budget})`);
  }
}
