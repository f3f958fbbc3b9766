import { writeFileSync } from 'node:fs';
import { contend, job } from '../peers/contend.mjs';
import { arrays, weightings } from './arrays.mjs';

const total = weightings.reduce((sum, weighting) => sum + weighting, 0);
let mean;
await contend(() => {
  const sums = new Float64Array(arrays[0].length);
  for (const [j, x] of arrays.entries()) {
    const w = weightings[j];
    for (let i = 0; i < x.length; i++) sums[i] += w * x[i];
  }
  mean = new Float32Array(sums.length);
  for (let i = 0; i < mean.length; i++) mean[i] = sums[i] / total;
});
writeFileSync(job.output, mean);
