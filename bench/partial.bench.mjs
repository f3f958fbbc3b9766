// Exact partial sums over ten models of 100 MB: written, merged, and a leaf taken out again; against float64 sums in NumPy,
// which is what one would write instead. Those are rounded at every addition, ours are exact. Results are compared before
// anything is printed: with exact rational arithmetic at random places, and with each other.
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { openFileSource, readTensors, startJobs } from '../dist/index.js';
import { checkExact, compareElements, readElements } from './aggregate/elements.mjs';
import { DATA, ONE_TENSOR, writeInputs } from './aggregate/inputs.mjs';
import { benchFolder, commandOf, compareContenders, printContenders, ROUNDS } from './contenders.mjs';
import { printHeader, printTable } from './report.mjs';

const PARAMETERS = ONE_TENSOR[0][0];
/** What float64 sums may be off by, in elements of about 0.05. */
const TOLERANCE = 1e-8;

const folder = benchFolder();
const jobs = startJobs({ threads: 1 });
const models = await writeInputs(folder, 10, ONE_TENSOR);
const [left, right, leaf] = [models.slice(0, 5), models.slice(5), models.slice(9)];
const place = (name) => join(folder, name);

await time('five models to their sum', {
  inputs: left,
  of: left,
  to: 'sum',
  numpy: 'sum',
  writes: 2, // of a model's size: eight bytes a parameter
});
const ours = [await sumOf(left, 'left'), await sumOf(right, 'right')];
const theirs = [await numpySumOf(left, 'left'), await numpySumOf(right, 'right')];
await time('two sums to the mean of ten models', {
  inputs: ours,
  peerInputs: theirs,
  of: models,
  numpy: 'merge',
});
const all = [await sumOf(models, 'all'), await sumOf(leaf, 'leaf')];
const allTheirs = [await numpySumOf(models, 'all'), await numpySumOf(leaf, 'leaf')];
await time('a leaf taken out of the sum of ten', {
  inputs: all.slice(0, 1),
  without: all.slice(1).map(({ path }) => path),
  peerInputs: allTheirs,
  of: models.slice(0, 9),
  numpy: 'without',
});
await printSizes();
await jobs.close();

/** Measures one step, checks its result against the flat mean of the models that are in it, and prints. */
async function time(title, { inputs, without, peerInputs = inputs, of, to = 'mean', numpy, writes = 1 }) {
  const output = place(`out.${to === 'sum' ? 'partial.safetensors' : 'npy'}`);
  const peerOutput = place('out-numpy.npy');
  const totalWeighting = of.reduce((sum, { weighting }) => sum + weighting, 0);
  const reads = [...inputs.map(({ path }) => path), ...(without ?? [])];
  const cambium = { command: commandOf('partial/cambium.mjs'), output };
  const contenders = [
    {
      name: 'floor: its reads and writes',
      command: commandOf('aggregate/floor.mjs'),
      result: false,
      // Of models: the sizes of what is written are counted in them.
      job: { inputs: models, reads, writes: Array.from({ length: writes }, (_, i) => place(`floor-${i}`)) },
    },
    ...[1, 2].map((threads) => ({
      ...cambium,
      name: `Cambium, exact, ${threads} ${threads === 1 ? 'thread' : 'threads'}`,
      job: { threads },
    })),
    {
      name: 'NumPy, float64 sums',
      command: commandOf('partial/numpy_sums.py', numpy),
      job: { inputs: peerInputs, output: peerOutput, totalWeighting },
      output: peerOutput,
      tolerance: TOLERANCE,
    },
  ];
  const flat = place('flat.npy');
  await jobs.aggregate({ inputs: of, output: flat, format: 'npy-object' });
  const expected = await readElements(flat);
  const read = async (contender) => {
    if (to === 'mean') return readElements(contender.output);
    return contender.output === peerOutput ? meanOfFloat64(peerOutput, totalWeighting) : meanOfSum(output);
  };
  const check = async (elements) => {
    compareElements('the mean by sums', elements, expected, 0);
    await checkExact(elements, of);
  };
  const job = { inputs, without, output, to };
  const { results, remarks } = await compareContenders(contenders, job, folder, { read, check });
  const bytes = reads.reduce((sum, path) => sum + statSync(path).size, 0);
  printHeader(title, [
    `${PARAMETERS} float32 parameters; page cache; median of ${ROUNDS} rounds after one warm-up`,
    'the results of Cambium are the flat mean, bit for bit',
  ]);
  printContenders(results, bytes, 'floor');
  for (const remark of remarks) console.log(remark);
}

/** An exact sum, as an input. */
async function sumOf(inputs, name) {
  const path = place(`${name}.partial.safetensors`);
  await jobs.merge({ inputs, output: path, to: 'sum' });
  return { path };
}

/** A float64 sum that NumPy writes. */
async function numpySumOf(inputs, name) {
  const output = place(`${name}.float64.npy`);
  const command = commandOf('partial/numpy_sums.py', 'sum');
  await compareContenders(
    [{ name, command, result: false, job: { rounds: 0 } }],
    { inputs, output },
    folder,
    {},
  );
  return { path: output };
}

async function meanOfSum(path) {
  const output = place('mean.npy');
  await jobs.merge({ inputs: [{ path }], output, to: 'mean', format: 'npy-object' });
  return readElements(output);
}

async function meanOfFloat64(path, total) {
  const source = await openFileSource(path);
  const { tensors } = await readTensors(source);
  await source.close();
  const { buffer, byteOffset, byteLength } = tensors[0].data;
  return Float32Array.from(new Float64Array(buffer, byteOffset, byteLength / 8), (sum) => sum / total);
}

/** What sums take on the disk, by what is added: the more the numbers differ, the more residues. */
async function printSizes() {
  const shapes = [[4_000_000]];
  const kinds = [
    ['ordinary', DATA.ordinary, (i) => 100 + i],
    ['ordinary, fractional weightings', DATA.ordinary, (i) => 0.01 + Math.abs(Math.sin(i + 1))],
    ['heavy tails', DATA['heavy tails'], (i) => 100 + i],
  ];
  const rows = [];
  for (const [name, draw, weightingOf] of kinds) {
    const written = await writeInputs(place(`size-${rows.length}`), 10, shapes, draw);
    const inputs = written.map((input, i) => ({ ...input, weighting: weightingOf(i) }));
    const report = await jobs.merge({ inputs, output: place('size.partial.safetensors'), to: 'sum' });
    const { parameters, byteLength, residues } = report;
    rows.push([name, (byteLength / parameters).toFixed(3), (residues / parameters).toFixed(4)]);
  }
  rows.push(['float64 sums, whatever they are of', '8.000', '-']);
  printHeader('size of the sum of ten models', [
    `${shapes[0][0]} float32 parameters; a model takes 4 bytes each`,
  ]);
  printTable(['data', 'bytes a parameter', 'residues a parameter'], rows);
  console.log();
}
