// The page of browser.bench.mjs: the weighted mean of models in Blobs, by each contender in turn.

import { setWasmPaths } from '@tensorflow/tfjs-backend-wasm';
import * as tf from '@tensorflow/tfjs-core';
// The built door, as a page loads it; esbuild leaves this import alone.
import * as cambium from '/dist/browser.js';

let models = [];
let jobs = [];

const input = Object.assign(document.createElement('input'), { type: 'file', multiple: true });
document.body.append(input);

/** Takes the files that were chosen; `offset` is the place of the elements in each. */
async function prepare(offset, byteLength) {
  setWasmPaths('/tfjs/');
  await tf.setBackend('wasm');
  await tf.ready();
  models = [...input.files].map((blob, k) => ({ blob, weighting: k + 1, offset, byteLength }));
  jobs = [1, 2].map((workers) => cambium.startJobs({ workers }));
}

const elementsOf = async ({ blob, offset, byteLength }) =>
  new Float32Array(await blob.slice(offset, offset + byteLength).arrayBuffer());

const totalOf = () => models.reduce((sum, { weighting }) => sum + weighting, 0);

async function byCambium(workers) {
  const inputs = models.map(({ blob }, i) => ({ blob, leaf: `${i}` }));
  const { blob } = await jobs[workers - 1].aggregate({ inputs });
  return () => elementsOf({ ...models[0], blob });
}

async function byTensorFlow() {
  const total = totalOf();
  let sum = null;
  for (const model of models) {
    const values = await elementsOf(model);
    const next = tf.tidy(() => {
      const part = tf.mul(tf.tensor1d(values), model.weighting / total);
      return sum === null ? part : tf.add(sum, part);
    });
    sum?.dispose();
    sum = next;
  }
  const mean = await sum.data();
  sum.dispose();
  return async () => mean;
}

async function byJavaScript() {
  const total = totalOf();
  let sums = null;
  for (const model of models) {
    const values = await elementsOf(model);
    sums ??= new Float64Array(values.length);
    for (let i = 0; i < values.length; i++) sums[i] += model.weighting * values[i];
  }
  const mean = new Float32Array(sums.length);
  for (let i = 0; i < mean.length; i++) mean[i] = sums[i] / total;
  return async () => mean;
}

const CONTENDERS = {
  'cambium-1': () => byCambium(1),
  'cambium-2': () => byCambium(2),
  tensorflow: byTensorFlow,
  javascript: byJavaScript,
};

let expected = null;

/** Seconds of one round, and the largest difference to the exact mean, which the first call gives. */
async function run(name) {
  const startedAt = performance.now();
  const read = await CONTENDERS[name]();
  const seconds = (performance.now() - startedAt) / 1000;
  const mean = await read();
  expected ??= mean;
  let difference = 0;
  for (let i = 0; i < mean.length; i++) difference = Math.max(difference, Math.abs(mean[i] - expected[i]));
  return { seconds, difference, length: mean.length };
}

Object.assign(globalThis, { bench: { prepare, run }, isReady: true });
