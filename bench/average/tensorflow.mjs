// TensorFlow.js, one model at a time: multiply, add, divide; the copies of arrays into tensors and of the result out of
// its tensor are part of the work, as they are of ours. The first argument names the backend.
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import { contend } from '../peers/contend.mjs';
import { arrays, weightings, writeResult } from './arrays.mjs';

const [, , backend] = process.argv;
if (backend === 'wasm') {
  const { setWasmPaths } = await import('@tensorflow/tfjs-backend-wasm');
  const main = createRequire(import.meta.url).resolve('@tensorflow/tfjs-backend-wasm');
  setWasmPaths(`${dirname(main)}/`);
} else await import('@tensorflow/tfjs-backend-cpu');
if (!(await tf.setBackend(backend))) throw new Error(`no backend ${backend}`);
await tf.ready();

const total = weightings.reduce((sum, weighting) => sum + weighting, 0);
let mean;
await contend(() => {
  mean = arrays[0].map((_, t) => average(arrays.map((update) => update[t])));
});
writeResult(mean);

function average(list) {
  let sum = null;
  for (const [i, array] of list.entries()) {
    const next = tf.tidy(() => {
      const weighted = tf.mul(tf.tensor1d(array), weightings[i]);
      return sum === null ? weighted : tf.add(sum, weighted);
    });
    sum?.dispose();
    sum = next;
  }
  const result = tf.div(sum, total);
  const elements = result.dataSync();
  tf.dispose([sum, result]);
  return elements;
}
