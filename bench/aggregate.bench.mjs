// File-to-file mean of ten models of 100 MB: Cambium against what a user would write instead, and the floor.
// Each contender is a process of its own over the same files in the page cache. Results are compared before anything is
// printed: Cambium's with exact rational arithmetic at random places, those of the peers with Cambium's.
import { join } from 'node:path';
import { checkExact, compareElements, readElements } from './aggregate/elements.mjs';
import { DATA, ONE_TENSOR, RESIDUAL_NETWORK, writeInputs } from './aggregate/inputs.mjs';
import {
  benchFolder,
  commandOf,
  compareContenders,
  measure,
  printContenders,
  printGoals,
  ROUNDS,
  secondsOf,
} from './contenders.mjs';
import { median, printHeader } from './report.mjs';

const MODELS = 10;
const folder = benchFolder();
const output = join(folder, 'out.npy');

const FLOOR = {
  name: 'floor: read, write, nothing between',
  command: commandOf('aggregate/floor.mjs'),
  result: false,
};
const ONE = {
  name: 'Cambium, exact mean, 1 thread',
  command: commandOf('aggregate/cambium.mjs'),
  job: { threads: 1 },
};
const TWO = { ...ONE, name: 'Cambium, exact mean, 2 threads', job: { threads: 2 } };
/** `tolerance` is the largest difference from the exact mean that passes: that of float32 sums. */
const FLOWER = {
  name: "NumPy, Flower's formula",
  command: commandOf('aggregate/numpy_mean.py', 'flower'),
  tolerance: 1e-6,
};
const CAREFUL = {
  name: 'NumPy, one by one, in place',
  command: commandOf('aggregate/numpy_mean.py', 'careful'),
  tolerance: 1e-6,
};
const TORCH = {
  name: 'PyTorch, one by one, in place',
  command: commandOf('aggregate/torch_mean.py'),
  tolerance: 1e-6,
};
const JS = {
  name: 'plain JavaScript, float64 sums',
  command: commandOf('aggregate/plain-js.mjs'),
  tolerance: 0,
};
const PEERS = [JS, FLOWER, CAREFUL, TORCH];

for (const [title, shapes] of [
  ['one tensor', ONE_TENSOR],
  ['the 113 tensors of a residual network', RESIDUAL_NETWORK],
]) {
  const inputs = await writeInputs(folder, MODELS, shapes);
  const results = await compare(title, inputs, [FLOOR, ONE, TWO, ...PEERS]);
  const seconds = (contender) => secondsOf(results, contender.name);
  printGoals([
    ['1 thread / floor', seconds(ONE) / seconds(FLOOR), 'at most', 2.6],
    ['2 threads / floor', seconds(TWO) / seconds(FLOOR), 'at most', 1.4],
    ["Flower's way in NumPy / 2 threads", seconds(FLOWER) / seconds(TWO), 'at least', 8],
    ['careful NumPy / 2 threads', seconds(CAREFUL) / seconds(TWO), 'at least', 3],
    ['PyTorch / 2 threads', seconds(TORCH) / seconds(TWO), 'at least', 2],
    ...peaksOf(results, [ONE, TWO]),
  ]);
  if (shapes !== ONE_TENSOR) continue;
  await variant(
    'equal weightings',
    inputs.map((input) => ({ ...input, weighting: 1 })),
  );
  await variant(
    'fractional weightings',
    inputs.map((input, i) => ({ ...input, weighting: 0.01 + Math.abs(Math.sin(i + 1)) })),
  );
}
await variant('heavy tails', await writeInputs(folder, MODELS, ONE_TENSOR, DATA['heavy tails']));
await checkCancelling();

/** Measures, checks and prints. */
async function compare(title, inputs, contenders) {
  const { results, remarks, elements } = await compareContenders(contenders, { inputs, output }, folder, {
    read: () => readElements(output),
    check: (exact) => checkExact(exact, inputs),
  });
  const bytes = inputs.reduce((sum, { byteLength }) => sum + byteLength, 0);
  printHeader(`mean of ${MODELS} × ${(bytes / MODELS / 1e6).toFixed(0)} MB, file to file: ${title}`, [
    `${elements.length} float32 parameters; page cache; median of ${ROUNDS} rounds after one warm-up`,
  ]);
  printContenders(results, bytes, 'floor');
  for (const remark of remarks) console.log(remark);
  return results;
}

async function variant(title, inputs) {
  const results = await compare(title, inputs, [FLOOR, ONE, TWO]);
  const ratio = secondsOf(results, TWO.name) / secondsOf(results, FLOOR.name);
  printGoals([[`${title}, 2 threads / floor`, ratio, 'at most', 1.7], ...peaksOf(results, [TWO])]);
}

function peaksOf(results, contenders) {
  return contenders.map(({ name }) => {
    const megabytes = (results.find((result) => result.name === name)?.peakBytes ?? Number.NaN) / 1e6;
    return [`resident MB, ${name}`, megabytes, 'at most', 110];
  });
}

/** Updates that cancel leave the third of the one between them: checked, not timed. */
async function checkCancelling() {
  const draws = [
    (uniform) => 2 ** 60 * (1 + uniform()),
    DATA.ordinary,
    (uniform) => -(2 ** 60) * (1 + uniform()),
  ];
  const inputs = [];
  for (const [i, draw] of draws.entries()) {
    const written = await writeInputs(join(folder, `cancelling-${i}`), 1, [[4_000_000]], draw);
    inputs.push(...written.map((input) => ({ ...input, leaf: `${i}` })));
  }
  const expected = (await readElements(inputs[1].path)).map((x) => x / 3);
  const result = measure({ ...TWO, job: { threads: 2, rounds: 1 } }, { inputs, output }, folder);
  const elements = await readElements(output);
  compareElements('Cambium', elements, expected, 0);
  console.log(
    `\ndata that cancel: all ${elements.length} elements are right, at ${((1e9 * median(result.seconds)) / elements.length).toFixed(0)} ns each`,
  );
}
