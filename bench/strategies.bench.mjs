// Rules besides the mean over ten models of 100 MB, Cambium file to file. NumPy has the models in memory already and
// leaves the result there, so it is compared with less work than ours.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { readBareElements, readElements } from './aggregate/elements.mjs';
import { ONE_TENSOR, RESIDUAL_NETWORK, writeInputs } from './aggregate/inputs.mjs';
import {
  benchFolder,
  commandOf,
  compareContenders,
  measure,
  printContenders,
  printGoals,
  secondsOf,
} from './contenders.mjs';
import { printHeader } from './report.mjs';
import { measureQuantisation } from './strategies/quantisation.mjs';

const folder = benchFolder();
const output = join(folder, 'out.npy');
const inputs = await writeInputs(join(folder, 'one'), 10, ONE_TENSOR);
const listed = await writeInputs(join(folder, 'many'), 10, RESIDUAL_NETWORK);
const bytesOf = (list) => list.reduce((sum, { byteLength }) => sum + byteLength, 0);

/** The inputs read and the output's size written, with nothing between. */
const FLOOR = 'floor: read, write, nothing between';

/** Small tensors must not cost reads: what a list of 113 takes for each byte, beside one tensor. */
const MANY_TENSORS = 1.15;

/** Name, rule, function of numpy_rules.py, tolerance, largest share of NumPy's time on two threads. */
const RULES = [
  ['median', { name: 'median' }, 'median', 1e-7, 0.25],
  ['trimmed mean, 10 %', { name: 'trimmed-mean', parameters: { trim: 0.1 } }, 'trimmed', 1e-6, 0.25],
  [
    'multi-Krum, 5 of 10',
    { name: 'multi-krum', parameters: { byzantine: 2, select: 5 } },
    'krum',
    1e-6,
    0.15,
  ],
];
for (const [title, strategy, peer, tolerance, share] of RULES) {
  const cambium = commandOf('aggregate/cambium.mjs');
  const contenders = [
    { name: FLOOR, command: commandOf('aggregate/floor.mjs'), result: false },
    { name: 'Cambium, 1 thread', command: cambium, job: { strategy, threads: 1 } },
    { name: 'Cambium, 2 threads', command: cambium, job: { strategy, threads: 2 } },
    { name: 'NumPy', command: commandOf('strategies/numpy_rules.py', peer), job: { rounds: 3 }, tolerance },
  ];
  if (peer === 'krum') {
    const command = commandOf('strategies/numpy_rules.py', 'krum32');
    contenders.push({
      ...contenders.at(-1),
      name: 'NumPy, distances in float32',
      command,
      tolerance: Infinity,
    });
  }
  const results = await compare(title, contenders);
  const [floor, one, two, numpy] = contenders.map(({ name }) => secondsOf(results, name));
  // Reading and writing are no faster on two threads than the machine is: what is near them has little left to share.
  console.log(
    `${title}: 1 thread takes ${(one / floor).toFixed(2)} × the floor, 2 threads ${(two / floor).toFixed(2)} ×`,
  );
  const many = contenders.slice(1, 3);
  const ofMany = await compare(`${title}, 113 tensors`, many, listed);
  const [, twoOfMany] = many.map(({ name }) => secondsOf(ofMany, name));
  printGoals([
    [`${title}: 2 threads / NumPy`, two / numpy, 'at most', share],
    [`${title}: speed-up from 1 to 2 threads`, one / two, 'at least', 1.6],
    [
      `${title}: 113 tensors / one, 2 threads`,
      twoOfMany / bytesOf(listed) / (two / bytesOf(inputs)),
      'at most',
      MANY_TENSORS,
    ],
  ]);
}
await compareSteps('one tensor', inputs);
await compareSteps('113 tensors', listed);
await measureQuantisation(folder);

/** Measures, checks against the first contender, and prints. */
async function compare(title, contenders, list = inputs) {
  const { results, remarks } = await compareContenders(contenders, { inputs: list, output }, folder, {
    read: ({ tolerance }) => (tolerance === undefined ? readElements(output) : readBareElements(output)),
  });
  printHeader(`${title} of 10 × 100 MB`, ['float32; Cambium from file to file, NumPy in memory']);
  printContenders(results, bytesOf(list), results[0].name === FLOOR ? 'floor' : '1 thread');
  for (const remark of remarks) console.log(remark);
  return results;
}

/** FedAdam: one update, the model and the state in; the new model and the new state out. */
async function compareSteps(title, list) {
  const [model, update] = list;
  const state = join(folder, 'state.safetensors');
  const strategy = { name: 'fedadam', parameters: { learningRate: 0.01 } };
  const job = { inputs: [update], model: model.path, state, strategy };
  const reads = [update, model, model, model].map(({ path }) => path);
  const writes = ['a', 'b', 'c'].map((name) => join(folder, name));
  const step = commandOf('strategies/step.mjs');
  const results = [
    {
      name: 'floor: its reads and writes',
      command: commandOf('aggregate/floor.mjs'),
      job: { ...job, reads, writes },
    },
    { name: 'Cambium, 1 thread', command: step, job: { ...job, threads: 1 } },
    { name: 'Cambium, 2 threads', command: step, job: { ...job, threads: 2 } },
    // NumPy's way does one tensor.
    ...(list === inputs
      ? [
          {
            name: 'NumPy, in memory',
            command: commandOf('strategies/numpy_rules.py', 'adam'),
            job: { inputs: [model, update] },
          },
        ]
      : []),
  ].flatMap((contender) => {
    rmSync(state, { force: true });
    return measure(contender, { output }, folder) ?? [];
  });
  printHeader(`FedAdam step of 25 M parameters, ${title}`, [
    'float32; model and state are replaced durably, file to file',
  ]);
  printContenders(results, 4e8, 'floor');
  const [floor, one, two] = results.map(({ name }) => secondsOf(results, name));
  printGoals([
    [`FedAdam, ${title}: 1 thread / floor`, one / floor, 'at most', 2],
    [`FedAdam, ${title}: 2 threads / floor`, two / floor, 'at most', 2],
  ]);
}
