// Aggregations on several lanes: the same bits, reports and errors whoever does which range, and in whatever order.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Aggregation, type RunOptions } from '../../src/aggregate/aggregation.ts';
import { encodeWeights } from '../../src/formats/encode.ts';
import { type ByteSource, memorySink, memorySource } from '../../src/tensor/bytes.ts';
import type { DType } from '../../src/tensor/dtypes.ts';
import type { WeightsFormat } from '../../src/tensor/layout.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { distantLanes } from '../helpers/lanes.ts';
import { vectors } from '../helpers/models.ts';
import { Random } from '../helpers/random.ts';

const test = suite('lanes');
const seed = Number(process.env.CAMBIUM_SEED ?? 4711);
console.log(`seed ${seed}`);

const SHAPES: readonly (readonly [DType, number])[] = [
  ['float32', 10_000],
  ['float32', 3],
  ['float64', 5_001],
  ['int16', 4_097],
  ['float32', 0],
  ['bfloat16', 9_000],
];

/** An update in memory whose sources can be read elsewhere. */
function leaf(name: string, random: Random, spoil?: (view: DataView) => void) {
  const { tensors, byteLength } = vectors(SHAPES);
  const bytes = new Uint8Array(byteLength);
  const view = new DataView(bytes.buffer);
  for (const { dtype, shape, byteOffset } of tensors) {
    for (let i = 0; i < shape[0]!; i++) {
      if (dtype === 'float32') view.setFloat32(byteOffset + 4 * i, random.gauss(), true);
      else if (dtype === 'float64') view.setFloat64(byteOffset + 8 * i, random.gauss(), true);
      else if (dtype === 'int16') view.setInt16(byteOffset + 2 * i, random.integer(-300, 300), true);
      else view.setUint16(byteOffset + 2 * i, 0x3c00 + random.integer(0, 500), true);
    }
  }
  spoil?.(view);
  const source: ByteSource = {
    ...memorySource(bytes, name),
    handle: { kind: 'file', name, byteLength, descriptor: -1 }, // never opened: the lanes of this test know the sources
  };
  return { leaf: name, source, layout: { tensors }, weighting: random.integer(1, 900) };
}

type Leaf = ReturnType<typeof leaf>;

async function aggregate(
  leaves: readonly Leaf[],
  format: WeightsFormat,
  blockBytes: number,
  lanes: number,
  random: Random,
  options: RunOptions = {},
): Promise<{ bytes: Uint8Array; aggregation: Aggregation; offsets: number[] }> {
  const aggregation = await Aggregation.open(leaves, { blockBytes });
  const encoding = await encodeWeights({ format, weighting: 7, tensors: aggregation.tensors });
  const sink = memorySink(encoding.byteLength);
  const offsets: number[] = [];
  const sources = [...leaves].sort((a, b) => (a.leaf < b.leaf ? -1 : 1)).map(({ source }) => source);
  try {
    await aggregation.run(sink, encoding, {
      openLanes: lanes === 1 ? undefined : distantLanes(lanes - 1, sources, random),
      onWritten: (offset) => void offsets.push(offset),
      ...options,
    });
  } finally {
    await aggregation.close();
  }
  return { bytes: sink.bytes, aggregation, offsets };
}

for (const format of ['npy-object', 'npz', 'safetensors'] as const) {
  test(`${format}: the same bytes on any number of lanes, with any blocks`, async () => {
    const random = new Random(seed);
    const leaves = ['a', 'b', 'c', 'd'].map((name) => leaf(name, random));
    const expected = await aggregate(leaves, format, 1 << 18, 1, random);
    for (const blockBytes of [1 << 10, 5_000, 1 << 15]) {
      for (const lanes of [1, 2, 4]) {
        const actual = await aggregate(leaves, format, blockBytes, lanes, random);
        sameBytes(actual.bytes, expected.bytes, `${lanes} lanes, blocks of ${blockBytes}`);
        assert.is(actual.aggregation.bytesRead >= expected.aggregation.bytesRead, true);
        assert.is(actual.offsets.at(-1), actual.bytes.byteLength);
        assert.equal(
          actual.offsets,
          [...actual.offsets].sort((a, b) => a - b),
          'in the order of the file',
        );
      }
    }
  });
}

test('a report of non-finite elements does not depend on who finds them', async () => {
  for (let round = 0; round < 20; round++) {
    const random = new Random(seed + round);
    const spoil = (view: DataView) => {
      for (let n = 0; n < 6; n++) view.setFloat32(4 * random.integer(0, 9_999), Number.NaN, true);
    };
    const leaves = ['a', 'b', 'c'].map((name) => leaf(name, random, spoil));
    const report = async (lanes: number) => {
      const error = await failsWith('non-finite', () => aggregate(leaves, 'npy-object', 4096, lanes, random));
      return (error as { nonFinite?: unknown }).nonFinite;
    };
    const expected = await report(1);
    assert.is((expected as unknown[]).length, 8);
    assert.equal(await report(3), expected);
  }
});

test('an error on one lane ends the aggregation, and a signal too', async () => {
  const random = new Random(seed);
  const leaves = ['a', 'b'].map((name) => leaf(name, random));
  const [first] = leaves as [Leaf, Leaf];
  const short = { ...first, source: { ...first.source, readInto: () => 0 } };
  await failsWith('file-changed', () => aggregate([short, leaves[1]!], 'npy-object', 4096, 3, random));

  let looks = 0;
  const reason = new Error('enough');
  const signal = {
    throwIfAborted() {
      if (++looks > 5) throw reason;
    },
  };
  try {
    await aggregate(leaves, 'npy-object', 1024, 3, random, { signal });
    assert.unreachable();
  } catch (error) {
    assert.is(error, reason);
  }
});

test.run();
