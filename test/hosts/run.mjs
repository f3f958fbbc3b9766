// Runs cases in this process (Node or Bun) and prints what they gave: node run.mjs DOOR CASES [reversed | shuffled]
// DOOR is a built file, CASES a JSON file of the form that cases.ts writes; paths in it are relative to it.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { aggregate } from './aggregate.mjs';

const [doorFile, casesFile, order] = process.argv.slice(2);
const door = await import(pathToFileURL(resolve(doorFile)));
const folder = dirname(resolve(casesFile));

/** Orders in which inputs arrive; the second is no sorting of anything. */
const ORDERS = {
  reversed: (inputs) => inputs.toReversed(),
  shuffled: (inputs) => inputs.map((_, i) => inputs[(i * 7 + 3) % inputs.length]),
};
const arrange = (inputs) => {
  const arranged = ORDERS[order]?.(inputs) ?? inputs;
  return new Set(arranged).size === inputs.length ? arranged : inputs.toReversed();
};

const results = {};
for (const { set, name, files, nonFinite, strategy } of JSON.parse(readFileSync(casesFile, 'utf8'))) {
  const inputs = files.map((file) => ({
    name: file,
    bytes: new Uint8Array(readFileSync(resolve(folder, file))),
  }));
  const result = await aggregate(door, { inputs: arrange(inputs), nonFinite, strategy });
  results[set] ??= {};
  results[set][name] =
    typeof result === 'string' ? result : createHash('sha256').update(result).digest('hex');
}
console.log(JSON.stringify(results));
