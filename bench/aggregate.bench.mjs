// File-to-file mean of ten models of 100 MB: Cambium against what a user would write instead, and the floor.
// Each contender is a process of its own that does one warm-up and then `ROUNDS` timed rounds over the same files in
// the page cache; beside that, a whole command that does the job once. Results are compared before anything is printed.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ONE_TENSOR, RESIDUAL_NETWORK, writeInputs } from './aggregate/inputs.mjs';
import { median, ms, printHeader, printTable } from './report.mjs';

const ROUNDS = 7;
const MODELS = 10;

const folder = mkdtempSync(join(tmpdir(), 'cambium-bench-'));
const output = join(folder, 'out.npy');
const job = join(folder, 'job.json');
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

const here = (file) => fileURLToPath(new URL(`./aggregate/${file}`, import.meta.url));
const node = (file) => [process.execPath, here(file)];
const python = (...args) => [
  process.env.CAMBIUM_PYTHON ?? '/usr/bin/python3',
  here('numpy_mean.py'),
  ...args,
];

/** `tolerance` is the largest difference from the exact mean that passes; the floor has no result. */
const CONTENDERS = [
  { name: 'floor: read, write, nothing between', command: node('floor.mjs') },
  { name: 'Cambium, exact mean, one thread', command: node('cambium.mjs'), tolerance: 0 },
  { name: 'plain JavaScript, float64 sums', command: node('plain-js.mjs'), tolerance: 0 },
  { name: 'NumPy, float64 sums', command: python('float64'), tolerance: 0 },
  { name: 'NumPy, float32 (as Flower does)', command: python('float32'), tolerance: 1e-6 },
];

await compare('one tensor', ONE_TENSOR);
await compare('the tensors of a residual network', RESIDUAL_NETWORK);

async function compare(title, shapes) {
  const { inputs, payloads, parameters } = await writeInputs(folder, MODELS, shapes);
  const bytes = inputs.reduce((sum, input) => sum + input.byteLength, 0);
  const results = CONTENDERS.map((contender) => measure(contender, inputs, payloads)).filter(Boolean);
  const exact = results.find(({ name }) => name.startsWith('Cambium'))?.result;
  const remarks = results.filter(({ result }) => result !== undefined).map((one) => agree(one, exact));
  printHeader(`mean of ${MODELS} × ${(bytes / MODELS / 1e6).toFixed(0)} MB, file to file: ${title}`, [
    `${parameters} float32 parameters in ${shapes.length} tensors; page cache; median of ${ROUNDS} rounds after one warm-up`,
  ]);
  const floor = median(results[0].seconds);
  printTable(
    ['contender', 'median ms', 'min ms', 'GB/s read', '× floor', 'one command s', 'peak MB'],
    results.map(({ name, seconds, command, peakBytes }) => [
      name,
      ms(median(seconds)),
      ms(Math.min(...seconds)),
      (bytes / median(seconds) / 1e9).toFixed(2),
      (median(seconds) / floor).toFixed(2),
      command.toFixed(2),
      (peakBytes / 1e6).toFixed(0),
    ]),
  );
  console.log();
  for (const remark of remarks) console.log(remark);
}

/** Runs a contender; undefined when it is not there. */
function measure({ name, command, tolerance }, inputs, payloads) {
  const run = (rounds) => {
    writeFileSync(job, JSON.stringify({ rounds, output, inputs }));
    return spawnSync(command[0], [...command.slice(1), job], { encoding: 'utf8' });
  };
  const done = run(ROUNDS);
  if (done.status !== 0) {
    console.error(`${name}: not measured\n${done.error ?? done.stderr}`);
    return undefined;
  }
  const startedAt = performance.now();
  run(0);
  const wholeCommand = (performance.now() - startedAt) / 1000;
  const result = tolerance === undefined ? undefined : elementsOf(readFileSync(output), payloads);
  return {
    name,
    tolerance,
    result,
    command: wholeCommand,
    ...JSON.parse(done.stdout.trim().split('\n').at(-1)),
  };
}

/** The elements of a result, without the container around them. */
function elementsOf(file, payloads) {
  const parts = payloads(file).map(({ offset, byteLength }) => file.subarray(offset, offset + byteLength));
  const bytes = Buffer.concat(parts);
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

/** Compares a result with the exact mean; throws when it is another one. */
function agree({ name, result, tolerance }, exact) {
  let different = 0;
  let largest = 0;
  for (let i = 0; i < exact.length; i++) {
    if (exact[i] === result[i]) continue;
    different++;
    largest = Math.max(largest, Math.abs(exact[i] - result[i]));
  }
  if (result.length !== exact.length || !(largest <= tolerance))
    throw new Error(`${name} has another result`);
  return `${name}: ${different} of ${exact.length} elements differ from the exact mean, by at most ${largest}`;
}
