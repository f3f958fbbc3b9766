import { average } from '../../dist/index.js';
import { contend, job } from '../peers/contend.mjs';
import { updates, writeResult } from './arrays.mjs';

let mean;
await contend(async () => {
  // The first round, which warms up, makes the arrays that the others fill.
  mean = await average(updates, { into: job.reuses ? mean?.tensors.map(({ data }) => data) : undefined });
});
writeResult(mean.tensors.map(({ data }) => data));
