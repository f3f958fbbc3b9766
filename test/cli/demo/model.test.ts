import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { PIXELS } from '../../../src/cli/demo/digits.ts';
import { datasetOf, loadTraining } from '../../../src/cli/demo/model.ts';
import { Random } from '../../../src/cli/demo/random.ts';
import { sameBytes } from '../../helpers/bytes.ts';

const test = suite('cli/demo/model');
const training = await loadTraining();

/** Ten classes that a glance tells apart: a bright band at a height of its own, on noise. */
function bands(count: number, seed: number) {
  const random = new Random(seed);
  const images = Uint8Array.from({ length: count * PIXELS }, () => random.below(100));
  const labels = Uint8Array.from({ length: count }, (_, i) => i % 10);
  labels.forEach((label, i) => {
    images.fill(255, i * PIXELS + label * 56, i * PIXELS + label * 56 + 56);
  });
  return datasetOf({ images, labels });
}

test('the same seed gives the same weights, also 0; another one others', () => {
  const [one, same, other] = [0, 0, 1].map((seed) => training.createModel(seed).weights());
  assert.equal(
    one!.map((array) => array.shape),
    [[784, 64], [64], [64, 10], [10]],
  );
  one!.forEach((array, i) => {
    sameBytes(array.values, same![i]!.values);
  });
  assert.not.equal(one![0]!.values.slice(0, 8), other![0]!.values.slice(0, 8));
});

test('training learns, and the same training gives the same bits', async () => {
  const [data, heldOut] = [bands(200, 1), bands(100, 2)];
  const models = [training.createModel(1), training.createModel(1)];
  const before = models[0]!.accuracy(heldOut);
  for (const model of models) {
    const random = new Random(9);
    const losses = [await model.trainEpoch(data, random), await model.trainEpoch(data, random)];
    assert.ok(losses[1]! < losses[0]!, `${losses}`);
  }
  const after = models[0]!.accuracy(heldOut);
  assert.ok(after > 0.9 && after > before, `${before} → ${after}`);
  const [a, b] = models.map((model) => model.weights());
  a!.forEach((array, i) => {
    sameBytes(array.values, b![i]!.values);
  });
});

test('weights go out and come back as they are; what goes out is a copy', async () => {
  const [trained, fresh] = [training.createModel(1), training.createModel(2)];
  await trained.trainEpoch(bands(40, 1), new Random(1));
  const weights = trained.weights();
  fresh.setWeights(weights);
  await trained.trainEpoch(bands(40, 1), new Random(1));
  const back = fresh.weights();
  weights.forEach((array, i) => {
    sameBytes(back[i]!.values, array.values);
  });
  assert.is(fresh.accuracy(bands(50, 3)), fresh.accuracy(bands(50, 3)));
});

test.run();
