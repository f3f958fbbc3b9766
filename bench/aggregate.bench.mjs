// File-to-file mean of ten models of 100 MB: Cambium against what a user would write instead, and the floor.
// Each contender is a process of its own that does one warm-up and then `ROUNDS` timed rounds over the same files in
// the page cache; the whole process is timed and weighed beside. Results are compared before anything is printed.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeInputs } from './aggregate/inputs.mjs';
import { median, ms, printHeader, printTable } from './report.mjs';

const ROUNDS = 7;
const MODELS = 10;

const folder = mkdtempSync(join(tmpdir(), 'cambium-bench-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

const python = process.env.CAMBIUM_PYTHON ?? '/usr/bin/python3';
const here = (file) => fileURLToPath(new URL(`./aggregate/${file}`, import.meta.url));

const CONTENDERS = [
  {
    name: 'floor: read, write, nothing between',
    command: [process.execPath, here('floor.mjs')],
    agrees: 'not at all',
  },
  {
    name: 'Cambium, exact mean, one thread',
    command: [process.execPath, here('cambium.mjs')],
    agrees: 'reference',
  },
  {
    name: 'plain JavaScript, float64 sums',
    command: [process.execPath, here('plain-js.mjs')],
    agrees: 'to the bit',
  },
  { name: 'NumPy, float64 sums', command: [python, here('numpy_mean.py'), 'float64'], agrees: 'to the bit' },
  {
    name: 'NumPy, float32 (as Flower does)',
    command: [python, here('numpy_mean.py'), 'float32'],
    agrees: 'nearly',
  },
];

const { inputs, payloads, parameters } = await writeInputs(folder, MODELS);
const bytes = inputs.reduce((sum, input) => sum + input.byteLength, 0);

function run({ name, command }) {
  const output = join(folder, 'out.npy');
  writeFileSync(join(folder, 'job.json'), JSON.stringify({ rounds: ROUNDS, output, inputs }));
  const startedAt = performance.now();
  const done = spawnSync(command[0], [...command.slice(1), join(folder, 'job.json')], { encoding: 'utf8' });
  const wall = (performance.now() - startedAt) / 1000;
  if (done.status !== 0) {
    console.error(`${name}: not measured\n${done.stderr}`);
    return undefined;
  }
  const { seconds, peakBytes } = JSON.parse(done.stdout.trim().split('\n').at(-1));
  return { seconds, peakBytes, wall, result: name.startsWith('floor') ? undefined : payloadsOf(output) };
}

/** The elements of the result, without the container around them (whose weighting differs in type between writers). */
function payloadsOf(path) {
  const file = readFileSync(path);
  return Buffer.concat(
    payloads(file).map(({ offset, byteLength }) => file.subarray(offset, offset + byteLength)),
  );
}

const results = CONTENDERS.map((contender) => ({ ...contender, ...run(contender) }));
const reference = results.find(({ agrees }) => agrees === 'reference').result;
const remarks = [];
for (const { name, agrees, result } of results) {
  if (result === undefined || agrees === 'reference') continue;
  const a = new Float32Array(reference.buffer, reference.byteOffset, reference.byteLength / 4);
  const b = new Float32Array(result.buffer, result.byteOffset, result.byteLength / 4);
  let different = 0;
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    if (a[i] === b[i]) continue;
    different++;
    largest = Math.max(largest, Math.abs(a[i] - b[i]));
  }
  remarks.push(
    `${name}: ${different} of ${a.length} elements differ from the exact mean, by at most ${largest}`,
  );
  if (a.length !== b.length || largest > (agrees === 'nearly' ? 1e-6 : 1e-8))
    throw new Error(`${name} disagrees`);
}

printHeader(`mean of ${MODELS} × ${(bytes / MODELS / 1e6).toFixed(0)} MB, file to file`, [
  `${parameters} float32 parameters in ${inputs[0].tensors} tensors; page cache; median of ${ROUNDS} rounds after one warm-up`,
]);
const floor = median(results[0].seconds);
printTable(
  ['contender', 'median ms', 'min ms', 'GB/s read', '× floor', 'whole process s', 'peak MB'],
  results
    .filter(({ seconds }) => seconds !== undefined)
    .map(({ name, seconds, wall, peakBytes }) => [
      name,
      ms(median(seconds)),
      ms(Math.min(...seconds)),
      (bytes / median(seconds) / 1e9).toFixed(2),
      (median(seconds) / floor).toFixed(2),
      wall.toFixed(2),
      (peakBytes / 1e6).toFixed(0),
    ]),
);
console.log();
for (const remark of remarks) console.log(remark);
