import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { encodeWeights } from '../../src/formats/encode.ts';
import { openWeights } from '../../src/formats/open.ts';
import { readTensors } from '../../src/formats/read.ts';
import { unpackWeights } from '../../src/formats/weights.ts';
import { writeWeights } from '../../src/formats/write.ts';
import { readZipDirectory } from '../../src/formats/zip.ts';
import { memoryScratch, memorySink, memorySource } from '../../src/tensor/bytes.ts';
import type { DType } from '../../src/tensor/dtypes.ts';
import { type Tensor, tensorOf } from '../../src/tensor/tensor.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { counted, sparseSource } from '../helpers/pickles.ts';
import { crc32Of } from '../helpers/zips.ts';

const test = suite('formats/torch-writer');

async function write(tensors: readonly Tensor[]): Promise<Uint8Array> {
  let sink = memorySink(0);
  await writeWeights(
    (length) => (sink = memorySink(length)),
    { weighting: null, tensors },
    { format: 'torch' },
  );
  return sink.bytes;
}

test('members as torch lays them out, aligned, each with its checksum', async () => {
  const tensors = [
    tensorOf(Float32Array.of(1, 2, 3, 4, 5, 6), [3, 2], 'fc.weight'),
    tensorOf(BigInt64Array.of(7n), [], 'steps'),
    tensorOf(new Float64Array(), [0, 4], 'empty'),
  ];
  const bytes = await write(tensors);
  const members = await readZipDirectory(memorySource(bytes));
  assert.equal(
    members.map(({ name }) => name),
    ['data.pkl', 'byteorder', 'data/0', 'data/1', 'data/2', 'version'].map((name) => `archive/${name}`),
  );
  const contents = members.map(({ byteOffset, byteLength }) =>
    bytes.slice(byteOffset, byteOffset + byteLength),
  );
  for (const [i, { name, byteOffset, crc32, method }] of members.entries()) {
    assert.equal([byteOffset % 64, method, crc32], [0, 'stored', crc32Of(contents[i]!)], name);
  }
  const text = (i: number) => Buffer.from(contents[i]!).toString('latin1');
  assert.equal([text(1), text(5)], ['little', '3\n']);
  sameBytes(contents[2]!, tensors[0]!.data);
  sameBytes(contents[3]!, tensors[1]!.data);
});

test('what is written is read as the same', async () => {
  const tensors = Array.from({ length: 2_345 }, (_, i) =>
    tensorOf(Float32Array.of(i, -i), i % 2 ? [2] : [1, 2, 1, 1], i % 7 ? `größe ${i}` : null),
  );
  const read = await readTensors(memorySource(await write(tensors)));
  assert.is(read.weighting, null);
  for (const [i, { name, shape, data }] of tensors.entries()) {
    const actual = read.tensors[i]!;
    assert.equal([actual.name, actual.dtype, actual.shape], [name ?? `layer_${i}`, 'float32', shape]);
    sameBytes(actual.data, data);
  }
});

test('the weighting is kept, and its kind', async () => {
  for (const [weighting, kind] of [
    [1329, 'int'],
    [3, 'float'],
    [0.25, 'float'],
    [-0, 'float'],
    [2 ** 60, 'float'],
    [1e300, 'float'],
  ] as const) {
    let sink = memorySink(0);
    const options = { format: 'torch', weightingType: kind } as const;
    const update = { weighting, tensors: [tensorOf(Int8Array.of(1))] };
    await writeWeights((length) => (sink = memorySink(length)), update, options);
    const { layout } = await openWeights(memorySource(sink.bytes));
    assert.ok(Object.is(layout.weighting, weighting), `${layout.weighting}`);
    assert.is(layout.weightingType, kind);
  }
});

test('a model of more than 4 GiB has 64-bit sizes, and is found without reading it', async () => {
  const tensors = [
    { name: 'large', dtype: 'float32' as DType, shape: [3, 2 ** 30] },
    { name: 'behind', dtype: 'float32' as DType, shape: [2] },
    { name: 'empty', dtype: 'float32' as DType, shape: [0, 2 ** 40] },
  ];
  const encoding = await encodeWeights({ format: 'torch', weighting: null, tensors });
  const source = counted(sparseSource(encoding));
  const { layout } = await openWeights(source);
  assert.equal(
    layout.tensors.map(({ name, shape, byteOffset, byteLength }) => ({
      name,
      shape,
      offset: byteOffset,
      byteLength,
    })),
    tensors.map(({ name, shape }, i) => ({ name, shape, ...encoding.payloads[i]! })),
  );
  assert.ok(source.count.bytes < 8_192, `${source.count.bytes} bytes`);
});

test('what a state dict cannot hold is a RangeError', async () => {
  const spec = (dtype: DType, ...names: (string | null)[]) => ({
    format: 'torch' as const,
    weighting: null,
    tensors: names.map((name) => ({ name, dtype, shape: [1] })),
  });
  for (const wrong of [
    spec('uint16', 'x'),
    spec('uint32', 'x'),
    spec('uint64', 'x'),
    spec('void16', 'x'),
    spec('float32', 'x', 'x'),
    spec('float32', 'layer_1', null),
    spec('float32', '\ud800'),
  ]) {
    let error: unknown;
    await encodeWeights(wrong).catch((thrown: unknown) => {
      error = thrown;
    });
    assert.ok(error instanceof RangeError, JSON.stringify(wrong));
  }
});

test('nothing is to be unpacked', async () => {
  const weights = await openWeights(memorySource(await write([tensorOf(Int8Array.of(1))])));
  assert.is(weights.unpack, null);
  assert.is(await unpackWeights(weights, { scratch: memoryScratch }), weights);
});

test.run();
