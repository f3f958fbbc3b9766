// Runs contenders, each as a process of its own (bench/peers/contend.* is the frame inside), and sets goals beside figures.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compareElements } from './aggregate/elements.mjs';
import { median, ms, printTable } from './report.mjs';

/** Timed rounds of a contender, after one that warms up. */
export const ROUNDS = 7;

const PYTHON = process.env.CAMBIUM_PYTHON ?? '/usr/bin/python3';
const here = (file) => fileURLToPath(new URL(file, import.meta.url));

/** What starts a contender, by its file below bench/. */
export function commandOf(file, ...args) {
  return [file.endsWith('.py') ? PYTHON : process.execPath, here(`./${file}`), ...args];
}

/** A folder that goes when the process does. CAMBIUM_BENCH_FOLDER is where it is made: it has to be a disk with room. */
export function benchFolder() {
  const folder = mkdtempSync(join(process.env.CAMBIUM_BENCH_FOLDER ?? tmpdir(), 'cambium-bench-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/**
 * Runs one contender on a job; undefined (and a remark) when it is not there.
 *
 * @param contender `command`; `job` and `environment`: what it has besides the common job and the environment of this process
 */
export function measure({ name, command, job: own = {}, environment = {} }, job, folder) {
  const path = join(folder, 'job.json');
  writeFileSync(path, JSON.stringify({ rounds: ROUNDS, ...job, ...own }));
  const env = {
    ...process.env,
    PYTHONPATH: here('./peers'),
    PYTHONDONTWRITEBYTECODE: '1',
    ...environment,
  };
  const done = spawnSync(command[0], [...command.slice(1), path], { encoding: 'utf8', env });
  if (done.status !== 0) {
    console.error(`${name}: not measured\n${done.error ?? done.stderr}`);
    return undefined;
  }
  return { name, ...JSON.parse(done.stdout.trim().split('\n').at(-1)) };
}

/**
 * Measures contenders on one job, each against the first one that has a result.
 *
 * A contender may have a `tolerance`, the largest difference between elements that passes (none unless given), and a floor
 * says `result: false`.
 *
 * @param read gives the elements of the result of a contender, which it left at `job.output`
 * @param check throws unless these elements, those of the first one, are right
 * @returns what `measure` gave, the remarks of the comparisons, and the elements of the first one
 */
export async function compareContenders(contenders, job, folder, { read, check = () => {} }) {
  const results = [];
  const remarks = [];
  let elements;
  for (const contender of contenders) {
    const result = measure(contender, job, folder);
    if (result === undefined) continue;
    results.push(result);
    if (contender.result === false) continue;
    const own = await read(contender);
    if (elements === undefined) {
      await check(own);
      elements = own;
    } else remarks.push(compareElements(contender.name, own, elements, contender.tolerance ?? 0));
  }
  return { results, remarks, elements };
}

/** Prints what was measured, the first contender being what the others are compared with. */
export function printContenders(results, bytes, against) {
  const first = median(results[0].seconds);
  printTable(
    ['contender', 'median ms', 'min ms', 'GB/s', `× ${against}`, 'CPU ms', '× CPU', 'peak MB'],
    results.map(({ name, seconds, cpuSeconds, peakBytes }) => [
      name,
      ms(median(seconds)),
      ms(Math.min(...seconds)),
      (bytes / median(seconds) / 1e9).toFixed(2),
      (median(seconds) / first).toFixed(2),
      ms(cpuSeconds),
      (cpuSeconds / results[0].cpuSeconds).toFixed(2),
      (peakBytes / 1e6).toFixed(0),
    ]),
  );
  console.log();
}

/** Prints goals: `[what, value, 'at most' | 'at least', limit]`. A goal whose figure is missing is left out. */
export function printGoals(goals) {
  for (const [what, value, sense, limit] of goals) {
    if (!Number.isFinite(value)) continue;
    const met = sense === 'at most' ? value <= limit : value >= limit;
    const off = met ? 'met' : `MISSED by ${Math.abs(100 * (value / limit - 1)).toFixed(0)} %`;
    console.log(`goal: ${what} ${sense} ${limit}: ${value.toFixed(value < 0.1 ? 3 : 2)}, ${off}`);
  }
}

/** Median seconds of a contender by name, NaN where it was not measured. */
export function secondsOf(results, name) {
  const found = results.find((result) => result.name === name);
  return found === undefined ? Number.NaN : median(found.seconds);
}
