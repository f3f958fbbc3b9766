// The page of browser.bench.mjs: the weighted mean of models, by each contender in turn.

import { setWasmPaths } from '@tensorflow/tfjs-backend-wasm';
import * as tf from '@tensorflow/tfjs-core';
// The built door, as a page loads it; esbuild leaves this import alone.
import * as cambium from '/dist/browser.js';

const input = Object.assign(document.createElement('input'), { type: 'file', multiple: true });
document.body.append(input);

/** Where the elements lie in each model, and the bytes before and behind those of a file of the mean. */
let form;
/** Blobs, or arrays of elements. */
let models = [];
let jobs = [];

async function prepare(given) {
  form = given;
  setWasmPaths('/tfjs/');
  await tf.setBackend('wasm');
  await tf.ready();
  jobs = [1, 2].map((workers) => cambium.startJobs({ workers }));
}

const INPUTS = {
  /** Files that were chosen. */
  files: async () => [...input.files],
  /** Blobs that a server sent. */
  fetched: () => Promise.all([...input.files].map(async (_, k) => (await fetch(`/model-${k}.npy`)).blob())),
  /** Elements that the page holds already. */
  arrays: async () => {
    const arrays = [];
    for (const file of input.files) arrays.push(await elementsOf(file));
    return arrays;
  },
};

/** Makes the models of a table what they are there. */
async function use(inputs) {
  models = [];
  models = await INPUTS[inputs]();
}

const elementsOf = async (blob) =>
  new Float32Array(await blob.slice(form.offset, form.offset + form.byteLength).arrayBuffer());

/** The elements of each model; of Blobs those of the next one are being read while one is used. */
async function* inTurn() {
  const read = (model) => (model instanceof Blob ? elementsOf(model) : model);
  let next = read(models[0]);
  for (let k = 0; k < models.length; k++) {
    const elements = await next;
    if (k + 1 < models.length) next = read(models[k + 1]);
    yield [elements, form.weightings[k]];
  }
}

const total = () => form.weightings.reduce((sum, weighting) => sum + weighting, 0);

/** What a contender ends with: a weights file where it was given some, else the elements. */
const resultOf = (mean) =>
  models[0] instanceof Blob ? new Blob([Uint8Array.from(form.head), mean, Uint8Array.from(form.tail)]) : mean;

async function byTensorFlow() {
  let sum = null;
  for await (const [elements, weighting] of inTurn()) {
    const next = tf.tidy(() => {
      const part = tf.mul(tf.tensor1d(elements), weighting / total());
      return sum === null ? part : tf.add(sum, part);
    });
    sum?.dispose();
    sum = next;
  }
  const mean = await sum.data();
  sum.dispose();
  return resultOf(mean);
}

async function byJavaScript() {
  let sums = null;
  for await (const [elements, weighting] of inTurn()) {
    sums ??= new Float64Array(elements.length);
    for (let i = 0; i < elements.length; i++) sums[i] += weighting * elements[i];
  }
  const mean = new Float32Array(sums.length);
  for (let i = 0; i < mean.length; i++) mean[i] = sums[i] / total();
  return resultOf(mean);
}

const inputsOf = () => models.map((blob, i) => ({ blob, leaf: `${i}` }));

const CONTENDERS = {
  'cambium-1': async () => (await jobs[0].aggregate({ inputs: inputsOf() })).blob,
  'cambium-2': async () => (await jobs[1].aggregate({ inputs: inputsOf() })).blob,
  'cambium-cold': async () => (await cambium.aggregateBlobs(inputsOf(), { workers: 2 })).blob,
  'cambium-average': async () => {
    const updates = models.map((elements, k) => ({
      weighting: form.weightings[k],
      tensors: [cambium.tensorOf(elements)],
    }));
    const { data } = (await cambium.average(updates)).tensors[0];
    return new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4);
  },
  tensorflow: byTensorFlow,
  javascript: byJavaScript,
};

let expected = null;

/** Seconds of one round, bytes of the result, and the largest difference to the exact mean, which the first call gives. */
async function run(name) {
  const startedAt = performance.now();
  const result = await CONTENDERS[name]();
  const seconds = (performance.now() - startedAt) / 1000;
  const isFile = result instanceof Blob;
  const mean = isFile ? await elementsOf(result) : result;
  expected ??= mean;
  let difference = mean.length === expected.length ? 0 : Number.POSITIVE_INFINITY;
  for (let i = 0; i < mean.length; i++) difference = Math.max(difference, Math.abs(mean[i] - expected[i]));
  return { seconds, difference, byteLength: isFile ? result.size : result.byteLength };
}

Object.assign(globalThis, { bench: { prepare, use, run }, isReady: true });
