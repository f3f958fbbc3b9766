import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readTensors } from '../../src/formats/read.ts';
import { writeWeights } from '../../src/formats/write.ts';
import { type ByteSink, memorySink, memorySource } from '../../src/tensor/bytes.ts';
import { type ModelUpdate, tensorOf } from '../../src/tensor/tensor.ts';

const test = suite('formats/write');

const update: ModelUpdate = {
  weighting: 12,
  tensors: [
    tensorOf(new Float32Array([1, -0, Number.NaN, 4, 5, 6]), [2, 3], 'dense.weight'),
    tensorOf(new BigInt64Array([1n, -(2n ** 63n)]), [2], 'steps'),
    tensorOf(new Uint8Array(0), [0, 7], 'nothing'),
    tensorOf(new Float64Array([0.5]), [], 'scale'),
  ],
};

test('an update comes back as it was', async () => {
  for (const isNamed of [true, false]) {
    const tensors = update.tensors.map((tensor) => ({ ...tensor, name: isNamed ? tensor.name : null }));
    let sink = memorySink(0);
    await writeWeights((byteLength) => (sink = memorySink(byteLength)), { ...update, tensors });
    const { layout, ...read } = await readTensors(memorySource(sink.bytes));
    assert.equal(read, { weighting: 12, tensors });
    assert.is(layout.format, 'npy-object');
  }
});

test('one tensor fits a plain array, which forgets weighting and name', async () => {
  let sink = memorySink(0);
  await writeWeights(
    (byteLength) => (sink = memorySink(byteLength)),
    { ...update, tensors: update.tensors.slice(0, 1) },
    { format: 'npy' },
  );
  const { layout, ...read } = await readTensors(memorySource(sink.bytes));
  assert.equal(read, { weighting: null, tensors: [{ ...update.tensors[0]!, name: null }] });
  assert.is(layout.format, 'npy');
});

test('a sink that fails is discarded', async () => {
  const calls: string[] = [];
  const sink: ByteSink = {
    write() {
      throw new Error('full');
    },
    commit() {
      calls.push('commit');
    },
    discard() {
      calls.push('discard');
    },
  };
  try {
    await writeWeights(sink, update);
    assert.unreachable('written');
  } catch (error) {
    assert.is((error as Error).message, 'full');
  }
  assert.equal(calls, ['discard']);
});

test('bytes that do not fit their shape are a RangeError before anything is opened', async () => {
  const wrong = { ...update, tensors: [{ ...update.tensors[0]!, shape: [2, 4] }] };
  try {
    await writeWeights(() => assert.unreachable('opened') as never, wrong);
    assert.unreachable('written');
  } catch (error) {
    assert.instance(error, RangeError);
  }
});

test.run();
