import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openKernelCore } from '../../src/aggregate/stage-kernels.ts';
import { stateSlots, stateTensors } from '../../src/aggregate/steps.ts';
import { fedAdam, fedAvg, fedAvgM, fedYogi } from '../../src/aggregate/strategies/optimisers.ts';
import type { StepSpec } from '../../src/aggregate/strategies/strategy.ts';
import { openStep } from '../../src/aggregate/strategy-kernels.ts';
import { STEP_ARENA_BYTES } from '../../src/core/step.ts';
import { DTYPES } from '../../src/tensor/dtypes.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { Random, testSeed } from '../helpers/random.ts';

const seed = testSeed();
const COUNT = 331;

/** A model and its state after some rounds towards the averages, in a core of its own. */
async function rounds(
  spec: StepSpec,
  rate: number,
  averages: readonly Float32Array[],
  before: { readonly model: Float32Array; readonly slots: readonly Float32Array[] },
) {
  const fold = { kind: 'fold', combine: { kind: 'mean' }, step: { spec, rate } } as const;
  const core = await openKernelCore(fold, STEP_ARENA_BYTES + 4 * (4 * COUNT + 16));
  try {
    const place = (array: Float32Array) => {
      const address = core.take(array.byteLength);
      core
        .bytes(address, array.byteLength)
        .set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
      return address;
    };
    const step = openStep(spec, core, rate);
    const slots = before.slots.map(place);
    const at = place(before.model);
    const target = core.take(4 * COUNT);
    for (const average of averages) {
      core.bytes(target, 4 * COUNT).set(new Uint8Array(average.buffer));
      assert.ok(step.take(DTYPES.float32.code, target, at, slots, COUNT));
      core.bytes(at, 4 * COUNT).set(core.bytes(target, 4 * COUNT));
    }
    const copy = (address: number) => new Float32Array(core.bytes(address, 4 * COUNT).slice().buffer);
    return { model: copy(at), slots: slots.map(copy) };
  } finally {
    core.close();
  }
}

const test = suite('aggregate/steps');

test('ten rounds with a restart between any two are ten rounds without', async () => {
  const random = new Random(seed);
  const draw = () => Float32Array.from({ length: COUNT }, () => random.gauss());
  const averages = Array.from({ length: 10 }, draw);
  for (const { step, name } of [
    fedAvgM(),
    fedAdam({ learningRate: 0.1 }),
    fedYogi({ learningRate: 0.1, tau: 1e-7 }),
  ]) {
    const start = {
      model: draw(),
      slots: stateSlots(step!).map(({ initial }) => new Float32Array(COUNT).fill(initial)),
    };
    const expected = await rounds(step!, 1, averages, start);
    for (let cut = 1; cut < 10; cut++) {
      const half = await rounds(step!, 1, averages.slice(0, cut), start);
      const actual = await rounds(step!, 1, averages.slice(cut), half);
      sameBytes(actual.model, expected.model, `${name} after ${cut} rounds: model`);
      for (const [i, slot] of actual.slots.entries())
        sameBytes(slot, expected.slots[i]!, `${name} slot ${i}`);
    }
  }
});

test('a rate of 1 leaves the average bit for bit, another one goes part of the way', async () => {
  const { step } = fedAvg({ learningRate: 1 });
  const average = new Float32Array(COUNT).fill(1e-30);
  const start = { model: new Float32Array(COUNT).fill(3e30), slots: [] };
  sameBytes((await rounds(step!, 1, [average], start)).model, average);
  const half = await rounds(step!, 0.5, [average], start);
  sameBytes(half.model, new Float32Array(COUNT).fill(1.5e30));
});

test('differences are taken from the model itself', async () => {
  const { step } = fedAvg({ learningRate: 1, differences: true });
  const start = { model: new Float32Array(COUNT).fill(3), slots: [] };
  const moved = await rounds(step!, 1, [new Float32Array(COUNT).fill(0.5)], start);
  sameBytes(moved.model, new Float32Array(COUNT).fill(3.5));
});

test('a state has a tensor for each slot and float tensor', () => {
  const spec = fedAdam({ learningRate: 1, tau: 0.5 }).step!;
  const tensors = [
    { name: 'a', dtype: 'float16', shape: [2] },
    { name: 'n', dtype: 'int64', shape: [] },
    { name: 'c', dtype: 'complex128', shape: [3, 4] },
  ] as const;
  const plain = (given: typeof tensors | { name: null; dtype: 'float32'; shape: number[] }[]) =>
    stateTensors(spec, given).map(({ name, dtype, shape, slot, tensor }) => [
      name,
      dtype,
      shape,
      slot.initial,
      tensor,
    ]);
  assert.equal(plain(tensors), [
    ['m.a', 'float32', [2], 0, 0],
    ['m.c', 'complex128', [3, 4], 0, 2],
    ['v.a', 'float32', [2], 0.25, 0],
    ['v.c', 'complex128', [3, 4], 0.25, 2],
  ]);
  assert.equal(
    plain([{ name: null, dtype: 'float32', shape: [1] }]).map(([name]) => name),
    ['m.0', 'v.0'],
  );
});

test.run();
