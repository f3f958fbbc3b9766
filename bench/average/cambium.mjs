import { writeFileSync } from 'node:fs';
import { average } from '../../dist/index.js';
import { contend, job } from '../peers/contend.mjs';
import { arrays, weightings } from './arrays.mjs';

const updates = arrays.map((array, i) => ({
  weighting: weightings[i],
  tensors: [
    {
      name: null,
      dtype: 'float32',
      shape: [array.length],
      data: new Uint8Array(array.buffer, array.byteOffset, array.byteLength),
    },
  ],
}));
let mean;
await contend(async () => {
  mean = (await average(updates)).tensors[0].data;
});
writeFileSync(job.output, mean);
