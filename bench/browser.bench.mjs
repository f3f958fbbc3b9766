// The mean of ten models of 40 MB in headless Chromium, from Blobs to a Blob (or an array): exact on one worker and on two,
// beside TensorFlow.js on its WASM backend and a plain loop, both on the page's thread. All but the first are compared
// with it: sums in binary64 to the last bit of float32, those of TensorFlow.js in float32 to 1e-6.
import { createReadStream, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { chromium } from 'playwright-core';
import { FLAGS, findChromium } from '../.ci/chromium.mjs';
import { encodeWeights } from '../dist/index.js';
import { printGoals } from './contenders.mjs';
import { median, ms, printHeader, printTable } from './report.mjs';

const MODELS = 10;
const ELEMENTS = 10_000_000;
const ROUNDS = 7;
const CONTENDERS = [
  { id: 'cambium-1', name: 'Cambium, exact, one worker', tolerance: 0 },
  { id: 'cambium-2', name: 'Cambium, exact, two workers', tolerance: 0 },
  { id: 'tensorflow', name: 'TensorFlow.js, WASM backend, float32 sums', tolerance: 1e-6 },
  { id: 'javascript', name: 'plain JavaScript, float64 sums', tolerance: 6e-8 },
];

const executablePath = findChromium();
if (executablePath === null) process.exit(0);

const folder = mkdtempSync(join(tmpdir(), 'cambium-bench-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const paths = Array.from({ length: MODELS }, (_, k) => join(folder, `model-${k}.npy`));
const tensors = [{ name: null, dtype: 'float32', shape: [ELEMENTS] }];
const { byteLength, payloads } = await encodeWeights({ format: 'npy-object', weighting: 1, tensors });
let state = 4711;
for (const [k, path] of paths.entries()) {
  const { literals: own } = await encodeWeights({ format: 'npy-object', weighting: k + 1, tensors });
  const values = new Float32Array(ELEMENTS);
  for (let i = 0; i < ELEMENTS; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    values[i] = state / 2 ** 33;
  }
  const bytes = new Uint8Array(byteLength);
  for (const { offset, bytes: literal } of own) bytes.set(literal, offset);
  bytes.set(new Uint8Array(values.buffer), payloads[0].offset);
  writeFileSync(path, bytes);
}

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
const server = createServer((request, response) => {
  const { url = '/' } = request;
  const send = (type, body) => response.writeHead(200, { 'content-type': type }).end(body);
  if (url === '/') return send('text/html', '<!doctype html><script type="module" src="/page.js"></script>');
  if (url === '/page.js') return send(TYPES.js, outputFiles[0].contents);
  const [, folder, file] = /^\/(dist|tfjs)\/([\w.-]+)$/.exec(url) ?? [];
  const path = `${root}${folder === 'dist' ? 'dist' : 'node_modules/@tensorflow/tfjs-backend-wasm/dist'}/${file}`;
  if (file === undefined || !existsSync(path)) return response.writeHead(404).end();
  response.writeHead(200, { 'content-type': TYPES[path.split('.').at(-1)] ?? 'application/octet-stream' });
  createReadStream(path).pipe(response);
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const browser = await chromium.launch({ executablePath, args: FLAGS });
try {
  const page = await browser.newPage();
  page.on('pageerror', (error) => console.error(String(error)));
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.waitForFunction('globalThis.isReady === true');
  await page.locator('input').setInputFiles(paths);
  const place = [payloads[0].offset, 4 * ELEMENTS];
  await page.evaluate(([offset, length]) => globalThis.bench.prepare(offset, length), place);
  const seconds = CONTENDERS.map(() => []);
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [i, { id, name, tolerance }] of CONTENDERS.entries()) {
      const result = await page.evaluate((which) => globalThis.bench.run(which), id);
      if (result.length !== ELEMENTS || !(result.difference <= tolerance)) {
        throw new Error(`${name}: differs by ${result.difference} from the exact mean`);
      }
      if (round > 0) seconds[i].push(result.seconds);
    }
  }
  const bytes = MODELS * ELEMENTS * 4;
  const first = median(seconds[0]);
  printHeader(`mean of ${MODELS} models of ${(ELEMENTS * 4) / 1e6} MB in Chromium ${browser.version()}`, [
    `float32, from Files in the page cache; median of ${ROUNDS} rounds in turn after one warm-up; results compared`,
  ]);
  printTable(
    ['contender', 'median ms', 'min ms', 'GB/s', '× first'],
    CONTENDERS.map(({ name }, i) => [
      name,
      ms(median(seconds[i])),
      ms(Math.min(...seconds[i])),
      (bytes / median(seconds[i]) / 1e9).toFixed(2),
      (median(seconds[i]) / first).toFixed(2),
    ]),
  );
  const [one, two, tensorflow] = seconds.map(median);
  printGoals([
    ['time of one worker in times of TensorFlow.js', one / tensorflow, 'at most', 1],
    ['time of two workers in times of TensorFlow.js', two / tensorflow, 'at most', 1],
  ]);
} finally {
  await browser.close();
  server.close();
}
