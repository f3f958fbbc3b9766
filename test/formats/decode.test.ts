import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { decodeUpdate, type EncodeOptions, encodeUpdate } from '../../src/aggregate/encode-update.ts';
import { openStrategies } from '../../src/core/core.ts';
import { Decoder, MARKED_PAIRS, MIN_DECODE_ROOM, type Piece } from '../../src/formats/decode.ts';
import { openWeights } from '../../src/formats/open.ts';
import { prepareWeights } from '../../src/formats/weights.ts';
import { type ByteSource, memorySource } from '../../src/tensor/bytes.ts';
import { itemSize } from '../../src/tensor/dtypes.ts';
import { elementCount } from '../../src/tensor/layout.ts';
import { tensorOf } from '../../src/tensor/tensor.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { ENCODINGS } from '../helpers/encodings.ts';
import { failsWith } from '../helpers/errors.ts';
import { Random, testSeed } from '../helpers/random.ts';

const test = suite('decoding of ranges');
const random = new Random(testSeed());
const floats = (n: number) => new Float32Array(n).map(() => random.gauss());

/** No scratch room: that is what decoding ranges is for. */
const NO_SCRATCH = {
  scratch: () => {
    throw new Error('scratch room was asked for');
  },
};

async function open(source: ByteSource) {
  return (await prepareWeights(await openWeights(source), NO_SCRATCH)).layout.tensors;
}

/** The same bytes by promises, as a Blob gives them. */
const slow = (source: ByteSource): ByteSource => ({
  ...source,
  readInto: async (offset, target) => source.readInto(offset, target),
});

test('any range of any encoding has the elements of the whole, in rooms of any size', async () => {
  const shapes = [[3], [1], [700, 30], [5], [0], [9_000]];
  for (const options of ENCODINGS) {
    const steps = tensorOf(
      Int32Array.from({ length: 3_000 }, (_, i) => i),
      [3_000],
      'steps',
    );
    const made = shapes.map((shape, i) => tensorOf(floats(elementCount(shape)), shape, `t${i}`));
    const { bytes } = await encodeUpdate({ weighting: 1, tensors: [...made, steps] }, options);
    const whole = (await decodeUpdate(bytes)).tensors;
    const fast = memorySource(bytes, 'update');
    const tensors = options.quantise === undefined && options.topK === undefined ? null : await open(fast);
    if (tensors === null) continue; // nothing is encoded
    for (const source of [fast, slow(fast)]) {
      for (let round = 0; round < 25; round++) {
        const roomBytes = MIN_DECODE_ROOM + random.integer(0, 20_000);
        const core = await openStrategies((2 << 17) + Decoder.arenaBytes(roomBytes));
        const decoder = new Decoder(core, roomBytes);
        const pieces: Piece[] = [];
        const expected: Uint8Array[] = [];
        for (let i = random.integer(0, 3); i < tensors.length; i += random.integer(1, 2)) {
          const { parts, byteOffset, dtype, shape } = tensors[i]!;
          const size = itemSize(dtype);
          const start = random.integer(0, Math.max(0, elementCount(shape) - 1));
          const count = random.integer(0, elementCount(shape) - start);
          if (count === 0) continue;
          const out = core.take(count * size + 3) + random.integer(0, 3);
          pieces.push({ parts, byteOffset: byteOffset ?? 0, itemSize: size, start, count, out });
          expected.push(whole[i]!.data.subarray(start * size, (start + count) * size));
        }
        await decoder.decode(source, pieces);
        for (const [i, { out, start }] of pieces.entries()) {
          const got = core.bytes(out, expected[i]!.byteLength);
          sameBytes(got, expected[i]!, `${JSON.stringify(options)} from ${start}`);
        }
        core.close();
      }
    }
  }
});

test('a range costs the bytes that say something of it', async () => {
  const n = 300_000;
  const count = 65_536;
  const x = floats(n);
  const cases: readonly [EncodeOptions, least: number, most: number][] = [
    [{ quantise: 'int8' }, count + 5, count + 5],
    [{ quantise: 'int8-block' }, count + (5 * count) / 256, count + (5 * count) / 256],
    [{ quantise: 'float16' }, 2 * count, 2 * count],
    [{ topK: 0.01 }, 8 * 400, 8 * (0.012 * count + 2 * MARKED_PAIRS)],
  ];
  for (const [options, least, most] of cases) {
    const { bytes } = await encodeUpdate({ weighting: 1, tensors: [tensorOf(x, [n])] }, options);
    const source = memorySource(bytes, 'update');
    const [tensor] = await open(source);
    const core = await openStrategies(4 * count + 16 + Decoder.arenaBytes(4 * count));
    const decoder = new Decoder(core, 4 * count);
    const out = core.take(4 * count);
    const piece = { parts: tensor!.parts, byteOffset: 0, itemSize: 4, start: count, count, out };
    assert.is(decoder.decode(source, [piece]), undefined); // nothing to wait for
    const { bytesRead } = decoder;
    assert.ok(bytesRead >= least && bytesRead <= most, `${JSON.stringify(options)}: ${bytesRead}`);
    core.close();
  }
});

test('the index of a sparse tensor is small, and what is not indexed cannot be read', async () => {
  const n = 100_000;
  const { bytes } = await encodeUpdate({ weighting: 1, tensors: [tensorOf(floats(n), [n])] }, { topK: 0.1 });
  const source = memorySource(bytes, 'update');
  const [tensor] = await open(source);
  const { marks, pairs } = tensor!.parts!;
  assert.is(pairs, n / 10);
  assert.is(marks!.length, Math.ceil(pairs / MARKED_PAIRS));
  const { parts } = (await openWeights(source)).layout.tensors[0]!;
  const core = await openStrategies(1 << 16);
  const decoder = new Decoder(core, MIN_DECODE_ROOM);
  const piece = { parts, byteOffset: 0, itemSize: 4, start: 0, count: 10, out: core.take(40) };
  assert.throws(() => decoder.decode(source, [piece]), /not indexed/);
  core.close();
});

test('a file that becomes shorter is noticed', async () => {
  const { bytes } = await encodeUpdate(
    { weighting: 1, tensors: [tensorOf(floats(1_000), [1_000])] },
    { quantise: 'float16' },
  );
  const [tensor] = await open(memorySource(bytes, 'update'));
  const core = await openStrategies(1 << 16);
  const decoder = new Decoder(core, MIN_DECODE_ROOM);
  const piece = {
    parts: tensor!.parts,
    byteOffset: 0,
    itemSize: 4,
    start: 0,
    count: 1_000,
    out: core.take(4_000),
  };
  const cut = memorySource(bytes.subarray(0, bytes.byteLength - 1), 'update');
  for (const source of [cut, slow(cut)]) {
    await failsWith('file-changed', async () => decoder.decode(source, [piece]));
  }
  core.close();
});

test('a sparse tensor that claims more than is allowed is refused', async () => {
  const { bytes } = await encodeUpdate({ weighting: 1, tensors: [tensorOf(floats(100))] }, { topK: 0.1 });
  const source = memorySource(bytes, 'update');
  const weights = await openWeights(source);
  await prepareWeights(weights, { ...NO_SCRATCH, maxByteLength: 400 });
  await failsWith('encoded-limit', () => prepareWeights(weights, { ...NO_SCRATCH, maxByteLength: 399 }));
});

test.run();
