// Resident memory of file-to-file aggregations: it must depend neither on the size of the models nor on their number. The
// files are sparse, so that only the output needs room on the disk; with CAMBIUM_BENCH_LARGE=1 models of 4 GB too.
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { writeSparseInputs } from './aggregate/inputs.mjs';
import { benchFolder, commandOf, measure, printGoals } from './contenders.mjs';
import { median, printHeader, printTable } from './report.mjs';

const MEGABYTE = 250_000; // float32 elements
const CASES = [
  { name: '10 × 100 MB', count: 10, megabytes: 100 },
  { name: '1,000 × 10 MB', count: 1000, megabytes: 10 },
  { name: '10 × 400 MB', count: 10, megabytes: 400 },
];
if (process.env.CAMBIUM_BENCH_LARGE === '1') CASES.push({ name: '10 × 4 GB', count: 10, megabytes: 4000 });

const folder = benchFolder();
const output = join(folder, 'out.npy');
const rows = [];
const peaks = new Map();

for (const { name, count, megabytes } of CASES) {
  const inputs = await writeSparseInputs(folder, count, [[megabytes * MEGABYTE]]);
  for (const threads of [1, 2]) {
    const contender = { name, command: commandOf('aggregate/cambium.mjs') };
    const job = { inputs, output, threads, rounds: 1 };
    const result = measure(contender, job, folder);
    if (result === undefined || statSync(output).size < 4 * megabytes * MEGABYTE)
      throw new Error(`${name} failed`);
    peaks.set(`${name}, ${threads}`, result.peakBytes / 1e6);
    rows.push([name, threads, median(result.seconds).toFixed(2), (result.peakBytes / 1e6).toFixed(0)]);
  }
}
printHeader('resident memory of means, file to file', [
  'the largest size of the process; zeros, page cache, second round',
]);
printTable(['inputs', 'threads', 's', 'peak MB'], rows);
console.log();
const [{ name: usual }, ...others] = CASES;
printGoals([
  [`MB of ${usual}, 2 threads`, peaks.get(`${usual}, 2`), 'at most', 110],
  ...others.map(({ name }) => {
    return [
      `MB more for ${name}, 2 threads`,
      peaks.get(`${name}, 2`) - peaks.get(`${usual}, 2`),
      'at most',
      10,
    ];
  }),
]);
