// Differences to a global model: what a rule makes of them is added to the model.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { AggregationInput, AggregationOptions } from '../../src/aggregate/aggregation.ts';
import { Aggregation } from '../../src/aggregate/aggregation.ts';
import { average } from '../../src/aggregate/average.ts';
import { addModel, subtractModel } from '../../src/aggregate/differences.ts';
import { encodeUpdate } from '../../src/aggregate/encode-update.ts';
import { openStrategy } from '../../src/aggregate/strategies/index.ts';
import { Summation } from '../../src/aggregate/summation.ts';
import { openWeights } from '../../src/formats/open.ts';
import { prepareWeights } from '../../src/formats/weights.ts';
import { memoryScratch, memorySink, memorySource } from '../../src/tensor/bytes.ts';
import { type Tensor, tensorOf } from '../../src/tensor/tensor.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { Random, testSeed } from '../helpers/random.ts';
import { PARAMETERS } from '../helpers/strategies.ts';

const test = suite('differences in aggregations');
const random = new Random(testSeed());
const N = 5_000;

function tensors(): Tensor[] {
  return [
    tensorOf(
      new Float32Array(N).map(() => random.gauss()),
      [N],
      'w',
    ),
    tensorOf(Int32Array.of(random.integer(0, 99), random.integer(0, 99)), [2], 'steps'),
    tensorOf(
      new Float64Array(40).map(() => random.gauss()),
      [40],
      'wide',
    ),
  ];
}

async function inputOf(leaf: string, bytes: Uint8Array): Promise<AggregationInput> {
  const weights = await openWeights(memorySource(bytes, leaf));
  const ready = await prepareWeights(weights, { scratch: memoryScratch });
  return { leaf, ...ready, weighting: weights.layout.weighting };
}

/** The tensors of a result, one behind the other. */
async function run(inputs: readonly AggregationInput[], options: AggregationOptions): Promise<Uint8Array> {
  const aggregation = await Aggregation.open(inputs, options);
  const sizes = [4 * N, 8, 320];
  const payloads = sizes.map((byteLength, i) => ({
    offset: sizes.slice(0, i).reduce((sum, size) => sum + size, 0),
    byteLength,
  }));
  const sink = memorySink(4 * N + 328);
  await aggregation.run(sink, { byteLength: 4 * N + 328, literals: [], payloads });
  await aggregation.close();
  return sink.bytes;
}

const joined = (list: readonly Tensor[]) => Buffer.concat(list.map(({ data }) => data));

const global = tensors();
const globalFile = (await encodeUpdate({ weighting: 1, tensors: global })).bytes;
const updates = Array.from({ length: 5 }, (_, i) => ({ weighting: i + 1, tensors: tensors() }));
const model = await inputOf('global', globalFile);
const plain: AggregationInput[] = [];
const marked: AggregationInput[] = [];
for (const [i, update] of updates.entries()) {
  const { bytes } = await encodeUpdate(update, { differenceTo: global });
  marked.push(await inputOf(`leaf-${i}`, bytes));
  // The same numbers in a file that does not say what they are.
  const { isDifference: _, ...layout } = marked[i]!.layout;
  plain.push({ ...marked[i]!, layout });
}
const differences = await Promise.all(
  updates.map(async ({ weighting, tensors: own }) => ({
    weighting,
    tensors: await subtractModel(own, global),
  })),
);

test('a rule without a step: its result is added to the model, rounded once', async () => {
  for (const name of ['mean', 'median', 'weighted-median', 'trimmed-mean', 'krum', 'geometric-median']) {
    const strategy = openStrategy(name, name === 'krum' ? { byzantine: 1 } : PARAMETERS[name]);
    const { tensors: mean } = await average(differences, { strategy });
    const expected = joined(await addModel(mean, global));
    sameBytes(await run(marked, { strategy, model }), expected, name);
    sameBytes(await run(plain, { strategy, model, differences: true }), expected, `${name}, plain`);
    sameBytes(await run(plain, { strategy, model, differences: true, blockBytes: 1_500 }), expected, name);
  }
});

test('a server optimiser steps by them, as one that was made for differences', async () => {
  const strategy = openStrategy('fedavg', { learningRate: 0.5 });
  const expected = await run(marked, {
    strategy: { ...strategy, step: { kind: 'rate', differences: true } },
    model,
  });
  sameBytes(await run(marked, { strategy, model }), expected);
});

test('clipping looks at the differences themselves', async () => {
  const clip = openStrategy('clipped-mean', { norm: 20 });
  const got = new Float32Array((await run(marked, { strategy: clip, model })).buffer, 0, N);
  const zero = await inputOf(
    'zero',
    (
      await encodeUpdate({
        weighting: 1,
        tensors: global.map((t) => ({ ...t, data: new Uint8Array(t.data.length) })),
      })
    ).bytes,
  );
  const step = new Float32Array((await run(plain, { strategy: clip, model: zero })).buffer, 0, N);
  const origin = new Float32Array(global[0]!.data.slice().buffer);
  for (let i = 0; i < N; i++) assert.ok(Math.abs(origin[i]! + step[i]! - got[i]!) < 1e-6, `${i}`);
  const mean = new Float32Array((await run(marked, { model })).buffer, 0, N);
  assert.ok(mean.some((value, i) => Math.abs(value - got[i]!) > 1e-3)); // something was clipped
});

test('a lone difference of nothing leaves every bit of the model', async () => {
  const none = await encodeUpdate(
    { weighting: 3, tensors: global },
    { differenceTo: global, quantise: 'int8' },
  );
  const lone = await inputOf('leaf', none.bytes);
  const out = await run([lone], { model });
  sameBytes(out.subarray(0, 4 * N), global[0]!.data);
  sameBytes(out.subarray(4 * N), joined(global.slice(1)));
});

test('differences among models, and what lacks a model, are refused', async () => {
  const whole = await inputOf('whole', globalFile);
  const mean = openStrategy('mean');
  for (const [code, inputs, options] of [
    ['aggregate-difference', [marked[0]!, whole], { model }],
    ['aggregate-difference', [marked[0]!, plain[1]!], { model }],
    ['aggregate-difference', [whole], { model, differences: true }],
    ['aggregate-difference', [marked[0]!], { model: marked[1]! }],
    ['strategy-model-missing', [marked[0]!], {}],
    ['strategy-model-missing', [plain[0]!], { differences: true, strategy: mean }],
    [
      'average-count',
      [marked[0]!],
      { model: { ...model, layout: { tensors: model.layout.tensors.slice(1) } } },
    ],
  ] as const) {
    const error = await failsWith(code, () => Aggregation.open(inputs, options));
    assert.match(error.message, /leaf-0|whole|leaf-1/);
  }
  await failsWith('aggregate-difference', () =>
    Summation.open(
      { updates: [marked[0]!], sums: [], without: [] },
      { nonFinite: 'reject', scratch: memoryScratch },
    ),
  );
});

test.run();
