// Runs cases in this process (Node or Bun) and prints what they gave, by set and case: SHA-256 of the output or the code of
// the error.   node run.mjs DOOR CASES [reversed | shuffled | THREADS]
// DOOR is a built file, CASES the file that cases.ts writes; paths in it are relative to it. With a number of threads the
// work is done file to file by the workers of Node's door, else in memory, in three orders of inputs.
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { aggregate } from './aggregate.mjs';

const [doorFile, casesFile, mode = 'in order'] = process.argv.slice(2);
const door = await import(pathToFileURL(resolve(doorFile)));
const folder = dirname(resolve(casesFile));
const threads = Number(mode);

/** Orders in which inputs arrive. */
const ORDERS = {
  'in order': (inputs) => inputs,
  reversed: (inputs) => inputs.toReversed(),
  shuffled: (inputs) => inputs.filter((_, i) => i % 2 === 1).concat(inputs.filter((_, i) => i % 2 === 0)),
};

async function inMemory({ files, nonFinite, strategy }) {
  const inputs = files.map((file) => ({
    name: file,
    bytes: new Uint8Array(readFileSync(resolve(folder, file))),
  }));
  return await aggregate(door, { inputs: ORDERS[mode](inputs), nonFinite, strategy });
}

async function fileToFile(room, { files, nonFinite, strategy }) {
  const output = join(room, 'output.npy');
  const inputs = files.map((file) => ({ path: resolve(folder, file), leaf: file }));
  try {
    await door.aggregateFiles({ inputs, output, nonFinite, strategy, threads });
    return readFileSync(output);
  } catch (error) {
    if (!door.isCambiumError(error)) throw error;
    return error.code;
  }
}

const room = mkdtempSync(join(tmpdir(), 'cambium-hosts-'));
const results = {};
try {
  for (const one of JSON.parse(readFileSync(casesFile, 'utf8'))) {
    const result = await (threads > 0 ? fileToFile(room, one) : inMemory(one));
    const digest = typeof result === 'string' ? result : createHash('sha256').update(result).digest('hex');
    results[one.set] = { ...results[one.set], [one.name]: digest };
  }
} finally {
  rmSync(room, { recursive: true, force: true });
}
console.log(JSON.stringify(results));
