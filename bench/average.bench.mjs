// The mean of arrays that are in memory already, one thread: copies into the core and out of it are part of the work.
import { join } from 'node:path';
import { checkExact, readBareElements } from './aggregate/elements.mjs';
import { residualNetwork, writeInputs } from './aggregate/inputs.mjs';
import {
  benchFolder,
  commandOf,
  compareContenders,
  printContenders,
  printGoals,
  ROUNDS,
  secondsOf,
} from './contenders.mjs';
import { printHeader } from './report.mjs';

const MODELS = 10;
const CASES = [
  ['one tensor', [[10_000_000]]],
  ['the 113 tensors of a residual network', residualNetwork(43)],
];

/** `tolerance` is that of float32 sums. */
const FLOAT32_SUMS = { tolerance: 1e-6 };
const CAMBIUM = { name: 'Cambium, exact mean', command: commandOf('average/cambium.mjs') };
/** NumPy asks Linux for huge pages for its large arrays; Node asks for none, but the C library can. */
const HUGE = {
  ...CAMBIUM,
  name: `${CAMBIUM.name}, huge pages`,
  environment: { GLIBC_TUNABLES: 'glibc.malloc.hugetlb=1' },
};
const JS = { name: 'plain JavaScript, float64 sums', command: commandOf('average/plain-js.mjs') };
const FLOWER = {
  ...FLOAT32_SUMS,
  name: "NumPy, Flower's formula",
  command: commandOf('average/numpy_average.py', 'flower'),
};
const BEST = {
  ...FLOAT32_SUMS,
  name: 'NumPy, best float32 loop',
  command: commandOf('average/numpy_average.py', 'best'),
};
/** The same with arrays for the result that are there already. */
const REUSING = { ...CAMBIUM, name: `${CAMBIUM.name}, into given arrays`, job: { reuses: true } };
const BEST_REUSING = { ...BEST, name: `${BEST.name}, into given arrays`, job: { reuses: true } };
const WASM = {
  ...FLOAT32_SUMS,
  name: 'TensorFlow.js, WASM',
  command: commandOf('average/tensorflow.mjs', 'wasm'),
};
const CPU = {
  ...FLOAT32_SUMS,
  name: 'TensorFlow.js, CPU',
  command: commandOf('average/tensorflow.mjs', 'cpu'),
  job: { rounds: 3 },
};

const folder = benchFolder();
const output = join(folder, 'mean.bin');
for (const [title, shapes] of CASES) {
  const inputs = await writeInputs(folder, MODELS, shapes);
  const contenders = [CAMBIUM, HUGE, REUSING, JS, FLOWER, BEST, BEST_REUSING, WASM, CPU];
  const { results, remarks, elements } = await compareContenders(contenders, { inputs, output }, folder, {
    read: () => readBareElements(output),
    check: (exact) => checkExact(exact, inputs),
  });
  printHeader(`mean of ${MODELS} × ${elements.length} float32 numbers in memory: ${title}`, [
    `one thread; median of ${ROUNDS} rounds after one warm-up (TensorFlow.js on the CPU: 3)`,
  ]);
  printContenders(results, 4 * MODELS * elements.length, 'Cambium');
  for (const remark of remarks) console.log(remark);
  const faster = (peer) => secondsOf(results, peer.name) / secondsOf(results, CAMBIUM.name);
  printGoals([
    [`${title}: Flower's formula in NumPy / Cambium`, faster(FLOWER), 'at least', 1],
    [`${title}: NumPy's best float32 loop / Cambium`, faster(BEST), 'at least', 0.9],
    [
      `${title}: the same, huge pages for both`,
      secondsOf(results, BEST.name) / secondsOf(results, HUGE.name),
      'at least',
      0.9,
    ],
    [
      `${title}: the same, both into given arrays`,
      secondsOf(results, BEST_REUSING.name) / secondsOf(results, REUSING.name),
      'at least',
      0.9,
    ],
    [`${title}: TensorFlow.js WASM / Cambium`, faster(WASM), 'at least', 1],
    [`${title}: TensorFlow.js CPU / Cambium`, faster(CPU), 'at least', 1],
  ]);
}
