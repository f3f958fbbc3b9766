import { average } from '../../dist/index.js';
import { contend } from '../peers/contend.mjs';
import { updates, writeResult } from './arrays.mjs';

let mean;
await contend(async () => {
  mean = await average(updates);
});
writeResult(mean.tensors.map(({ data }) => data));
