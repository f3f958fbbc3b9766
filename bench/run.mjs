// Runs every bench, or those whose names are given: node bench/run.mjs [name …]
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('.', import.meta.url));
const wanted = process.argv.slice(2);
const benches = readdirSync(folder)
  .filter((file) => file.endsWith('.bench.mjs'))
  .filter((file) => wanted.length === 0 || wanted.includes(basename(file, '.bench.mjs')));

if (benches.length === 0) {
  console.error(`no bench is called ${wanted.join(', ')}`);
  process.exit(2);
}
for (const file of benches) {
  const done = spawnSync(process.execPath, [join(folder, file)], { stdio: 'inherit' });
  if (done.status !== 0) process.exit(done.status ?? 1);
}
