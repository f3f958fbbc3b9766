import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Aggregation } from '../../src/aggregate/aggregation.ts';
import type { Encoding } from '../../src/formats/encoding.ts';
import { type ByteSource, memorySink, memorySource } from '../../src/tensor/bytes.ts';
import type { TensorLayout } from '../../src/tensor/layout.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';

const test = suite('aggregation');

const GAP = 50;

/** A file of `count` float32 vectors of `length` elements with some bytes between them. */
function modelOf(count: number, length: number, value: (i: number) => number) {
  const pitch = GAP + 4 * length;
  const bytes = new Uint8Array(count * pitch);
  const view = new DataView(bytes.buffer);
  const tensors: TensorLayout[] = [];
  for (let t = 0; t < count; t++) {
    const byteOffset = t * pitch + GAP;
    for (let i = 0; i < length; i++) view.setFloat32(byteOffset + 4 * i, value(t * length + i), true);
    tensors.push({
      name: null,
      dtype: 'float32',
      shape: [length],
      order: 'C',
      byteOrder: 'little',
      byteOffset,
      byteLength: 4 * length,
    });
  }
  return { bytes, layout: { tensors } };
}

/** Counts what is read of a source. */
function counted(bytes: Uint8Array, name: string): ByteSource & { reads: number; bytesRead: number } {
  const source = memorySource(bytes, name);
  return Object.assign(source, {
    reads: 0,
    bytesRead: 0,
    readInto(this: { reads: number; bytesRead: number }, offset: number, target: Uint8Array) {
      this.reads++;
      const part = bytes.subarray(offset, offset + target.byteLength);
      target.set(part);
      this.bytesRead += part.byteLength;
      return part.byteLength;
    },
  });
}

function bare(count: number, length: number): Encoding {
  return {
    byteLength: count * length * 4,
    literals: [],
    payloads: Array.from({ length: count }, (_, t) => ({ offset: t * length * 4, byteLength: length * 4 })),
  };
}

for (const [count, length] of [
  [1000, 16],
  [1, 16_000],
  [3, 100_000],
] as const) {
  test(`reads ${count} tensors of ${length} elements once, in few reads`, async () => {
    const models = [1, 2, 3].map((factor) => modelOf(count, length, (i) => factor * (i % 97)));
    const sources = models.map(({ bytes }, i) => counted(bytes, `leaf-${i}`));
    const inputs = models.map(({ layout }, i) => ({
      leaf: `leaf-${i}`,
      source: sources[i]!,
      layout,
      weighting: 1,
    }));
    const aggregation = await Aggregation.open(inputs);
    const sink = memorySink(count * length * 4);
    const progress: number[] = [];
    await aggregation.run(sink, bare(count, length), {
      onProgress: ({ bytesDone }) => progress.push(bytesDone),
    });
    sameBytes(
      sink.bytes,
      Float32Array.from({ length: count * length }, (_, i) => 2 * (i % 97)),
    );
    const payload = 4 * count * length;
    const blocks = Math.ceil(payload / (256 << 10));
    for (const source of sources) {
      assert.ok(source.reads <= 2 * blocks + count / 100, `${source.reads} reads for ${blocks} blocks`);
      assert.ok(source.bytesRead <= payload + count * GAP, `${source.bytesRead} bytes for ${payload}`);
    }
    assert.is(
      aggregation.bytesRead,
      sources.reduce((sum, source) => sum + source.bytesRead, 0),
    );
    assert.is(progress.at(-1), payload);
    assert.is(aggregation.parameters, count * length);
  });
}

test('mixes byte orders, memory orders and places', async () => {
  const layoutOf = (order: 'C' | 'F', byteOrder: 'little' | 'big', byteOffset: number) => ({
    tensors: [
      { name: null, dtype: 'float32' as const, shape: [2, 3], order, byteOrder, byteOffset, byteLength: 24 },
    ],
  });
  const write = (values: readonly number[], little: boolean, at: number) => {
    const bytes = new Uint8Array(at + 24);
    for (const [i, x] of values.entries()) new DataView(bytes.buffer).setFloat32(at + 4 * i, x, little);
    return bytes;
  };
  const inputs = [
    { leaf: 'c', bytes: write([1, 2, 3, 4, 5, 6], true, 5), layout: layoutOf('C', 'little', 5) },
    { leaf: 'f', bytes: write([1, 4, 2, 5, 3, 6], true, 0), layout: layoutOf('F', 'little', 0) },
    { leaf: 'b', bytes: write([1, 2, 3, 4, 5, 6], false, 9), layout: layoutOf('C', 'big', 9) },
    { leaf: 'fb', bytes: write([1, 4, 2, 5, 3, 6], false, 1), layout: layoutOf('F', 'big', 1) },
  ].map(({ leaf, bytes, layout }) => ({ leaf, source: memorySource(bytes, leaf), layout, weighting: 2 }));
  const aggregation = await Aggregation.open(inputs);
  const sink = memorySink(24);
  await aggregation.run(sink, bare(1, 6));
  await aggregation.close();
  sameBytes(sink.bytes, Float32Array.of(1, 2, 3, 4, 5, 6));
  assert.equal(aggregation.leaves, ['b', 'c', 'f', 'fb']);
});

test('orders leaves by the bytes of their ids, not by UTF-16', async () => {
  const { bytes, layout } = modelOf(1, 1, () => 1);
  const inputs = ['\u{1f600}', '\uffee', 'a'].map((leaf) => ({
    leaf,
    source: memorySource(bytes, leaf),
    layout,
    weighting: 1,
  }));
  assert.equal((await Aggregation.open(inputs)).leaves, ['a', '\uffee', '\u{1f600}']);
});

test('notices a source that has become shorter', async () => {
  const { bytes, layout } = modelOf(2, 1000, () => 1);
  const aggregation = await Aggregation.open([
    { leaf: 'whole', source: memorySource(bytes, 'whole'), layout, weighting: 1 },
    { leaf: 'cut', source: memorySource(bytes.subarray(0, -1), 'cut'), layout, weighting: 1 },
  ]);
  const error = await failsWith('file-changed', () => aggregation.run(memorySink(8000), bare(2, 1000)));
  assert.match(error.message, /cut ended at byte/);
});

test.run();
