// The mean kernel alone, on blocks in the arena: a loop that only reads (the search for NaN), a plain JavaScript fold, the
// exact mean and the same without SIMD, on data of several kinds. GB/s are of input.
import { readFileSync } from 'node:fs';
import { instantiate } from '@assemblyscript/loader';
import { median, printHeader, printTable } from './report.mjs';

const ROUNDS = 15;
const FLOAT32 = 12; // DTYPE_… in assembly/abi.ts
const FLOAT64 = 13;
const PAGE = 65_536;

const [module, scalarModule] = await Promise.all(
  ['core.wasm', 'core.scalar.wasm'].map((file) =>
    WebAssembly.compile(readFileSync(new URL(`../dist/${file}`, import.meta.url))),
  ),
);

let state = 20261123;

/** At least 0 and below 1, always the same numbers (mulberry32). */
function uniform() {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = state;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}

const gauss = () => 0.05 * Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
const samples = () => 100 + Math.floor(4900 * uniform());
const fractions = () => 0.01 + uniform();
const ones = () => 1;
const model = Float64Array.from({ length: PAGE }, gauss);
const nearModel = (i) => model[i] + 0.001 * gauss();
const pruned = () => (uniform() < 0.5 ? 0 : gauss());
const heavyTails = () => Math.tan(3.14 * (uniform() - 0.5)) ** 3;
const cancelling = (big) => (_, j) => [big, gauss(), -big][j];

/** Name, dtype, inputs, elements of each, weighting, and element i of input j. */
const CASES = [
  ['near a common model', FLOAT32, 10, PAGE, samples, nearModel],
  ['near a common model, 2 MiB blocks', FLOAT32, 10, 8 * PAGE, samples, (i) => nearModel(i % PAGE)],
  ['near a common model, equal weights', FLOAT32, 10, PAGE, ones, nearModel],
  ['Gauss', FLOAT32, 10, PAGE, samples, gauss],
  ['Gauss, two equal clients', FLOAT32, 2, PAGE, ones, gauss],
  ['Gauss, three clients', FLOAT32, 3, PAGE, samples, gauss],
  ['Gauss, 100 clients', FLOAT32, 100, 2048, samples, gauss],
  ['Gauss, fractional weights', FLOAT32, 10, PAGE, fractions, gauss],
  ['half of it zero', FLOAT32, 10, PAGE, samples, pruned],
  ['heavy tails', FLOAT32, 10, PAGE, samples, heavyTails],
  ['made to cancel', FLOAT32, 3, PAGE, ones, cancelling(2 ** 60)],
  ['near a common model', FLOAT64, 10, PAGE, samples, nearModel],
  ['near a common model, equal weights', FLOAT64, 10, PAGE, ones, nearModel],
  ['Gauss, two equal clients', FLOAT64, 2, PAGE, ones, gauss],
  ['Gauss, fractional weights', FLOAT64, 10, PAGE, fractions, gauss],
  ['heavy tails', FLOAT64, 10, PAGE, samples, heavyTails],
  ['made to cancel', FLOAT64, 3, PAGE, ones, cancelling(2 ** 100)],
];

function foldInJs(inputs, weightings, total, sums, out) {
  sums.fill(-0);
  for (let j = 0; j < inputs.length; j++) {
    const x = inputs[j];
    const w = weightings[j];
    for (let i = 0; i < x.length; i++) sums[i] += w * x[i];
  }
  for (let i = 0; i < sums.length; i++) out[i] = sums[i] / total;
}

/** Seconds of one run of `work` in each round, after one round that warms up; a round lasts some milliseconds. */
function time(work) {
  const once = performance.now();
  work();
  const repeats = Math.max(1, Math.ceil(4 / (performance.now() - once)));
  const round = () => {
    const startedAt = performance.now();
    for (let n = 0; n < repeats; n++) work();
    return (performance.now() - startedAt) / repeats / 1000;
  };
  round();
  return Array.from({ length: ROUNDS }, round);
}

/** An instance of a module with the inputs of a case in its memory. */
async function prepare(module, ArrayType, weightings, inputs) {
  const k = inputs.length;
  const bytes = inputs[0].byteLength;
  const { exports: core } = await instantiate(module);
  const start = Math.ceil(core.arenaBase() / 16) * 16;
  const plan = start + 8 * k + (k % 2) * 8;
  const table = plan + Math.ceil(core.meanPlanBytes(k) / 16) * 16;
  // A cache line between blocks keeps them from falling into the same cache sets.
  const first = table + Math.ceil(k / 4) * 16;
  const place = (j) => first + j * (bytes + 64);
  core.memory.grow(Math.ceil(place(k + 1) / PAGE));
  const { buffer } = core.memory;
  new Float64Array(buffer, start, k).set(weightings);
  const addresses = inputs.map((_, j) => place(j));
  new Uint32Array(buffer, table, k).set(addresses);
  for (const [j, input] of inputs.entries()) new ArrayType(buffer, addresses[j], input.length).set(input);
  if (core.meanPlan(start, k, plan) !== 0) throw new Error('no plan');
  return { core, plan, table, addresses, out: place(k) };
}

async function measure([name, dtype, k, count, weigh, element]) {
  const ArrayType = dtype === FLOAT32 ? Float32Array : Float64Array;
  const bytes = count * ArrayType.BYTES_PER_ELEMENT;
  const weightings = Float64Array.from({ length: k }, weigh);
  const inputs = Array.from({ length: k }, (_, j) =>
    ArrayType.from({ length: count }, (_, i) => element(i, j)),
  );
  const vectors = await prepare(module, ArrayType, weightings, inputs);
  const scalars = await prepare(scalarModule, ArrayType, weightings, inputs);

  const total = vectors.core.meanTotal(vectors.plan);
  const plain = new ArrayType(count);
  const sums = new Float64Array(count);
  const fold =
    ({ core, plan, table, out }) =>
    () => {
      if (core.mean(dtype, plan, table, count, out, 0) !== 0) throw new Error(`${name}: not finite`);
    };
  const mean = fold(vectors);
  const scalarMean = fold(scalars);
  const read = () => {
    for (const address of vectors.addresses) {
      if (vectors.core.findNonFinite(dtype, address, count, 0) !== -1) throw new Error(`${name}: not finite`);
    }
  };
  const js = () => foldInJs(inputs, weightings, total, sums, plain);

  // The exact means must be the same bytes, and the plain fold must agree as far as it can promise.
  mean();
  scalarMean();
  js();
  const resultOf = ({ core, out }) => Buffer.from(core.memory.buffer, out, bytes);
  if (!resultOf(vectors).equals(resultOf(scalars))) throw new Error(`${name}: other bits without SIMD`);
  const exact = new ArrayType(vectors.core.memory.buffer, vectors.out, count);
  let different = 0;
  for (let i = 0; i < count; i++) {
    const largest = inputs.reduce((most, input) => Math.max(most, Math.abs(input[i])), 0);
    const allowed = largest * k * 2 ** -52 + Math.abs(exact[i]) * 2 ** (dtype === FLOAT32 ? -23 : -52);
    if (!(Math.abs(exact[i] - plain[i]) <= allowed)) {
      throw new Error(`${name}: ${exact[i]} and ${plain[i]} at ${i}`);
    }
    if (!Object.is(exact[i], plain[i])) different++;
  }

  const times = [read, js, mean, scalarMean].map(time);
  const rate = (seconds) => ((k * bytes) / seconds / 1e9).toFixed(1);
  const medians = times.map(median);
  return [
    `${name}, K = ${k}`,
    dtype === FLOAT32 ? 'float32' : 'float64',
    ((k * bytes) / 2 ** 20).toFixed(1),
    ...times.map((rounds, c) => `${rate(medians[c])} / ${rate(Math.min(...rounds))}`),
    (medians[2] / medians[0]).toFixed(1),
    (medians[1] / medians[2]).toFixed(1),
    (medians[3] / medians[2]).toFixed(1),
    ((100 * different) / count).toFixed(2),
  ];
}

const rows = [];
for (const one of CASES) rows.push(await measure(one));
printHeader('Mean kernel, blocks in the arena, one thread', [
  `${ROUNDS} rounds of some 4 ms; GB/s of input, median / best`,
]);
printTable(
  [
    'data',
    'dtype',
    'MiB',
    'read only',
    'plain JS',
    'exact mean',
    'without SIMD',
    'x read',
    'JS / mean',
    'without / with SIMD',
    'JS not exact, %',
  ],
  rows,
);
