// Encoded updates in aggregations: the bits of decoding first, for every rule, whatever the blocks and lanes, and without a byte
// of scratch room.
import { createHash } from 'node:crypto';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Aggregation, type AggregationInput } from '../../src/aggregate/aggregation.ts';
import { type EncodeOptions, encodeUpdate } from '../../src/aggregate/encode-update.ts';
import { examineElements } from '../../src/aggregate/examine.ts';
import { openStrategy, STRATEGY_NAMES } from '../../src/aggregate/strategies/index.ts';
import { encodeWeights } from '../../src/formats/encode.ts';
import { openWeights } from '../../src/formats/open.ts';
import { prepareWeights, unpackWeights } from '../../src/formats/weights.ts';
import { type ByteSource, memoryScratch, memorySink, memorySource } from '../../src/tensor/bytes.ts';
import { itemSize } from '../../src/tensor/dtypes.ts';
import { type Tensor, tensorOf } from '../../src/tensor/tensor.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { ENCODINGS } from '../helpers/encodings.ts';
import { failsWith } from '../helpers/errors.ts';
import { distantLanes } from '../helpers/lanes.ts';
import { Random, testSeed } from '../helpers/random.ts';
import { PARAMETERS } from '../helpers/strategies.ts';

const test = suite('encoded inputs');
const COMBINATIONS = process.env.CAMBIUM_LONG ? 60 : 6;
const seed = testSeed();

const noScratch = () => {
  throw new Error('scratch room was asked for');
};

function update(random: Random): Tensor[] {
  const floats = (n: number) => new Float32Array(n).map(() => random.gauss());
  return [
    tensorOf(floats(9_001), [9_001], 'embedding'),
    tensorOf(
      Int32Array.from({ length: 50 }, () => random.integer(-300, 300)),
      [50],
      'steps',
    ),
    tensorOf(
      new Float64Array(4_100).map(() => random.gauss()),
      [4_100],
      'wide',
    ),
    tensorOf(floats(1), [1], 'bias'),
    tensorOf(floats(40), [4, 10], 'head'),
  ];
}

/** Lanes of this test know the sources: the handle is never opened. */
function shared(source: ByteSource): ByteSource {
  const { name, byteLength } = source;
  return { ...source, handle: { kind: 'file', name, byteLength, descriptor: -1 } };
}

/** The same update as it is, and decoded before. */
async function inputsOf(leaf: string, bytes: Uint8Array) {
  const weights = await openWeights(shared(memorySource(bytes, leaf)));
  const { weighting } = weights.layout;
  const encoded = await prepareWeights(weights, { scratch: noScratch });
  const decoded = await unpackWeights(weights, { scratch: memoryScratch });
  return { encoded: { leaf, ...encoded, weighting }, decoded: { leaf, ...decoded, weighting } };
}

async function run(
  inputs: readonly AggregationInput[],
  options: Parameters<typeof Aggregation.open>[1],
  lanes: number,
  random: Random,
) {
  const aggregation = await Aggregation.open(inputs, { scratch: noScratch, ...options });
  const { tensors, stateTensors } = aggregation;
  const encoding = await encodeWeights({ format: 'npy-object', weighting: 1, tensors });
  const sink = memorySink(encoding.byteLength);
  let stateBytes = 0;
  const byteOffsets = stateTensors.map(({ dtype, shape }) => {
    const offset = stateBytes;
    stateBytes += shape.reduce((size, dimension) => size * dimension, itemSize(dtype));
    return offset;
  });
  const state = memorySink(stateBytes);
  const sources = [...(options?.model === undefined ? [] : [options.model]), ...inputs].map(
    ({ source }) => source,
  );
  await aggregation.run(sink, encoding, {
    openLanes: lanes === 1 ? undefined : distantLanes(lanes - 1, sources, random),
    state: stateBytes === 0 ? undefined : { sink: state, byteOffsets },
  });
  await aggregation.close();
  const digest = createHash('sha256').update(sink.bytes).update(state.bytes).digest('hex');
  return { digest, bytesRead: aggregation.bytesRead };
}

for (const name of STRATEGY_NAMES) {
  test(`${name}: the bits of decoding first`, async () => {
    const random = new Random(seed);
    const global = await inputsOf(
      'global',
      (await encodeUpdate({ weighting: 1, tensors: update(random) }, { quantise: 'bfloat16' })).bytes,
    );
    const leaves = [];
    for (const [i, options] of ENCODINGS.entries()) {
      const { bytes } = await encodeUpdate({ weighting: i + 1, tensors: update(random) }, options);
      leaves.push(await inputsOf(`leaf-${i}`, bytes));
    }
    const perLeaf = new Map(leaves.map(({ encoded }, i) => [encoded.leaf, i + 1]));
    const strategy = openStrategy(
      name,
      PARAMETERS[name],
      name === 'fednova' || name === 'buffered' ? perLeaf : undefined,
    );
    const model = (of: 'encoded' | 'decoded') => (strategy.needsModel ? global[of] : undefined);
    const decoded = leaves.map((leaf) => leaf.decoded);
    const expected = await run(decoded, { strategy, model: model('decoded') }, 1, random);
    for (let n = 0; n < COMBINATIONS; n++) {
      const blockBytes = n === 0 ? undefined : 2 ** random.integer(10, 17) + random.integer(0, 999);
      const lanes = random.integer(1, 3);
      const inputs = leaves.map((leaf) => leaf.encoded);
      const { digest } = await run(inputs, { strategy, model: model('encoded'), blockBytes }, lanes, random);
      assert.is(digest, expected.digest, `blocks of ${blockBytes}, ${lanes} lanes`);
    }
  });
}

test('what is read is the encoded bytes', async () => {
  const random = new Random(seed + 1);
  const n = 400_000;
  const inputs = [];
  let bytes = 0;
  for (const [i, options] of ENCODINGS.slice(1, 7).entries()) {
    const tensors = [
      tensorOf(
        new Float32Array(n).map(() => random.gauss()),
        [n],
        'w',
      ),
    ];
    const file = (await encodeUpdate({ weighting: 1, tensors }, options)).bytes;
    bytes += file.byteLength;
    inputs.push((await inputsOf(`leaf-${i}`, file)).encoded);
  }
  const { bytesRead } = await run(inputs, {}, 1, random);
  assert.ok(bytesRead > 0.99 * bytes && bytesRead < 1.02 * bytes, `${bytesRead} of ${bytes}`);
});

/** A file with a part overwritten: `at` is where its numbers begin. */
async function spoilt(options: EncodeOptions, part: string, value: number) {
  const { bytes } = await encodeUpdate(
    {
      weighting: 1,
      tensors: [
        tensorOf(
          new Float32Array(600).map((_, i) => i / 600),
          [600],
          'w',
        ),
      ],
    },
    options,
  );
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const [begin] = header[part].data_offsets;
  new DataView(bytes.buffer).setFloat32(8 + length + begin, value, true);
  return bytes;
}

test('a scale or a value that is no number is refused with leaf, tensor and index, or follows IEEE 754', async () => {
  const cases: readonly [EncodeOptions, string, number, index: number][] = [
    [{ quantise: 'int8' }, 'scales.0', Number.NaN, 0],
    [{ quantise: 'int8-block' }, 'scales.0', Number.NaN, 0],
    [{ topK: 0.01 }, 'values.0', Number.POSITIVE_INFINITY, 594],
  ];
  for (const [options, part, value, index] of cases) {
    const bytes = await spoilt(options, part, value);
    const { encoded } = await inputsOf('leaf', bytes);
    const other = (
      await inputsOf(
        'other',
        (
          await encodeUpdate(
            { weighting: 1, tensors: [tensorOf(new Float32Array(600), [600], 'w')] },
            options,
          )
        ).bytes,
      )
    ).encoded;
    for (const name of ['mean', 'median', 'krum']) {
      const strategy = openStrategy(name, name === 'krum' ? { byzantine: 0 } : {});
      const inputs = name === 'krum' ? [encoded, other, { ...other, leaf: 'third' }] : [encoded, other];
      const error = await failsWith('non-finite', () => run(inputs, { strategy }, 1, new Random(1)));
      assert.match(error.message, new RegExp(`tensor "w"\\[${index}\\] of leaf`));
    }
    await run([encoded, other], { nonFinite: 'propagate' }, 1, new Random(1));
    const { nonFinite } = await examineElements(encoded, { leaf: 'leaf', scratch: memoryScratch });
    assert.equal(nonFinite[0], { tensor: 0, index, leaf: 'leaf' });
  }
});

test('a lone encoded input comes back as it is decoded', async () => {
  const random = new Random(seed + 2);
  for (const options of ENCODINGS) {
    const { bytes } = await encodeUpdate({ weighting: 7, tensors: update(random) }, options);
    const { encoded, decoded } = await inputsOf('leaf', bytes);
    const aggregation = await Aggregation.open([encoded]);
    const encoding = await encodeWeights({ format: 'npz', weighting: 7, tensors: aggregation.tensors });
    const sink = memorySink(encoding.byteLength);
    await aggregation.run(sink, encoding);
    await aggregation.close();
    for (const [i, { offset, byteLength }] of encoding.payloads.entries()) {
      const whole = new Uint8Array(byteLength);
      await decoded.source.readInto(decoded.layout.tensors[i]!.byteOffset!, whole);
      sameBytes(sink.bytes.subarray(offset, offset + byteLength), whole, JSON.stringify(options));
    }
  }
});

test.run();
