import { createHash } from 'node:crypto';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { tensorStatistics } from '../../src/node/statistics.ts';
import { memorySource } from '../../src/tensor/bytes.ts';
import { type DType, itemSize } from '../../src/tensor/dtypes.ts';
import type { TensorLayout } from '../../src/tensor/layout.ts';
import { Random, testSeed } from '../helpers/random.ts';

const test = suite('node/statistics');
const seed = testSeed();

function layoutOf(dtype: DType, bytes: Uint8Array, rest: Partial<TensorLayout> = {}): TensorLayout {
  const { byteLength } = bytes;
  const shape = [byteLength / itemSize(dtype)];
  return { name: null, dtype, shape, order: 'C', byteOrder: 'little', byteOffset: 0, byteLength, ...rest };
}

/** The numbers of a tensor, one by one. */
const decoders: Readonly<Record<Exclude<DType, 'void16'>, (view: DataView, at: number) => number>> = {
  bool: (view, at) => Math.min(view.getUint8(at), 1),
  int8: (view, at) => view.getInt8(at),
  uint8: (view, at) => view.getUint8(at),
  int16: (view, at) => view.getInt16(at, true),
  uint16: (view, at) => view.getUint16(at, true),
  int32: (view, at) => view.getInt32(at, true),
  uint32: (view, at) => view.getUint32(at, true),
  int64: (view, at) => Number(view.getBigInt64(at, true)),
  uint64: (view, at) => Number(view.getBigUint64(at, true)),
  float16: (view, at) => {
    const bits = view.getUint16(at, true);
    // Moved into the fields of a float32, whose exponents are 112 larger; 2^112 is a float32 that scales exactly.
    const word = new DataView(new ArrayBuffer(4));
    word.setUint32(0, ((bits & 0x8000) << 16) | ((bits & 0x7fff) << 13));
    return (bits & 0x7c00) === 0x7c00
      ? (bits & 0x3ff) === 0
        ? Infinity
        : Number.NaN
      : word.getFloat32(0) * 2 ** 112;
  },
  bfloat16: (view, at) => {
    const word = new DataView(new ArrayBuffer(4));
    word.setUint16(0, view.getUint16(at, true));
    return word.getFloat32(0);
  },
  float32: (view, at) => view.getFloat32(at, true),
  float64: (view, at) => view.getFloat64(at, true),
  complex64: (view, at) => view.getFloat32(at, true),
  complex128: (view, at) => view.getFloat64(at, true),
};

/** The same by the formula. */
function expected(dtype: Exclude<DType, 'void16'>, bytes: Uint8Array) {
  const size = dtype.startsWith('complex') ? itemSize(dtype) / 2 : itemSize(dtype);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const numbers = Array.from({ length: bytes.byteLength / size }, (_, i) => decoders[dtype](view, i * size));
  const finite = numbers.filter(Number.isFinite);
  let sum = 0;
  for (let chunk = 0; chunk < numbers.length; chunk += 4096) {
    const s = [0, 0, 0, 0];
    for (const [i, x] of numbers.slice(chunk, chunk + 4096).entries()) if (Number.isFinite(x)) s[i % 4]! += x;
    sum += s[0]! + s[1]! + (s[2]! + s[3]!);
  }
  const isEmpty = finite.length === 0;
  return {
    sha256: createHash('sha256').update(bytes).digest('hex'),
    min: isEmpty ? null : finite.reduce((a, b) => Math.min(a, b)),
    max: isEmpty ? null : finite.reduce((a, b) => Math.max(a, b)),
    mean: isEmpty ? null : sum / finite.length,
    zeros: finite.filter((x) => x === 0).length,
    nan: numbers.filter(Number.isNaN).length,
    infinite: numbers.length - finite.length - numbers.filter(Number.isNaN).length,
  };
}

test('every dtype agrees with the formula, from no elements to several chunks', async () => {
  const random = new Random(seed);
  for (const dtype of Object.keys(decoders) as Exclude<DType, 'void16'>[]) {
    for (const count of [0, 1, 3, 4, 5, 67, 4095, 4096, 4097, 9001]) {
      // Any bits have NaN and infinity; then small ones that have none, and zeros.
      for (const mask of [0xff, 0x33, 0x01]) {
        const bytes = new Uint8Array(count * itemSize(dtype)).map(() => random.bits() & mask);
        const actual = await tensorStatistics(memorySource(bytes), layoutOf(dtype, bytes));
        // Zero has one sign here: which of two equal ones came first is nobody's matter.
        assert.equal(JSON.stringify(actual), JSON.stringify(expected(dtype, bytes)), `${dtype}, ${count}`);
      }
    }
  }
});

test('blocks are joined: more elements than one block holds', async () => {
  const random = new Random(seed);
  const values = new Float32Array(600_001).map(() => random.gauss());
  values[599_999] = Number.NaN;
  const bytes = new Uint8Array(values.buffer);
  const actual = await tensorStatistics(memorySource(bytes), layoutOf('float32', bytes));
  assert.equal(actual, expected('float32', bytes));
  assert.is(actual.nan, 1);
});

test('other byte and memory orders give the same', async () => {
  const values = Float64Array.of(1, -2, 3.5, 4, 0, 6);
  const bytes = new Uint8Array(values.buffer);
  const turned = Uint8Array.from(
    [0, 2, 4, 1, 3, 5].flatMap((i) => [...bytes.subarray(8 * i, 8 * i + 8)].reverse()),
  );
  const shape = [3, 2];
  const plain = await tensorStatistics(memorySource(bytes), layoutOf('float64', bytes, { shape }));
  const other = layoutOf('float64', turned, { shape, order: 'F', byteOrder: 'big' });
  assert.equal(await tensorStatistics(memorySource(turned), other), plain);
  assert.is(plain.mean, 12.5 / 6);
});

test('raw elements have a digest only, and that can be left out', async () => {
  const bytes = Uint8Array.of(1, 2, 3, 4);
  const none = { min: null, max: null, mean: null, zeros: 0, nan: 0, infinite: 0 };
  const layout = layoutOf('void16', bytes);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  assert.equal(await tensorStatistics(memorySource(bytes), layout), { sha256, ...none });
  assert.equal(await tensorStatistics(memorySource(bytes), layout, { digest: false }), none);
});

test.run();
