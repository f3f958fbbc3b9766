// On the calling thread, so that Node's Blobs do: what workers and pages add is in door.test.ts.
import { suite } from 'uvu';
import { aggregateBlobs } from '../../src/browser/aggregate-blobs.ts';
import { writeWeights } from '../../src/formats/write.ts';
import { memorySink } from '../../src/tensor/bytes.ts';
import { failsWith } from '../helpers/errors.ts';

const test = suite('browser/aggregate-blobs');

async function blobOf(...numbers: number[]): Promise<Blob> {
  const data = new Uint8Array(Float32Array.from(numbers).buffer);
  const tensors = [{ name: 'w', dtype: 'float32', shape: [numbers.length], data }] as const;
  let sink = memorySink(0);
  await writeWeights(
    (byteLength) => {
      sink = memorySink(byteLength);
      return sink;
    },
    { weighting: 1, tensors },
    { format: 'safetensors' },
  );
  return new Blob([Uint8Array.from(sink.bytes)]);
}

test('a model and a state that the rule does not look at are refused', async () => {
  const blob = await blobOf(1, 2);
  const rate = { name: 'fedavg', parameters: { learningRate: 0.5 } };
  const tries = [
    ['strategy-model-unused', { model: blob }],
    ['strategy-model-unused', { model: blob, strategy: { name: 'median' } }],
    ['strategy-state-unused', { state: blob }],
    ['strategy-state-unused', { state: blob, model: blob, strategy: rate }],
  ] as const;
  for (const [code, options] of tries) {
    await failsWith(code, () => aggregateBlobs([{ blob }], { ...options, workers: 0 }));
  }
});

test('a state that begins anew is none', async () => {
  const blob = await blobOf(1, 2);
  await aggregateBlobs([{ blob }], { state: null, workers: 0 });
});

test.run();
