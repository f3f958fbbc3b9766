/**
 * A network of TensorFlow.js in Node, trained by many leaves: what a program has to do for `cambium join`.
 *
 *     cambium join --credentials leaf.json -- node train.mjs {global} {update} 0
 *
 * It reads the global model if there is one, trains on the data of its own machine, writes its update, and tells its
 * metrics by a line on stdout.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { openFileSink, openFileSource, readTensors, tensorOf, writeWeights } from 'cambium';

const SAMPLES = 200;
const EPOCHS = 8;

const [model, update, leaf] = process.argv.slice(2);

const require = createRequire(import.meta.url);
const tf = require('@tensorflow/tfjs-core');
const layers = require('@tensorflow/tfjs-layers');
const wasm = require('@tensorflow/tfjs-backend-wasm');
wasm.setWasmPaths(join(dirname(require.resolve('@tensorflow/tfjs-backend-wasm')), '/'));
tf.env().set('WASM_HAS_MULTITHREAD_SUPPORT', false);
await tf.setBackend('wasm');

/** Stands for the leaf's own data: a curve of which each leaf sees a stretch. */
function makeData() {
  const x = Float32Array.from({ length: SAMPLES }, (_, i) => Number(leaf) - 1 + i / SAMPLES);
  return {
    x: tf.tensor2d(x, [SAMPLES, 1]),
    y: tf.tensor2d(
      x.map((value) => value * value - 0.3 * value),
      [SAMPLES, 1],
    ),
  };
}

// The same on every leaf: an average of networks that began at different places is worth nothing.
const seeded = (seed) => layers.initializers.glorotUniform({ seed });
const network = layers.sequential({
  layers: [
    layers.layers.dense({
      units: 8,
      activation: 'relu',
      inputShape: [1],
      kernelInitializer: seeded(1),
      biasInitializer: layers.initializers.constant({ value: 0.1 }),
    }),
    layers.layers.dense({ units: 1, kernelInitializer: seeded(2) }),
  ],
});
network.compile({ optimizer: tf.train.sgd(0.1), loss: 'meanSquaredError' });

if (existsSync(model)) {
  const source = await openFileSource(model);
  const { tensors } = await readTensors(source);
  await source.close();
  network.setWeights(
    tensors.map(({ data, shape }) => {
      const values = new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4);
      return tf.tensor(values, shape);
    }),
  );
}

const { x, y } = makeData();
const loss = (await network.evaluate(x, y).data())[0];
await network.fit(x, y, { epochs: EPOCHS, batchSize: 20, shuffle: false, verbose: 0, yieldEvery: 'never' });
console.log(JSON.stringify({ mode: 'test', metrics: { loss } }));

const tensors = network.getWeights().map((weight) => tensorOf(weight.dataSync(), weight.shape));
await writeWeights(await openFileSink(update), { weighting: SAMPLES, tensors });
