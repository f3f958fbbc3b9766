import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { addModel, proximalGradient, subtractModel } from '../../src/aggregate/differences.ts';
import { tensorOf } from '../../src/tensor/tensor.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { Random, testSeed } from '../helpers/random.ts';

const random = new Random(testSeed());
const N = 40_000; // more than two blocks

const floats = (n = N) => new Float32Array(n).map(() => random.gauss());

const test = suite('differences');

test('a difference is taken and added, tensor by tensor', async () => {
  const [a, x] = [floats(), floats()];
  const steps = Int32Array.of(7, 8);
  const update = [tensorOf(a, [N], 'w'), tensorOf(steps, [2], 'steps')];
  const model = [tensorOf(Int32Array.of(1, 1), [2], 'steps'), tensorOf(x, [N], 'w')];
  const difference = await subtractModel(update, model);
  const expected = a.map((value, i) => value - x[i]!);
  assert.equal(
    difference.map(({ name }) => name),
    ['w', 'steps'],
  );
  sameBytes(difference[0]!.data, expected);
  sameBytes(difference[1]!.data, steps);
  const back = await addModel(difference, model);
  sameBytes(
    back[0]!.data,
    expected.map((value, i) => value + x[i]!),
  );
  sameBytes(back[1]!.data, steps);
  sameBytes(update[0]!.data, a, 'the argument');
});

test('the gradient of FedProx', async () => {
  const [g, x, origin] = [floats(), floats(), floats()];
  const tensors = [g, x, origin].map((array) => [tensorOf(array)]);
  const [result] = await proximalGradient(tensors[0]!, tensors[1]!, tensors[2]!, 0.01);
  sameBytes(
    result!.data,
    g.map((value, i) => value + 0.01 * (x[i]! - origin[i]!)),
  );
  const [same] = await proximalGradient(tensors[0]!, tensors[1]!, tensors[2]!, 0);
  sameBytes(same!.data, g);
});

test('what does not fit is refused', async () => {
  const w = [tensorOf(floats(3))];
  await failsWith('average-shape', () => subtractModel(w, [tensorOf(floats(4))]));
  await failsWith('average-count', () => addModel(w, []));
  const ints = [tensorOf(Int32Array.of(1, 2, 3))];
  await failsWith('aggregate-dtype-unsupported', () => proximalGradient(ints, ints, ints, 1));
  await failsWith('average-dtype', () => proximalGradient(w, ints, w, 1));
  for (const mu of [-1, Number.NaN, Infinity]) {
    let message = '';
    await proximalGradient(w, w, w, mu).catch((error) => {
      message = error.message;
    });
    assert.match(message, /^mu is /);
  }
});

test.run();
