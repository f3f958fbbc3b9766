// npm run fuzz [-- --seconds N] [--target NAME …] [--seed S] [--corpus DIR] [--file INPUT …]
//
// Changes weight files at random and gives them to the readers for N seconds for each target (20 unless given). Inputs
// that did something new are kept in DIR/TARGET (build/fuzz unless given) and begin the next run; inputs for which
// something does not hold are kept in DIR/findings with the error and the seed, and the exit code is 1.
// --file checks single inputs instead.
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { check } from './check.ts';
import { Fuzzer } from './fuzzer.ts';
import { TARGETS, type Target } from './targets.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '20' },
    target: { type: 'string', multiple: true },
    seed: { type: 'string', default: String(Date.now() % 2 ** 32) },
    corpus: { type: 'string', default: fileURLToPath(new URL('../../build/fuzz', import.meta.url)) },
    file: { type: 'string', multiple: true },
  },
});

const nameOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex').slice(0, 16);

async function fuzz(target: Target, seed: number, seconds: number, folder: string): Promise<number> {
  const kept = join(folder, target.name);
  const findings = join(folder, 'findings');
  mkdirSync(kept, { recursive: true });
  const fuzzer = new Fuzzer(target, seed);
  for (const bytes of target.seeds()) await fuzzer.add(bytes);
  for (const file of readdirSync(kept).sort())
    await fuzzer.add(new Uint8Array(readFileSync(join(kept, file))));
  let told = 0;
  for (const endsAt = performance.now() + 1_000 * seconds; performance.now() < endsAt; ) {
    const found = await fuzzer.step();
    if (found !== null) writeFileSync(join(kept, nameOf(found)), found);
    for (const { bytes, error, run } of fuzzer.findings.slice(told)) {
      mkdirSync(findings, { recursive: true });
      const path = join(findings, `${target.name}-${nameOf(bytes)}`);
      writeFileSync(path, bytes);
      const text = error instanceof Error ? String(error.stack) : String(error);
      writeFileSync(`${path}.txt`, `target ${target.name}, seed ${seed}, input ${run}\n${text}\n`);
      console.log(`${path} (input ${run})\n${text}`);
    }
    told = fuzzer.findings.length;
  }
  const { runs, valid, outcomes, corpus, memory } = fuzzer;
  console.log(
    `${target.name}: ${runs} inputs, ${valid} valid, ${outcomes} outcomes, ${corpus} kept, ` +
      `at most ${memory.toFixed(0)} bytes of memory per byte, ${told} findings`,
  );
  return told;
}

if (values.file !== undefined) {
  for (const file of values.file) console.log(file, await check(new Uint8Array(readFileSync(file))));
} else {
  const unknown = values.target?.find((name) => !TARGETS.some((target) => target.name === name));
  if (unknown !== undefined) {
    console.error(`no target ${unknown}; there are ${TARGETS.map(({ name }) => name).join(', ')}`);
    process.exit(2);
  }
  const seed = Number(values.seed);
  console.log(`seed ${seed}`);
  let findings = 0;
  for (const target of TARGETS.filter(({ name }) => values.target?.includes(name) ?? true)) {
    findings += await fuzz(target, seed, Number(values.seconds), values.corpus);
  }
  process.exitCode = findings === 0 ? 0 : 1;
}
