// The mean of ten models of 40 MB in headless Chromium beside TensorFlow.js on its WASM backend and a plain loop, which work on
// the page's thread. Three tables: from Files and from fetched Blobs to a Blob with the file of the mean, reads and all; and
// between arrays that the page holds. Who reads Blobs for TensorFlow.js and the loop reads one ahead. All are compared with the
// exact mean first: sums in binary64 to the last bit of float32, those of TensorFlow.js in float32 to 1e-6.
import { createReadStream, existsSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { chromium } from 'playwright-core';
import { FLAGS, findChromium } from '../.ci/chromium.mjs';
import { encodeWeights } from '../dist/index.js';
import { benchFolder, printGoals, ROUNDS } from './contenders.mjs';
import { median, ms, printHeader, printTable } from './report.mjs';

const MODELS = 10;
const ELEMENTS = 10_000_000;
const WEIGHTINGS = Array.from({ length: MODELS }, (_, k) => k + 1);
const PEERS = [
  { id: 'tensorflow', name: 'TensorFlow.js, WASM backend, float32 sums', tolerance: 1e-6 },
  { id: 'javascript', name: 'plain JavaScript, float64 sums', tolerance: 6e-8 },
];
const ON_WORKERS = [
  { id: 'cambium-1', name: 'Cambium, exact, one worker', tolerance: 0 },
  { id: 'cambium-2', name: 'Cambium, exact, two workers', tolerance: 0 },
  { id: 'cambium-cold', name: 'the same, workers started for it', tolerance: 0 },
];
const TABLES = [
  {
    inputs: 'files',
    from: 'from chosen Files (in the page cache) to a Blob',
    contenders: [...ON_WORKERS, ...PEERS],
  },
  {
    inputs: 'fetched',
    from: 'from Blobs of fetched responses to a Blob',
    contenders: [...ON_WORKERS, ...PEERS],
  },
  {
    inputs: 'arrays',
    from: 'from arrays to an array, nothing read or written',
    contenders: [
      { id: 'cambium-average', name: "Cambium, exact, on the page's thread", tolerance: 0 },
      ...PEERS,
    ],
  },
];

const executablePath = findChromium();
if (executablePath === null) process.exit(0);

const folder = benchFolder();
const paths = Array.from({ length: MODELS }, (_, k) => join(folder, `model-${k}.npy`));
const tensors = [{ name: null, dtype: 'float32', shape: [ELEMENTS] }];

/** What an object array with the weighting has around its elements. */
async function formOf(weighting) {
  const { byteLength, literals, payloads } = await encodeWeights({
    format: 'npy-object',
    weighting,
    tensors,
  });
  const [{ offset, byteLength: length }] = payloads;
  const around = new Uint8Array(byteLength - length);
  for (const { offset: at, bytes } of literals) around.set(bytes, at < offset ? at : at - length);
  return { offset, head: around.subarray(0, offset), tail: around.subarray(offset) };
}

let state = 4711;
for (const [k, path] of paths.entries()) {
  const { head, tail } = await formOf(WEIGHTINGS[k]);
  const values = new Float32Array(ELEMENTS);
  for (let i = 0; i < ELEMENTS; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    values[i] = state / 2 ** 33;
  }
  writeFileSync(path, Buffer.concat([head, new Uint8Array(values.buffer), tail]));
}
const { offset, head, tail } = await formOf(WEIGHTINGS.reduce((sum, weighting) => sum + weighting, 0));
const form = { offset, byteLength: 4 * ELEMENTS, head: [...head], tail: [...tail], weightings: WEIGHTINGS };

const root = fileURLToPath(new URL('..', import.meta.url));
const { outputFiles } = await build({
  entryPoints: [`${root}bench/browser/page.mjs`],
  bundle: true,
  format: 'esm',
  platform: 'browser',
  external: ['/dist/browser.js'],
  write: false,
  logLevel: 'error',
});

const TYPES = { js: 'text/javascript', wasm: 'application/wasm' };
const FOLDERS = { dist: `${root}dist`, tfjs: `${root}node_modules/@tensorflow/tfjs-backend-wasm/dist` };
const server = createServer((request, response) => {
  const { url = '/' } = request;
  const send = (type, body) => response.writeHead(200, { 'content-type': type }).end(body);
  if (url === '/') return send('text/html', '<!doctype html><script type="module" src="/page.js"></script>');
  if (url === '/page.js') return send(TYPES.js, outputFiles[0].contents);
  const [, place, file] = /^\/(?:(dist|tfjs)\/)?([\w.-]+)$/.exec(url) ?? [];
  const path = file === undefined ? '' : join(place === undefined ? folder : FOLDERS[place], file);
  if (!existsSync(path)) return response.writeHead(404).end();
  response.writeHead(200, { 'content-type': TYPES[path.split('.').at(-1)] ?? 'application/octet-stream' });
  createReadStream(path).pipe(response);
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));

async function measure(page, { inputs, from, contenders }) {
  await page.evaluate((which) => globalThis.bench.use(which), inputs);
  const seconds = new Map(contenders.map(({ id }) => [id, []]));
  let size;
  for (let round = 0; round <= ROUNDS; round++) {
    for (const { id, name, tolerance } of contenders) {
      const result = await page.evaluate((which) => globalThis.bench.run(which), id);
      size ??= result.byteLength;
      if (result.byteLength !== size || !(result.difference <= tolerance)) {
        throw new Error(
          `${name}: ${result.byteLength} bytes, differs by ${result.difference} from the exact mean`,
        );
      }
      if (round > 0) seconds.get(id).push(result.seconds);
    }
  }
  const bytes = MODELS * ELEMENTS * 4;
  const first = median(seconds.get(contenders[0].id));
  console.log(`${from}:\n`);
  printTable(
    ['contender', 'median ms', 'min ms', 'GB/s', '× first'],
    contenders.map(({ id, name }) => [
      name,
      ms(median(seconds.get(id))),
      ms(Math.min(...seconds.get(id))),
      (bytes / median(seconds.get(id)) / 1e9).toFixed(2),
      (median(seconds.get(id)) / first).toFixed(2),
    ]),
  );
  console.log();
  return (id) => median(seconds.get(id) ?? []);
}

// With a profile on disk, as a user has it: without one Chromium keeps all Blobs in memory and has little room for them.
const context = await chromium.launchPersistentContext(join(folder, 'profile'), {
  executablePath,
  args: FLAGS,
});
try {
  const page = await context.newPage();
  page.on('pageerror', (error) => console.error(String(error)));
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.waitForFunction('globalThis.isReady === true');
  await page.locator('input').setInputFiles(paths);
  await page.evaluate((given) => globalThis.bench.prepare(given), form);
  const version = context.browser()?.version() ?? '';
  printHeader(`mean of ${MODELS} models of ${(ELEMENTS * 4) / 1e6} MB in Chromium ${version}`, [
    `float32; median of ${ROUNDS} rounds in turn after one warm-up; results compared`,
  ]);
  for (const table of TABLES) {
    const of = await measure(page, table);
    printGoals([
      [
        `one worker, ${table.inputs}: time in times of TensorFlow.js`,
        of('cambium-1') / of('tensorflow'),
        'at most',
        1,
      ],
      [
        `two workers, ${table.inputs}: time in times of TensorFlow.js`,
        of('cambium-2') / of('tensorflow'),
        'at most',
        1,
      ],
      [
        "arrays, the page's thread: time in times of TensorFlow.js",
        of('cambium-average') / of('tensorflow'),
        'at most',
        1,
      ],
    ]);
    console.log();
  }
} finally {
  await context.close();
  server.close();
}
