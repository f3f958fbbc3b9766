import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readModel, writeUpdate } from '../../../src/cli/demo/weights.ts';
import { writeWeights } from '../../../src/formats/write.ts';
import { openFileSink } from '../../../src/node/files.ts';
import { tensorOf } from '../../../src/tensor/tensor.ts';
import { sameBytes } from '../../helpers/bytes.ts';
import { failsWith } from '../../helpers/errors.ts';

const test = suite('cli/demo/weights');
const folder = mkdtempSync(join(tmpdir(), 'cambium-demo-weights-'));
const path = join(folder, 'update.npy');

test.after(() => rmSync(folder, { recursive: true, force: true }));

test('what is written comes back', async () => {
  const weights = [
    { shape: [2, 3], values: Float32Array.of(1, -0, 3.5, Number.MIN_VALUE, 5, 6) },
    { shape: [1], values: Float32Array.of(7) },
  ];
  await writeUpdate(path, 600, weights);
  const back = await readModel(path);
  assert.equal(
    back.map((array) => array.shape),
    weights.map((array) => array.shape),
  );
  weights.forEach((array, i) => {
    sameBytes(back[i]!.values, array.values);
  });
  assert.equal(readdirSync(folder), ['update.npy']);
});

test('a model of other numbers is refused', async () => {
  const tensors = [tensorOf(Float32Array.of(1)), tensorOf(Float64Array.of(1))];
  await writeWeights(await openFileSink(path), { weighting: 1, tensors });
  const error = await failsWith('weights-dtype', () => readModel(path));
  assert.match(error.message, 'array 1 is float64');
});

test.run();
