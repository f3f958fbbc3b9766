import { contend } from '../peers/contend.mjs';
import { arrays, weightings, writeResult } from './arrays.mjs';

const total = weightings.reduce((sum, weighting) => sum + weighting, 0);
let mean;
await contend(() => {
  mean = arrays[0].map((first, t) => {
    const sums = new Float64Array(first.length);
    for (const [j, update] of arrays.entries()) {
      const w = weightings[j];
      const x = update[t];
      for (let i = 0; i < x.length; i++) sums[i] += w * x[i];
    }
    const result = new Float32Array(sums.length);
    for (let i = 0; i < result.length; i++) result[i] = sums[i] / total;
    return result;
  });
});
writeResult(mean);
