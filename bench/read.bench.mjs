// Reading for use, a .npy of 400 MB and a compressed .npz of 40 MB: from the path to the sum of all elements. Each
// contender is a process of its own, one warm-up and then `ROUNDS` timed rounds over a file in the page cache. The elements
// are multiples of 2^-10, so every sum in binary64 is exact and all must agree to the last bit; NumPy's float32 sum is its
// own.
import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { encodeWeights } from '../dist/index.js';
import { median, ms, printHeader, printTable } from './report.mjs';

const ROUNDS = 9;

const folder = mkdtempSync(join(tmpdir(), 'cambium-bench-'));
const input = join(folder, 'input.npy');
const output = join(folder, 'sum.txt');
const job = join(folder, 'job.json');
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

const here = (file) => fileURLToPath(new URL(`./read/${file}`, import.meta.url));
const node = (file) => [process.execPath, here(file)];
const python = (dtype) => [process.env.CAMBIUM_PYTHON ?? '/usr/bin/python3', here('numpy_sum.py'), dtype];

/** `tolerance` is the largest difference, relative to the exact sum, that passes. */
const PLAIN = [
  { name: 'Cambium, layout and 1 MiB blocks', command: node('cambium.mjs'), tolerance: 0 },
  { name: 'npyjs 1.2, view of the whole file', command: node('npyjs.mjs'), tolerance: 0 },
  { name: 'numpy-ts 1.7', command: node('numpy-ts.mjs'), tolerance: 0 },
  { name: 'NumPy, float64 sum', command: python('float64'), tolerance: 0 },
  { name: 'NumPy, float32 sum', command: python('float32'), tolerance: 1e-3 },
];
const DEFLATED = [
  { name: 'Cambium, zlib on threads', command: node('cambium-npz.mjs'), tolerance: 0 },
  { name: 'NumPy, float32 sum', command: python('float32'), tolerance: 1e-3 },
];

await compare('a .npy', 100_000_000, PLAIN, [
  'Cambium reads the next block on a thread of the pool while it sums one: two cores; the others use one',
]);
await compare('a compressed .npz of eight arrays', 10_000_000, DEFLATED, [
  'CPU time is that of all threads; GB/s are of unpacked elements',
]);

async function compare(title, elements, contenders, remarks) {
  const { byteLength, sum } = await writeInput(elements);
  let path = input;
  if (contenders === DEFLATED) {
    path = join(folder, 'input.npz');
    const [command, script] = python('pack');
    const packed = spawnSync(command, [script, 'pack', input, '8', path], { stdio: 'inherit' });
    if (packed.status !== 0) return;
  }
  writeFileSync(job, JSON.stringify({ rounds: ROUNDS, input: path, output }));
  const results = contenders.map((contender) => measure(contender, sum)).filter(Boolean);
  const first = median(results[0].seconds);
  printHeader(`${title} of ${(byteLength / 1e6).toFixed(0)} MB, read and summed`, [
    `${elements} float32 elements; page cache; median of ${ROUNDS} rounds after one warm-up; results agree`,
    ...remarks,
  ]);
  printTable(
    ['contender', 'median ms', 'min ms', 'GB/s', '× Cambium', 'CPU ms', 'peak MB'],
    results.map(({ name, seconds, cpuSeconds, peakBytes }) => [
      name,
      ms(median(seconds)),
      ms(Math.min(...seconds)),
      (byteLength / median(seconds) / 1e9).toFixed(2),
      (median(seconds) / first).toFixed(2),
      ms(cpuSeconds),
      (peakBytes / 1e6).toFixed(0),
    ]),
  );
}

/** Runs a contender; undefined when it is not there. Throws when it has another sum. */
function measure({ name, command, tolerance }, sum) {
  const done = spawnSync(command[0], [...command.slice(1), job], { encoding: 'utf8' });
  if (done.status !== 0) {
    console.error(`${name}: not measured\n${done.error ?? done.stderr}`);
    return undefined;
  }
  const found = Number(readFileSync(output, 'utf8'));
  if (!(Math.abs(found - sum) <= tolerance * Math.abs(sum)))
    throw new Error(`${name} has another sum: ${found}, not ${sum}`);
  return { name, ...JSON.parse(done.stdout.trim().split('\n').at(-1)) };
}

/** Writes the file, and tells the sum of its elements. */
async function writeInput(elements) {
  const encoding = await encodeWeights({
    format: 'npy',
    weighting: null,
    tensors: [{ name: null, dtype: 'float32', shape: [elements] }],
  });
  const file = openSync(input, 'w');
  for (const { offset, bytes } of encoding.literals) writeSync(file, bytes, 0, bytes.length, offset);
  const [{ offset }] = encoding.payloads;
  const block = new Float32Array(1_000_000);
  let state = 7;
  let total = 0;
  for (let done = 0; done < elements; done += block.length) {
    for (let i = 0; i < block.length; i++) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      block[i] = (state >>> 20) / 1024;
      total += block[i];
    }
    writeSync(file, new Uint8Array(block.buffer), 0, block.byteLength, offset + 4 * done);
  }
  closeSync(file);
  return { byteLength: encoding.byteLength, sum: total };
}
