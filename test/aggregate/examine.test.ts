// One look at every element: bytes are counted, sums compared with a plain loop of the same shape.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { examineElements } from '../../src/aggregate/examine.ts';
import { type ByteSource, memoryScratch, memorySource } from '../../src/tensor/bytes.ts';
import type { TensorLayout } from '../../src/tensor/layout.ts';
import { Random, testSeed } from '../helpers/random.ts';

const test = suite('aggregate/examine');
const CHUNK = 4096;
const options = { leaf: 'leaf', scratch: memoryScratch };

/** A source that counts what is read of it. */
function counted(bytes: Uint8Array): ByteSource & { read: number } {
  const source = memorySource(bytes, 'file');
  return {
    ...source,
    read: 0,
    readInto(offset, target) {
      this.read += target.byteLength;
      return source.readInto(offset, target);
    },
  };
}

type Numbers = Float32Array | Float64Array | Int32Array | Int8Array;

const DTYPE_OF = { Float32Array: 'float32', Float64Array: 'float64', Int32Array: 'int32', Int8Array: 'int8' };

/** Tensors one behind the other, after a few bytes of something else. */
function fileOf(tensors: readonly Numbers[], change: (i: number) => Partial<TensorLayout> = () => ({})) {
  const bytes = new Uint8Array(3 + tensors.reduce((sum, { byteLength }) => sum + byteLength, 0));
  let at = 3;
  const layouts = tensors.map((tensor, i): TensorLayout => {
    bytes.set(new Uint8Array(tensor.buffer, tensor.byteOffset, tensor.byteLength), at);
    const layout: TensorLayout = {
      name: `t${i}`,
      dtype: DTYPE_OF[tensor.constructor.name as keyof typeof DTYPE_OF] as TensorLayout['dtype'],
      shape: [tensor.length],
      order: 'C',
      byteOrder: 'little',
      byteOffset: at,
      byteLength: tensor.byteLength,
      ...change(i),
    };
    at += tensor.byteLength;
    return layout;
  });
  return { source: counted(bytes), layout: { tensors: layouts } };
}

/** The sum in its fixed shape: four lanes to a chunk, chunks in order, tensors in order. */
function squares(tensors: readonly Numbers[], model?: readonly Numbers[]): number {
  let total = 0;
  for (const [t, tensor] of tensors.entries()) {
    let ofTensor = 0;
    for (let start = 0; start < tensor.length; start += CHUNK) {
      const lanes = [0, 0, 0, 0] as [number, number, number, number];
      for (let i = start; i < Math.min(tensor.length, start + CHUNK); i++) {
        const x = tensor[i]! - (model?.[t]?.[i] ?? 0);
        lanes[(i - start) % 4]! += x * x;
      }
      ofTensor += lanes[0] + lanes[1] + (lanes[2] + lanes[3]);
    }
    total += ofTensor;
  }
  return total;
}

function randomTensors(random: Random): Numbers[] {
  return [
    Float32Array.from({ length: 300_007 }, () => random.gauss()),
    Float64Array.from({ length: 4_097 }, () => random.gauss()),
    Int32Array.from({ length: 5 }, () => random.integer(-9, 9)),
    Int8Array.from({ length: 70_000 }, () => random.integer(-9, 9)),
    new Float32Array(0),
  ];
}

test('each byte is read once, and the norm has the bits of the plain loop', async () => {
  const random = new Random(testSeed());
  const tensors = randomTensors(random);
  const other = randomTensors(random);
  const update = fileOf(tensors);
  const payload = update.source.byteLength - 3;
  const alone = await examineElements(update, options);
  assert.is(alone.norm, Math.sqrt(squares(tensors)));
  assert.equal([alone.isDifference, alone.nonFinite, update.source.read], [false, [], payload]);

  update.source.read = 0;
  const model = fileOf(other);
  const both = await examineElements(update, { ...options, model });
  assert.is(both.norm, Math.sqrt(squares(tensors, other)));
  assert.equal([both.isDifference, update.source.read, model.source.read], [true, payload, payload]);
});

test('names decide which tensor of the model is meant, another model has no part', async () => {
  const [a, b] = [Float32Array.of(1, 2), Float32Array.of(3, 5)];
  const swapped = fileOf([b, a], (i) => ({ name: `t${1 - i}` }));
  const { norm } = await examineElements(fileOf([a, b]), { ...options, model: swapped });
  assert.is(norm, 0);
  for (const model of [fileOf([a]), fileOf([a, Float64Array.of(3, 5)]), fileOf([a, Float32Array.of(3)])]) {
    const report = await examineElements(fileOf([a, b]), { ...options, model });
    assert.equal([report.norm, report.isDifference], [Math.sqrt(39), false]);
  }
});

test('order and byte order of the file make no difference', async () => {
  const random = new Random(testSeed());
  const rows = 100;
  const columns = 333;
  const plain = Float32Array.from({ length: rows * columns }, () => random.gauss());
  const turned = Float32Array.from(plain, (_, i) => plain[(i % rows) * columns + Math.floor(i / rows)]!);
  const big = new Uint8Array(plain.buffer.slice(0)).reverse();
  const reversed = new Float32Array(big.buffer).slice().reverse(); // each number's bytes the other way round
  const shape = [rows, columns];
  const expected = Math.sqrt(squares([plain]));
  for (const [name, tensor, change] of [
    ['C', plain, { shape }],
    ['Fortran', turned, { shape, order: 'F' }],
    ['big', reversed, { shape, byteOrder: 'big' }],
  ] as const) {
    const { norm } = await examineElements(
      fileOf([tensor], () => change),
      options,
    );
    assert.is(norm, expected, name);
  }
  turned[rows] = Number.NaN; // second column, first row
  const { nonFinite, norm } = await examineElements(
    fileOf([turned], () => ({ shape, order: 'F' })),
    options,
  );
  assert.equal(nonFinite, [{ tensor: 0, index: 1, leaf: 'leaf' }]);
  assert.is(norm, null);
});

test('NaN and infinity are found by tensor and index, eight of them at most', async () => {
  const long = new Float32Array(200_000);
  for (const i of [0, 4095, 4096, 199_999]) long[i] = Number.POSITIVE_INFINITY;
  const model = fileOf([new Float32Array(200_000).fill(Number.NaN), new Float32Array(20)]);
  for (const given of [undefined, model]) {
    const { nonFinite, norm } = await examineElements(fileOf([long, new Float32Array(20).fill(Number.NaN)]), {
      ...options,
      model: given,
    });
    assert.equal(
      nonFinite.map(({ tensor, index }) => [tensor, index]),
      [...[0, 4095, 4096, 199_999].map((i) => [0, i]), ...[0, 1, 2, 3].map((i) => [1, i])],
    );
    assert.is(norm, null);
  }
});

test('a norm that is too large for binary64 is none, and nothing is wrong with its elements', async () => {
  const { norm, nonFinite } = await examineElements(fileOf([Float64Array.of(1e200, 1)]), options);
  assert.equal([norm, nonFinite], [null, []]);
});

test.run();
