// int8 in blocks: to encode 25 M numbers, and to decode and fold ten updates of 2.5 M each, on one thread.
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { instantiate } from '@assemblyscript/loader';
import { mulberry32, samples } from '../aggregate/inputs.mjs';
import { commandOf, printGoals, ROUNDS } from '../contenders.mjs';
import { median, ms, printHeader, printTable } from '../report.mjs';

const FLOAT32 = 12; // DTYPE_FLOAT32 in assembly/abi.ts
const MODELS = 10;
const BLOCK = 4096;
const PIECE = 16 * BLOCK; // elements that are decoded and folded at a time
const COUNT = 40 * PIECE;

export async function measureQuantisation(folder) {
  const module = await WebAssembly.compile(
    readFileSync(new URL('../../dist/strategies.wasm', import.meta.url)),
  );
  const { exports: core } = await instantiate(module);
  const { memory } = core;
  let top = Math.ceil(core.arenaBase() / 64) * 64;
  const take = (bytes) => {
    const address = top;
    top += Math.ceil(bytes / 64) * 64 + 64;
    if (top > memory.buffer.byteLength) memory.grow(Math.ceil((top - memory.buffer.byteLength) / 65_536));
    return address;
  };
  const blocks = COUNT / BLOCK;
  const models = Array.from({ length: MODELS }, () => ({
    x: take(4 * COUNT),
    codes: take(COUNT),
    scales: take(4 * blocks),
    zeros: take(blocks),
  }));
  const decoded = models.map(() => take(4 * PIECE));
  const weightings = take(8 * MODELS);
  const plan = take(core.meanPlanBytes(MODELS));
  const table = take(4 * MODELS);
  const out = take(4 * COUNT);
  const uniform = mulberry32(3);
  const all = Buffer.alloc(4 * COUNT * MODELS);
  for (const [i, { x }] of models.entries()) {
    const view = new Float32Array(memory.buffer, x, COUNT);
    for (let j = 0; j < COUNT; j++) view[j] = uniform() - 0.5;
    all.set(new Uint8Array(memory.buffer, x, 4 * COUNT), 4 * COUNT * i);
  }
  new Float64Array(memory.buffer, weightings, MODELS).set(models.map((_, i) => samples(i)));
  new Uint32Array(memory.buffer, table, MODELS).set(decoded);
  if (core.meanPlan(weightings, MODELS, plan) !== 0) throw new Error('no plan');

  const encode = time(() => {
    for (const { x, codes, scales, zeros } of models) core.quantise(x, COUNT, BLOCK, codes, scales, zeros);
  });
  const fold = time(() => {
    for (let start = 0; start < COUNT; start += PIECE) {
      for (const [i, { codes, scales, zeros }] of models.entries()) {
        core.dequantise(codes, scales, zeros, BLOCK, start, PIECE, decoded[i]);
      }
      core.mean(FLOAT32, plan, table, PIECE, out + 4 * start, 0);
    }
  });

  const input = join(folder, 'numbers.bin');
  const result = join(folder, 'mean.bin');
  writeFileSync(input, all);
  const [python, script] = commandOf('strategies/numpy_int8.py');
  const sizes = [MODELS, BLOCK, ROUNDS].map(String);
  const weights = models.map((_, i) => samples(i)).join();
  const peer = spawnSync(python, [script, input, result, ...sizes, weights], { encoding: 'utf8' });
  if (peer.status !== 0) {
    console.error(`NumPy: not measured\n${peer.stderr}`);
    return;
  }
  const theirs = JSON.parse(peer.stdout);
  const expected = new Float32Array(readFileSync(result).buffer);
  const mean = new Float32Array(memory.buffer, out, COUNT);
  for (let i = 0; i < COUNT; i++) {
    if (!(Math.abs(mean[i] - expected[i]) <= 1e-6))
      throw new Error(`element ${i}: ${mean[i]}, NumPy has ${expected[i]}`);
  }
  printHeader(`int8 in blocks of ${BLOCK}: ${MODELS} × ${COUNT} float32 numbers in memory, one thread`, [
    `median of ${ROUNDS} rounds after one warm-up; the means agree to 1e-6`,
  ]);
  const row = (name, ours, numpy) => [
    name,
    ms(median(ours)),
    ms(median(numpy)),
    (median(numpy) / median(ours)).toFixed(1),
  ];
  printTable(
    ['work', 'Cambium ms', 'NumPy ms', 'times faster'],
    [row('quantise', encode, theirs.encode), row('dequantise and fold', fold, theirs.fold)],
  );
  console.log();
  printGoals([
    ['quantise, NumPy / Cambium', median(theirs.encode) / median(encode), 'at least', 3],
    ['dequantise and fold, NumPy / Cambium', median(theirs.fold) / median(fold), 'at least', 3],
  ]);
}

function time(work) {
  work();
  return Array.from({ length: ROUNDS }, () => {
    const startedAt = performance.now();
    work();
    return (performance.now() - startedAt) / 1000;
  });
}
