// Resident memory of file-to-file aggregations: it must depend neither on the size of the models nor on their number. The
// files are sparse, so that only the output needs room on the disk; with CAMBIUM_BENCH_LARGE=1 models of 4 GB too.
import { rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { residualNetwork, writeSparseInputs } from './aggregate/inputs.mjs';
import { benchFolder, commandOf, measure, printGoals } from './contenders.mjs';
import { median, printHeader, printTable } from './report.mjs';

const oneTensor = (megabytes) => [[megabytes * 250_000]];
const KRUM = { name: 'multi-krum', parameters: { byzantine: 2, select: 5 } };
const ADAM = { name: 'fedadam', parameters: { learningRate: 0.01 } };

/** `more` is the goal of what a case may take beside the first one, in MB; without one it is `most` that it may take. */
const CASES = [
  { name: 'mean, 10 × 100 MB', count: 10, shapes: oneTensor(100), threads: [1, 2] },
  { name: 'mean, 10 × 100 MB in 113 tensors', count: 10, shapes: residualNetwork(68) },
  { name: 'mean, 10 × 400 MB', count: 10, shapes: oneTensor(400), more: 10 },
  { name: 'mean, 1,000 × 10 MB', count: 1000, shapes: oneTensor(10), threads: [1, 2], more: 10 },
  { name: 'mean, 1,000 × 10 MB in 113 tensors', count: 1000, shapes: residualNetwork(22) },
  { name: 'multi-Krum, 10 × 100 MB', count: 10, shapes: oneTensor(100), strategy: KRUM },
  { name: 'FedAdam, 100 MB, first step', count: 2, shapes: oneTensor(100), strategy: ADAM },
];
if (process.env.CAMBIUM_BENCH_LARGE === '1') {
  // Forty gigabytes do not stay in the page cache, so once is enough.
  CASES.push({ name: 'mean, 10 × 4 GB', count: 10, shapes: oneTensor(4000), more: 10, rounds: 0 });
}
const MOST = 110;

const folder = benchFolder();
const output = join(folder, 'out.npy');
const rows = [];
const goals = [];
let usual;

for (const { name, count, shapes, threads = [2], strategy, more, rounds = 1 } of CASES) {
  const models = join(folder, 'models');
  const inputs = await writeSparseInputs(models, count, shapes);
  for (const number of threads) {
    const contender = { name, command: commandOf('aggregate/cambium.mjs') };
    const state = join(folder, 'state.safetensors');
    const own = strategy === ADAM ? { inputs: inputs.slice(1), model: inputs[0].path, state } : { inputs };
    const job = { ...own, output, threads: number, strategy, rounds: strategy === ADAM ? 0 : rounds };
    const result = measure(contender, job, folder);
    const elements = shapes.reduce((sum, shape) => sum + shape.reduce((a, b) => a * b), 0);
    if (result === undefined || statSync(output).size < 4 * elements) throw new Error(`${name} failed`);
    const megabytes = result.peakBytes / 1e6;
    if (number === 2) {
      usual ??= megabytes;
      if (more === undefined) goals.push([`MB of ${name}, 2 threads`, megabytes, 'at most', MOST]);
      else goals.push([`MB more for ${name}, 2 threads`, megabytes - usual, 'at most', more]);
    }
    const seconds = result.seconds.length === 0 ? '' : median(result.seconds).toFixed(2);
    rows.push([name, number, seconds, megabytes.toFixed(0)]);
  }
  rmSync(models, { recursive: true });
}
printHeader('resident memory, file to file', [
  'the largest size of the process; zeros; seconds of the second round, page cache',
]);
printTable(['rule and inputs', 'threads', 's', 'peak MB'], rows);
console.log();
printGoals(goals);
