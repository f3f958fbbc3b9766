// Rounds of a server optimiser, file to file: each starts from the model that the one before has made.
import { startJobs } from '../../dist/index.js';
import { contend, job } from '../peers/contend.mjs';

const { inputs, output, threads, strategy, state } = job;
const jobs = startJobs({ threads: 1 });
let { model } = job;
let round = 0;
await contend(async () => {
  const next = `${output}.${round++ % 2}.npy`;
  await jobs.aggregate({ inputs, output: next, threads, strategy, model, state, digest: false });
  model = next;
});
await jobs.close();
