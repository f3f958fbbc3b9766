// Server optimisers file to file: rounds that go on from a state, on one thread or several, and what is refused.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readTensors, startJobs, tensorOf, writeWeights } from '../../dist/index.js';
import { memorySink, memorySource } from '../../src/tensor/bytes.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { Random } from '../helpers/random.ts';

const test = suite('optimiser');
const folder = mkdtempSync(join(tmpdir(), 'cambium-optimiser-'));
const seed = Number(process.env.CAMBIUM_SEED ?? 99);
console.log(`seed ${seed}`);
const random = new Random(seed);
const jobs = startJobs({ threads: 1 });
const LENGTH = 700_000;
const strategy = { name: 'fedyogi', parameters: { learningRate: 0.05 } };

test.after(async () => {
  await jobs.close();
  rmSync(folder, { recursive: true, force: true });
});

async function write(name: string): Promise<string> {
  const path = join(folder, name);
  let sink = memorySink(0);
  const values = Float32Array.from({ length: LENGTH }, () => random.uniform() - 0.5);
  await writeWeights(
    (byteLength: number) => {
      sink = memorySink(byteLength);
      return sink;
    },
    {
      weighting: random.integer(1, 99),
      tensors: [
        tensorOf(values),
        tensorOf(new Int32Array([random.integer(0, 9)])),
        tensorOf(new Uint8Array([random.integer(0, 255)]), []), // its value is known before the file is laid out
      ],
    },
  );
  writeFileSync(path, sink.bytes);
  return path;
}

test('rounds go on from the state, with the same bits on any threads', async () => {
  const start = await write('start.npy');
  const rounds: string[][] = [];
  for (let r = 0; r < 3; r++) {
    rounds.push(await Promise.all([0, 1, 2, 3, 4, 5, 6].map((leaf) => write(`round-${r}-leaf-${leaf}.npy`))));
  }
  const finals: Uint8Array[] = [];
  for (const threads of [1, 3]) {
    let model = start;
    const state = join(folder, `state-${threads}.safetensors`);
    for (const [r, paths] of rounds.entries()) {
      const output = join(folder, `model-${threads}-${r}.npy`);
      await jobs.aggregate({
        inputs: paths.map((path) => ({ path })),
        output,
        strategy,
        model,
        state,
        threads,
      });
      assert.not(existsSync(`${state}.next`));
      model = output;
    }
    finals.push(readFileSync(model), readFileSync(state));
  }
  sameBytes(finals[2]!, finals[0]!, 'models');
  sameBytes(finals[3]!, finals[1]!, 'states');
});

test('the model of a state may be deflated', async () => {
  const inputs = (await Promise.all(['c.npy', 'd.npy'].map(write))).map((path) => ({ path }));
  const state = join(folder, 'state-deflated.safetensors');
  let model = join(folder, 'start.npy');
  for (const output of ['first.npz', 'second.npz'].map((name) => join(folder, name))) {
    await jobs.aggregate({ inputs, output, strategy, model, state, compress: true });
    model = output;
  }
});

test('complex128 steps as pairs of float64, over a state that holds it so', async () => {
  const values = [0, 1, 2, 3].map(() => Float64Array.from({ length: 6 }, () => random.uniform() - 0.5));
  const finals = await Promise.all(
    (['complex128', 'float64'] as const).map(async (dtype) => {
      const paths: string[] = [];
      for (const [i, array] of values.entries()) {
        const pairs = tensorOf(array, [3, 2]);
        const tensor = dtype === 'float64' ? pairs : { ...pairs, dtype, shape: [3] };
        const half = tensorOf(new Float32Array([i]));
        let sink = memorySink(0);
        await writeWeights(
          (byteLength: number) => {
            sink = memorySink(byteLength);
            return sink;
          },
          { weighting: 1 + i, tensors: [half, tensor] },
        );
        paths.push(join(folder, `${dtype}-${i}.npy`));
        writeFileSync(paths[i]!, sink.bytes);
      }
      const inputs = paths.slice(1).map((path) => ({ path }));
      const state = join(folder, `${dtype}-state.safetensors`);
      let model = paths[0]!;
      for (const output of [1, 2].map((round) => join(folder, `${dtype}-next-${round}.npy`))) {
        await jobs.aggregate({ inputs, output, strategy, model, state });
        model = output;
      }
      const { tensors } = await readTensors(memorySource(readFileSync(model)));
      return tensors.map(({ data }) => data);
    }),
  );
  for (const t of [0, 1]) sameBytes(finals[0]![t]!, finals[1]![t]!, `tensor ${t}`);
});

test('a state of another model, a rule without its files or with more than those', async () => {
  const paths = await Promise.all(['a.npy', 'b.npy'].map(write));
  const inputs = paths.map((path) => ({ path }));
  const output = join(folder, 'never.npy');
  const state = join(folder, 'state-1.safetensors');
  const model = join(folder, 'start.npy');
  await failsWith('state-mismatch', () => jobs.aggregate({ inputs, output, strategy, model, state }));
  await failsWith('strategy-state-missing', () => jobs.aggregate({ inputs, output, strategy, model }));
  await failsWith('strategy-model-missing', () => jobs.aggregate({ inputs, output, strategy, state }));
  const plain = { inputs, output, strategy: { name: 'median' } };
  await failsWith('strategy-model-unused', () => jobs.aggregate({ inputs, output, model }));
  await failsWith('strategy-model-unused', () => jobs.aggregate({ ...plain, model }));
  await failsWith('strategy-state-unused', () => jobs.aggregate({ ...plain, state }));
  const rate = { name: 'fedavg', parameters: { learningRate: 0.5 } };
  await failsWith('strategy-state-unused', () =>
    jobs.aggregate({ inputs, output, strategy: rate, model, state }),
  );
  assert.not(existsSync(output));
});

test.run();
