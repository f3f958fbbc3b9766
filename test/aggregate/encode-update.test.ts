import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Aggregation } from '../../src/aggregate/aggregation.ts';
import { average } from '../../src/aggregate/average.ts';
import { decodeUpdate, type EncodeOptions, encodeUpdate } from '../../src/aggregate/encode-update.ts';
import { strategies } from '../../src/aggregate/strategies/index.ts';
import { isCambiumError } from '../../src/errors.ts';
import { openWeights } from '../../src/formats/open.ts';
import { prepareWeights } from '../../src/formats/weights.ts';
import { memoryScratch, memorySource } from '../../src/tensor/bytes.ts';
import { decodeFloat16 } from '../../src/tensor/float16.ts';
import { type Tensor, tensorOf } from '../../src/tensor/tensor.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { ENCODINGS } from '../helpers/encodings.ts';
import { failsWith } from '../helpers/errors.ts';
import { Random, testSeed } from '../helpers/random.ts';

const seed = testSeed();
const random = new Random(seed);
const floats = (n: number) => new Float32Array(n).map(() => random.gauss());
const numbers = ({ data }: Tensor) => new Float32Array(data.slice().buffer);
const steps = tensorOf(Int32Array.of(7, 8, 9), [3], 'steps');

/** Every finite float16 from 0 on. */
const halves = Array.from({ length: 0x7c00 }, (_, bits) => decodeFloat16(bits));

/** What an encoding means, said in plain loops. */
function naive(x: Float32Array, { quantise, topK, block = 256 }: EncodeOptions): Float32Array {
  const round = Math.fround;
  if (topK !== undefined) {
    const order = [...x.keys()].sort((a, b) => Math.abs(x[b]!) - Math.abs(x[a]!) || a - b);
    const kept = new Set(order.slice(0, Math.ceil(topK * x.length)));
    return x.map((value, i) => (kept.has(i) ? value : 0));
  }
  if (quantise === 'bfloat16') {
    const bits = new Uint32Array(x.slice().buffer).map(
      (word) => ((word + 0x7fff + ((word >>> 16) & 1)) >>> 16) << 16,
    );
    return new Float32Array(bits.buffer);
  }
  if (quantise === 'float16') {
    return x.map((value) => {
      const a = Math.abs(value);
      let low = 0;
      for (let step = 1 << 14; step > 0; step >>= 1) {
        if (halves[low + step]! <= a) low += step;
      }
      const up = (halves[low + 1] ?? 65_536) - a;
      const isUp = up < a - halves[low]! || (up === a - halves[low]! && low % 2 === 1);
      const magnitude = halves[isUp ? low + 1 : low]!;
      return value < 0 || Object.is(value, -0) ? -magnitude : magnitude;
    });
  }
  if (quantise === undefined) return x;
  const size = quantise === 'int8' ? Math.max(1, x.length) : block;
  const nearest = (value: number) => {
    const rest = value - Math.floor(value);
    return rest === 0.5 ? 2 * Math.round(value / 2) : Math.round(value);
  };
  const clamp = (value: number) => Math.min(127, Math.max(-128, value));
  let [lo, hi] = [0, 0];
  return x.map((value, i) => {
    if (i % size === 0) {
      const run = x.subarray(i, i + size);
      lo = Math.min(0, ...run);
      hi = Math.max(0, ...run);
    }
    const scale = round((hi - lo) / 255);
    if (scale === 0) return 0;
    const zero = clamp(nearest(-128 - lo / scale));
    return scale * (clamp(nearest(round(value / scale)) + zero) - zero);
  });
}

const test = suite('encoded updates');

test('every encoding means what it says, at every length', async () => {
  for (const options of ENCODINGS) {
    for (const n of [...Array.from({ length: 68 }, (_, i) => i), 255, 256, 257, 4_097]) {
      const x = floats(n);
      const update = { weighting: 12, tensors: [steps, tensorOf(x, [n], 'w')] };
      const { bytes, residual } = await encodeUpdate(update, options);
      const back = await decodeUpdate(bytes);
      const what = `${JSON.stringify(options)}, n ${n}`;
      assert.is(back.weighting, 12);
      assert.is(back.isDifference, false);
      sameBytes(back.tensors[0]!.data, steps.data, what);
      const expected = naive(x, options);
      sameBytes(back.tensors[1]!.data, expected, what);
      sameBytes(
        residual[1]!.data,
        x.map((value, i) => value - expected[i]!),
        `${what}: the rest`,
      );
    }
  }
});

test('tensors of several pieces come back, without names too', async () => {
  const n = 150_000;
  const x = floats(n);
  for (const options of ENCODINGS.filter(({ block }) => block === undefined)) {
    const { bytes } = await encodeUpdate({ weighting: 1, tensors: [tensorOf(x, [3, n / 3])] }, options);
    const { tensors } = await decodeUpdate(bytes);
    assert.equal([tensors[0]!.name, tensors[0]!.shape], [null, [3, n / 3]]);
    if (options.quantise === 'int8') continue; // the naive one would take all elements as arguments
    sameBytes(tensors[0]!.data, naive(x, options), JSON.stringify(options));
    assert.ok(options.quantise === undefined || bytes.byteLength < 2.1 * n);
  }
});

test('differences with error feedback lose nothing but time', async () => {
  const n = 1_000;
  const model = [tensorOf(new Float32Array(n).fill(1), [n], 'w')];
  const target = floats(n);
  let residual: readonly Tensor[] | undefined;
  const sum = new Float32Array(n);
  for (let round = 0; round < 12; round++) {
    const update = { weighting: 1, tensors: [tensorOf(target, [n], 'w')] };
    const sent = await encodeUpdate(update, { topK: 0.1, differenceTo: model, residual });
    const { tensors, isDifference } = await decodeUpdate(sent.bytes);
    assert.ok(isDifference);
    const [got, left] = [numbers(tensors[0]!), numbers(sent.residual[0]!)];
    const before = residual === undefined ? new Float32Array(n) : numbers(residual[0]!);
    for (let i = 0; i < n; i++) {
      const p = Math.fround(Math.fround(target[i]! - 1) + before[i]!);
      assert.ok(got[i]! + left[i]! === p && (got[i] === 0 || left[i] === 0));
      sum[i]! += got[i]!;
    }
    residual = sent.residual;
  }
  const mostly = sum.filter((value) => value !== 0).length;
  assert.ok(mostly > 0.6 * n, `${mostly}`); // ten times a tenth, largest first
});

async function inputOf(leaf: string, bytes: Uint8Array) {
  const weights = await prepareWeights(await openWeights(memorySource(bytes, leaf)), {
    scratch: memoryScratch,
  });
  return { leaf, ...weights, weighting: weights.layout.weighting };
}

test('averages of encoded updates are those of decoded ones; differences do not mix with models', async () => {
  const n = 5_000;
  const forms: EncodeOptions[] = [{ quantise: 'int8' }, { quantise: 'float16' }, { topK: 0.1 }, {}];
  const files = await Promise.all(
    forms.map((options, i) =>
      encodeUpdate({ weighting: i + 1, tensors: [tensorOf(floats(n), [n], 'w')] }, options),
    ),
  );
  const expected = await average(await Promise.all(files.map(({ bytes }) => decodeUpdate(bytes))));
  const inputs = await Promise.all(files.map(({ bytes }, i) => inputOf(`leaf ${i}`, bytes)));
  const aggregation = await Aggregation.open(inputs);
  const out = new Uint8Array(4 * n);
  const sink = { write: (at: number, bytes: Uint8Array) => out.set(bytes, at), commit() {}, discard() {} };
  await aggregation.run(sink, {
    byteLength: 4 * n,
    literals: [],
    payloads: [{ offset: 0, byteLength: 4 * n }],
  });
  await aggregation.close();
  sameBytes(out, expected.tensors[0]!.data);

  const model = [tensorOf(floats(n), [n], 'w')];
  const update = { weighting: 1, tensors: [tensorOf(floats(n), [n], 'w')] };
  const { bytes } = await encodeUpdate(update, { differenceTo: model });
  const difference = await inputOf('difference', bytes);
  await failsWith('aggregate-difference', () => Aggregation.open([...inputs, difference]));
  await failsWith('strategy-model-missing', () => Aggregation.open([difference]));
  const fedAvg = strategies.fedAvg({ learningRate: 1, differences: true });
  await failsWith('aggregate-difference', () =>
    Aggregation.open(inputs, { strategy: fedAvg, model: difference }),
  );
  const applied = await Aggregation.open([difference], { strategy: fedAvg, model: inputs[3] });
  await applied.close();
});

test('what cannot be encoded, and options that make no sense', async () => {
  const of = (...x: number[]) => ({ weighting: 1, tensors: [tensorOf(Float32Array.from(x))] });
  for (const quantise of ['int8', 'int8-block', 'float16', 'bfloat16'] as const) {
    const error = await failsWith('non-finite', () => encodeUpdate(of(1, Number.NaN), { quantise }));
    assert.match(error.message, /tensor 0\[1\]/);
  }
  await failsWith('non-finite', () => encodeUpdate(of(1, Infinity), { topK: 0.5 }));
  await failsWith('non-finite', () => encodeUpdate(of(65_520), { quantise: 'float16' }));
  await encodeUpdate(of(65_519), { quantise: 'float16' });
  for (const options of [
    { topK: 0 },
    { topK: 1.1 },
    { topK: 0.5, quantise: 'int8' },
    { block: 17 },
  ] as const) {
    let error: unknown;
    await encodeUpdate(of(1), options).catch((caught) => {
      error = caught;
    });
    assert.instance(error, RangeError);
  }
});

test('every truncation is refused, and no changed byte does harm', async () => {
  for (const options of [
    { quantise: 'int8-block', block: 16 },
    { quantise: 'float16' },
    { topK: 0.2 },
  ] as const) {
    const x = floats(40);
    const { bytes } = await encodeUpdate(
      { weighting: 3, tensors: [steps, tensorOf(x, [5, 8], 'w')] },
      options,
    );
    for (let length = 0; length < bytes.byteLength; length++) {
      let error: unknown;
      await decodeUpdate(bytes.slice(0, length)).catch((caught) => {
        error = caught;
      });
      assert.ok(isCambiumError(error), `${JSON.stringify(options)} cut at ${length}: ${error}`);
    }
    for (let at = 0; at < bytes.byteLength; at++) {
      const changed = bytes.slice();
      changed[at]! ^= 1 << random.integer(0, 7);
      try {
        const { tensors } = await decodeUpdate(changed);
        assert.ok(tensors.length <= 5, `byte ${at}`);
      } catch (error) {
        if (!isCambiumError(error)) throw error;
      }
    }
  }
});

test('hostile metadata and indices', async () => {
  const { bytes } = await encodeUpdate(
    { weighting: 3, tensors: [tensorOf(floats(40), [40], 'w')] },
    { topK: 0.1 },
  );
  const replaced = (from: string, to: string) => {
    const text = Buffer.from(bytes).toString('latin1');
    assert.ok(text.includes(from) && from.length === to.length, from);
    return new Uint8Array(Buffer.from(text.replace(from, to), 'latin1'));
  };
  const cases: readonly [code: string, from: string, to: string][] = [
    ['encoded-version', '"version":"1"', '"version":"2"'],
    ['encoded-metadata', '"difference":"false"', '"difference":"fals_"'],
    ['encoded-metadata', '\\"shape\\":[40]', '\\"shape\\":[-4]'],
    ['encoded-part', '\\"shape\\":[40]', '\\"shape\\":[03]'.replace('03', ' 3')],
    ['encoded-metadata', '\\"encoding\\":\\"top-k\\"', '\\"encoding\\":\\"top-q\\"'],
    ['encoded-metadata', '\\"dtype\\":\\"float32\\"', '\\"dtype\\":\\"float64\\"'],
    ['encoded-metadata', '"tensors":"[', '"tensors":"{'],
    ['encoded-part', '"indices.0"', '"indices.1"'],
  ];
  for (const [code, from, to] of cases) await failsWith(code, () => decodeUpdate(replaced(from, to)));
  const { byteLength } = bytes;
  for (const [position, index] of [
    [0, 39],
    [3, 40],
    [3, 0],
    [1, 0xffff_ffff],
  ] as const) {
    // Four indices and four values are the last of the file; which come first is the writer's.
    for (const base of [byteLength - 32, byteLength - 16]) {
      const changed = bytes.slice();
      const view = new DataView(changed.buffer);
      const isIndex = new DataView(bytes.buffer).getUint32(base, true) < 40;
      view.setUint32(base + 4 * position, index, true);
      if (isIndex) await failsWith('encoded-indices', () => decodeUpdate(changed));
    }
  }
});

test('any update comes back as its encoding means', async () => {
  const float = fc.float({ noNaN: true, min: -1000, max: 1000 });
  await fc.assert(
    fc.asyncProperty(
      fc.array(float, { maxLength: 90 }),
      fc.constantFrom(...ENCODINGS),
      async (list, options) => {
        const x = Float32Array.from(list);
        const { bytes } = await encodeUpdate({ weighting: 1, tensors: [tensorOf(x)] }, options);
        const [tensor] = (await decodeUpdate(bytes)).tensors;
        const expected = naive(x, options).map((value) =>
          options.quantise?.startsWith('int8') ? value + 0 : value,
        );
        assert.equal(
          Array.from(numbers(tensor!), (v) => v + 0),
          Array.from(expected, (v) => v + 0),
        );
      },
    ),
    { seed, numRuns: 60 },
  );
});

test.run();
