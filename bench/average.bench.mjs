// The mean of arrays that are in memory already, one thread: copies into the core and out of it are part of the work.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { checkExact, compareElements } from './aggregate/elements.mjs';
import { writeInputs } from './aggregate/inputs.mjs';
import {
  benchFolder,
  commandOf,
  measure,
  printContenders,
  printGoals,
  ROUNDS,
  secondsOf,
} from './contenders.mjs';
import { printHeader } from './report.mjs';

const MODELS = 10;
const PARAMETERS = 10_000_000;
const CONTENDERS = [
  { name: 'Cambium, exact mean', command: commandOf('average/cambium.mjs') },
  { name: 'plain JavaScript, float64 sums', command: commandOf('average/plain-js.mjs'), tolerance: 0 },
  {
    name: "NumPy, Flower's formula",
    command: commandOf('average/numpy_average.py', 'flower'),
    tolerance: 1e-6,
  },
  {
    name: 'NumPy, best float32 loop',
    command: commandOf('average/numpy_average.py', 'best'),
    tolerance: 1e-6,
  },
  { name: 'TensorFlow.js, WASM', command: commandOf('average/tensorflow.mjs', 'wasm'), tolerance: 1e-6 },
  {
    name: 'TensorFlow.js, CPU',
    command: commandOf('average/tensorflow.mjs', 'cpu'),
    tolerance: 1e-6,
    job: { rounds: 3 },
  },
];

const folder = benchFolder();
const output = join(folder, 'mean.bin');
const inputs = await writeInputs(folder, MODELS, [[PARAMETERS]]);
const results = [];
const remarks = [];
let exact;
for (const contender of CONTENDERS) {
  const result = measure(contender, { inputs, output }, folder);
  if (result === undefined) continue;
  results.push(result);
  const bytes = readFileSync(output);
  const elements = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  if (exact === undefined) {
    await checkExact(elements, inputs);
    exact = elements;
  } else remarks.push(compareElements(contender.name, elements, exact, contender.tolerance));
}

printHeader(`mean of ${MODELS} arrays of ${PARAMETERS} float32 numbers in memory`, [
  `one thread; median of ${ROUNDS} rounds after one warm-up (TensorFlow.js on the CPU: 3)`,
]);
printContenders(results, 4 * MODELS * PARAMETERS, 'Cambium');
for (const remark of remarks) console.log(remark);
const [cambium, , flower, best, wasm, cpu] = CONTENDERS.map(({ name }) => secondsOf(results, name));
printGoals([
  ["Flower's formula in NumPy / Cambium", flower / cambium, 'at least', 1],
  ["NumPy's best float32 loop / Cambium", best / cambium, 'at least', 0.9],
  ['TensorFlow.js WASM / Cambium', wasm / cambium, 'at least', 1],
  ['TensorFlow.js CPU / Cambium', cpu / cambium, 'at least', 1],
]);
