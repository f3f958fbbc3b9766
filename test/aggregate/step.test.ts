// Rules that step from a global model and keep a state, through the whole engine: against the formulas in plain binary64.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Aggregation, type AggregationInput, type StateInput } from '../../src/aggregate/aggregation.ts';
import { openStrategy, type Strategy, strategies } from '../../src/aggregate/strategies/index.ts';
import type { Encoding, TensorSpec } from '../../src/formats/encoding.ts';
import { type ByteSource, memorySink, memorySource } from '../../src/tensor/bytes.ts';
import { itemSize } from '../../src/tensor/dtypes.ts';
import { elementCount, type TensorLayout } from '../../src/tensor/layout.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { Random } from '../helpers/random.ts';

const test = suite('step');
const seed = Number(process.env.CAMBIUM_SEED ?? 2021);
console.log(`seed ${seed}`);

const TENSORS: readonly TensorSpec[] = [
  { name: 'weights', dtype: 'float32', shape: [90, 100] },
  { name: 'count', dtype: 'int64', shape: [] },
  { name: 'bias', dtype: 'float64', shape: [4_100] },
  { name: 'half', dtype: 'float16', shape: [0] },
];

function bare(tensors: readonly TensorSpec[]): Encoding {
  let offset = 0;
  const payloads = tensors.map(({ dtype, shape }) => {
    const byteLength = elementCount(shape) * itemSize(dtype);
    offset += byteLength;
    return { offset: offset - byteLength, byteLength };
  });
  return { byteLength: offset, literals: [], payloads };
}

function layoutsOf(tensors: readonly TensorSpec[]): TensorLayout[] {
  const { payloads } = bare(tensors);
  return tensors.map((tensor, i) => ({
    ...tensor,
    order: 'C',
    byteOrder: 'little',
    byteOffset: payloads[i]!.offset,
    byteLength: payloads[i]!.byteLength,
  }));
}

function randomModel(random: Random): Uint8Array {
  const bytes = new Uint8Array(bare(TENSORS).byteLength);
  const view = new DataView(bytes.buffer);
  const [weights = 0, count = 0, bias = 0] = bare(TENSORS).payloads.map(({ offset }) => offset);
  for (let i = 0; i < 9_000; i++) view.setFloat32(weights + 4 * i, random.gauss(), true);
  view.setBigInt64(count, BigInt(random.integer(0, 1000)), true);
  for (let i = 0; i < 4_100; i++) view.setFloat64(bias + 8 * i, random.gauss(), true);
  return bytes;
}

const inputOf = (leaf: string, bytes: Uint8Array) => ({
  leaf,
  source: memorySource(bytes, leaf),
  layout: { tensors: layoutsOf(TENSORS) },
});

interface Round {
  readonly model: Uint8Array;
  readonly state: Uint8Array;
  readonly aggregation: Aggregation;
}

async function round(
  strategy: Strategy,
  inputs: readonly AggregationInput[],
  model: Uint8Array,
  state: Uint8Array | null,
  blockBytes?: number,
): Promise<Round> {
  const open = (stateInputs: readonly StateInput[] | undefined) =>
    Aggregation.open(inputs, { strategy, model: inputOf('global', model), state: stateInputs, blockBytes });
  let aggregation = await open(undefined);
  if (state !== null) {
    const specs = aggregation.stateTensors;
    const layouts = layoutsOf(specs);
    const source: ByteSource = memorySource(state, 'state');
    const slots = [...new Set(specs.map(({ slot }) => slot.name))];
    await aggregation.close();
    aggregation = await open(
      slots.map((name) => ({
        source,
        tensors: TENSORS.map(
          (_, t) => layouts[specs.findIndex((s) => s.slot.name === name && s.tensor === t)],
        ),
      })),
    );
  }
  const encoding = bare(TENSORS);
  const stateEncoding = bare(aggregation.stateTensors);
  const sink = memorySink(encoding.byteLength);
  const stateSink = memorySink(stateEncoding.byteLength);
  await aggregation.run(sink, encoding, {
    state: { sink: stateSink, byteOffsets: stateEncoding.payloads.map(({ offset }) => offset) },
  });
  await aggregation.close();
  return { model: sink.bytes, state: stateSink.bytes, aggregation };
}

/** FedAdam in plain numbers: float32 tensors keep float32 states, float64 ones float64. */
function adam(mean: Uint8Array, model: Uint8Array, m: Float64Array, v: Float64Array): Uint8Array {
  const out = mean.slice();
  const [a, x, o] = [mean, model, out].map((bytes) => new DataView(bytes.buffer)) as [
    DataView,
    DataView,
    DataView,
  ];
  const { payloads } = bare(TENSORS);
  let at = 0;
  for (const [tensor, size, count] of [
    [0, 4, 9_000],
    [2, 8, 4_100],
  ] as const) {
    for (let i = 0; i < count; i++, at++) {
      const place = payloads[tensor]!.offset + i * size;
      const get = (view: DataView) =>
        size === 4 ? view.getFloat32(place, true) : view.getFloat64(place, true);
      const round = size === 4 ? Math.fround : (value: number) => value;
      const d = get(a) - get(x);
      const mNew = 0.9 * m[at]! + (1 - 0.9) * d;
      const vNew = 0.99 * v[at]! + (1 - 0.99) * (d * d);
      const next = get(x) + (0.1 * mNew) / (Math.sqrt(vNew) + 1e-3);
      m[at] = round(mNew);
      v[at] = round(vNew);
      if (size === 4) o.setFloat32(place, next, true);
      else o.setFloat64(place, next, true);
    }
  }
  return out;
}

test('fedadam over ten rounds equals its formula, whatever the blocks', async () => {
  const strategy = openStrategy('fedadam', { learningRate: 0.1 });
  const random = new Random(seed);
  const start = randomModel(random);
  const updates = Array.from({ length: 10 }, () =>
    [1, 2, 3].map((n) => [`leaf ${n}`, randomModel(random)] as const),
  );
  const m = new Float64Array(13_100);
  const v = new Float64Array(13_100).fill(1e-3 * 1e-3);
  // The state of float32 tensors is float32 from the second round on.
  let expected = start;
  let model = start;
  let state: Uint8Array | null = null;
  for (const [r, leaves] of updates.entries()) {
    const inputs = leaves.map(([leaf, bytes], i) => ({ ...inputOf(leaf, bytes), weighting: 10 + i }));
    const plain = await round(strategies.mean, inputs, model, null);
    if (r === 0) for (let i = 0; i < 9_000; i++) v[i] = Math.fround(1e-3 * 1e-3);
    expected = adam(plain.model, model, m, v);
    const blocks: Round[] = [];
    for (const blockBytes of [undefined, 1 << 10, 33_000]) {
      blocks.push(await round(strategy, inputs, model, state, blockBytes));
    }
    for (const [b, one] of blocks.entries()) {
      sameBytes(one.model, expected, `round ${r}, blocks ${b}`);
      sameBytes(one.state, blocks[0]!.state, `state of round ${r}, blocks ${b}`);
    }
    model = blocks[0]!.model;
    state = blocks[0]!.state;
  }
});

test('a plain rate keeps no state, and at 1 it is the mean', async () => {
  const random = new Random(seed);
  const model = randomModel(random);
  const inputs = ['a', 'b'].map((leaf) => ({ ...inputOf(leaf, randomModel(random)), weighting: 1 }));
  const plain = await round(strategies.mean, inputs, model, null);
  const whole = await round(openStrategy('fedavg', { learningRate: 1 }), inputs, model, null);
  sameBytes(whole.model, plain.model);
  assert.is(whole.state.byteLength, 0);
  const half = await round(openStrategy('fedavg', { learningRate: 0.5 }), inputs, model, null);
  assert.ok(half.model.some((byte, i) => byte !== plain.model[i]));
  sameBytes(
    half.model.subarray(36_000, 36_008),
    plain.model.subarray(36_000, 36_008),
    'integers stay at the mean',
  );
});

test('clipping shortens what is too long', async () => {
  const random = new Random(seed);
  const model = randomModel(random);
  const inputs = ['a', 'b'].map((leaf) => ({ ...inputOf(leaf, randomModel(random)), weighting: 1 }));
  const plain = await round(strategies.mean, inputs, model, null);
  const loose = await round(openStrategy('clipped-mean', { norm: 1e9 }), inputs, model, null);
  sameBytes(loose.model, plain.model);
  const tight = await round(openStrategy('clipped-mean', { norm: 1e-3 }), inputs, model, null);
  const [x, y] = [model, tight.model].map((bytes) => new Float32Array(bytes.buffer, 0, 9_000)) as [
    Float32Array,
    Float32Array,
  ];
  const distance = Math.sqrt(x.reduce((sum, value, i) => sum + (value - y[i]!) ** 2, 0));
  assert.ok(distance > 1e-4 && distance < 2e-3, `${distance}`);
});

test('a model that is missing, a state that does not fit, a result that is too large', async () => {
  const random = new Random(seed);
  const model = randomModel(random);
  const inputs = ['a', 'b'].map((leaf) => ({ ...inputOf(leaf, randomModel(random)), weighting: 1 }));
  const strategy = openStrategy('fedavgm');
  await failsWith('strategy-model-missing', () => Aggregation.open(inputs, { strategy }));
  const wrong = { source: memorySource(new Uint8Array(9), 'state'), tensors: [] };
  await failsWith('state-mismatch', () =>
    Aggregation.open(inputs, { strategy, model: inputOf('global', model), state: [wrong] }),
  );
  await failsWith('state-mismatch', () =>
    Aggregation.open(inputs, { strategy, model: inputOf('global', model), state: [wrong, wrong] }),
  );
  const huge = openStrategy('fedavg', { learningRate: 1e300 });
  const error = await failsWith('non-finite', () => round(huge, inputs, model, null));
  assert.match(error.message, /of the result/);
  const spoilt = model.slice();
  new DataView(spoilt.buffer).setFloat32(4 * 77, Number.NaN, true);
  const named = await failsWith('non-finite', () =>
    round(openStrategy('fedavg', { learningRate: 0.5 }), inputs, spoilt, null),
  );
  assert.match(named.message, /weights\[77\] of global|\[77\] of global/);
});

test.run();
