// Real models of TensorFlow.js: their weights up, an average of them down.
import { createRequire } from 'node:module';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { average } from '../src/aggregate/average.ts';
import { updateFromArrays } from '../src/tensor/arrays.ts';
import { setTensorFlowWeights, updateFromTensorFlow } from '../src/tensorflow.ts';
import { failsWith } from './helpers/errors.ts';

const require = createRequire(import.meta.url);
const tf: typeof import('@tensorflow/tfjs-core') = require('@tensorflow/tfjs-core');
const layers: typeof import('@tensorflow/tfjs-layers') = require('@tensorflow/tfjs-layers');
require('@tensorflow/tfjs-backend-cpu');

const modelOf = (kernel: number, bias: number) =>
  layers.sequential({
    layers: [
      layers.layers.dense({
        units: 3,
        inputShape: [2],
        kernelInitializer: layers.initializers.constant({ value: kernel }),
        biasInitializer: layers.initializers.constant({ value: bias }),
      }),
    ],
  });

const values = (model: ReturnType<typeof modelOf>) =>
  model.getWeights().map((weight) => [...weight.dataSync()]);

test('the mean of two models is in a third', async () => {
  await tf.setBackend('cpu');
  const updates = [
    await updateFromTensorFlow(modelOf(1, 0), 600),
    await updateFromTensorFlow(modelOf(5, 4), 200),
  ];
  assert.equal(
    updates[0]!.tensors.map(({ dtype, shape }) => [dtype, shape]),
    [
      ['float32', [2, 3]],
      ['float32', [3]],
    ],
  );
  const model = modelOf(9, 9);
  const before = tf.memory().numTensors;
  await setTensorFlowWeights(model, await average(updates), tf);
  assert.is(tf.memory().numTensors, before, 'nothing is left on the device');
  assert.equal(values(model), [Array(6).fill(2), Array(3).fill(1)]);
  assert.equal(
    [...(model.predict(tf.ones([1, 2])) as import('@tensorflow/tfjs-core').Tensor).dataSync()],
    [5, 5, 5],
  );
});

test('the library is found by itself', async () => {
  const model = modelOf(0, 0);
  await setTensorFlowWeights(
    model,
    updateFromArrays(
      [
        [
          [1, 2, 3],
          [4, 5, 6],
        ],
        Float64Array.of(7, 8, 9),
      ],
      null,
    ),
  );
  assert.equal(values(model), [
    [1, 2, 3, 4, 5, 6],
    [7, 8, 9],
  ]);
});

test('integers and booleans keep their type', async () => {
  let weights = [tf.tensor([1, -2], [2], 'int32'), tf.tensor([true, false], [2], 'bool')];
  const model = {
    getWeights: () => weights,
    setWeights(given: typeof weights) {
      weights = given.map((each) => each.clone());
    },
  };
  const update = await updateFromTensorFlow(model, 1);
  assert.equal(
    update.tensors.map(({ dtype, data }) => [dtype, data.byteLength]),
    [
      ['int32', 8],
      ['bool', 2],
    ],
  );
  await setTensorFlowWeights(model, update, tf);
  assert.equal(
    weights.map((each) => [each.dtype, [...each.dataSync()]]),
    [
      ['int32', [1, -2]],
      ['bool', [1, 0]],
    ],
  );
});

const UNFIT: readonly [code: string, arrays: readonly number[][][]][] = [
  [
    'layout-count',
    [
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
    ],
  ],
  [
    'layout-shape',
    [
      [
        [1, 2],
        [3, 4],
        [5, 6],
      ],
      [[1, 2, 3]],
    ],
  ],
];

test('what does not fit the model leaves it as it is', async () => {
  const model = modelOf(1, 2);
  for (const [code, arrays] of UNFIT) {
    await failsWith(code, () => setTensorFlowWeights(model, updateFromArrays(arrays, null), tf));
  }
  const wide = [{ data: new BigInt64Array(6), shape: [2, 3] }, Float32Array.of(1, 2, 3)];
  await failsWith('aggregate-dtype-unsupported', () =>
    setTensorFlowWeights(model, updateFromArrays(wide, null), tf),
  );
  assert.equal(values(model), [Array(6).fill(1), Array(3).fill(2)]);
});

test.run();
