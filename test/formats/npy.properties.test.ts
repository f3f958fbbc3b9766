import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openWeights } from '../../src/formats/open.ts';
import { readTensors } from '../../src/formats/read.ts';
import { memorySource } from '../../src/tensor/bytes.ts';
import { DTYPES, type DType, itemSize } from '../../src/tensor/dtypes.ts';
import { elements, runs, shapes, tensorLists } from '../helpers/arbitraries.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { bytesOf, u32 } from '../helpers/pickles.ts';
import { testSeed } from '../helpers/random.ts';
import { comesBack, encodingOf } from '../helpers/round-trips.ts';

const test = suite('formats/npy, properties');
const seed = testSeed();
const options = { format: 'npy' } as const;
const oneTensor = tensorLists({ named: 'none', maxTensors: 1 }).filter(({ length }) => length === 1);

test('what is written is read as the same', async () => {
  await fc.assert(
    fc.asyncProperty(oneTensor, async (tensors) => {
      const update = { weighting: null, tensors };
      const { payloads } = await encodingOf(update, options);
      const bytes = await comesBack(update, options, (tensor) =>
        tensor.dtype === 'bfloat16' ? { ...tensor, dtype: 'void16' } : tensor,
      );
      const { layout } = await openWeights(memorySource(bytes), { void16: 'bfloat16' });
      assert.is(layout.tensors[0]!.byteOffset, payloads[0]!.offset);
      assert.is(payloads[0]!.offset % 64, 0);
      if (tensors[0]!.dtype === 'bfloat16') assert.is(layout.tensors[0]!.dtype, 'bfloat16');
    }),
    { seed, numRuns: runs(6_000) },
  );
});

/** NumPy's spelling of each dtype, without order. */
const CODES: Readonly<Record<Exclude<DType, 'bfloat16'>, string>> = {
  bool: 'b1',
  int8: 'i1',
  uint8: 'u1',
  int16: 'i2',
  uint16: 'u2',
  int32: 'i4',
  uint32: 'u4',
  int64: 'i8',
  uint64: 'u8',
  float16: 'f2',
  float32: 'f4',
  float64: 'f8',
  complex64: 'c8',
  complex128: 'c16',
  void16: 'V2',
};

const blanks = fc.stringMatching(/^[ \t\r\n]{0,3}$/);

/** A header as other writers may spell it: order of keys, quotes, blanks, commas, version, order of bytes and axes. */
const spelledHeaders = fc
  .record({
    dtype: fc.constantFrom(...(Object.keys(CODES) as (keyof typeof CODES)[])),
    shape: shapes,
    isBig: fc.boolean(),
    isFortran: fc.boolean(),
    version: fc.constantFrom(1, 2, 3),
    keys: fc.shuffledSubarray(['descr', 'fortran_order', 'shape'], { minLength: 3 }),
    quotes: fc.array(fc.constantFrom("'", '"'), { minLength: 4, maxLength: 4 }),
    between: fc.array(blanks, { minLength: 24, maxLength: 24 }),
    isTrailing: fc.boolean(),
    padding: fc.nat(100),
  })
  .map(({ dtype, shape, isBig, isFortran, version, keys, quotes, between, isTrailing, padding }) => {
    const gaps = [...between];
    const gap = () => gaps.pop() ?? '';
    const marks = [...quotes];
    const quoted = (text: string) => {
      const mark = marks.pop()!;
      return `${mark}${text}${mark}`;
    };
    const order = itemSize(dtype) === 1 || dtype === 'void16' ? '|' : isBig ? '>' : '<';
    const tuple = `(${shape.map((n) => `${n},${gap()}`).join('')})`;
    const value = (key: string) =>
      key === 'descr' ? quoted(order + CODES[dtype]) : key === 'shape' ? tuple : isFortran ? 'True' : 'False';
    const items = keys.map((key) => `${gap()}${quoted(key)}${gap()}:${gap()}${value(key)}${gap()}`).join(',');
    const text = `{${items}${isTrailing ? ',' : ''}${gap()}}${' '.repeat(padding)}\n`;
    const length = u32(text.length);
    const bytes = bytesOf('\x93NUMPY', version, 0, version === 1 ? length.slice(0, 2) : length, text);
    return {
      bytes,
      text,
      dtype,
      shape,
      order: isFortran ? 'F' : 'C',
      byteOrder: order === '>' ? 'big' : 'little',
    };
  });

test('a header is understood however it is spelled', async () => {
  await fc.assert(
    fc.asyncProperty(spelledHeaders, fc.nat(), async (header, dataSeed) => {
      const data = elements(header.dtype, header.shape, dataSeed);
      const file = bytesOf(header.bytes, data);
      const { layout } = await openWeights(memorySource(file));
      const { dtype, shape, order, byteOrder } = header;
      assert.equal(
        layout.tensors,
        [
          {
            name: null,
            dtype,
            shape,
            order,
            byteOrder,
            byteOffset: header.bytes.byteLength,
            byteLength: data.byteLength,
          },
        ],
        header.text,
      );
      await failsWith('npy-data-trailing', () => openWeights(memorySource(bytesOf(file, 0))));
      await failsWith('npy-data-truncated|npy-truncated', () =>
        openWeights(memorySource(file.subarray(0, file.byteLength - 1))),
      );
    }),
    { seed, numRuns: runs(8_000) },
  );
});

test('order of bytes and axes does not matter to a reader', async () => {
  await fc.assert(
    fc.asyncProperty(spelledHeaders, fc.nat(), async (header, dataSeed) => {
      const { dtype, shape } = header;
      const data = elements(dtype, shape, dataSeed);
      const size = itemSize(dtype);
      const part = dtype.startsWith('complex') ? size / 2 : size;
      const stored = new Uint8Array(data.byteLength);
      for (let i = 0; i < data.byteLength / size; i++) {
        // From the position in C order over the indices to the position in Fortran order.
        let position = 0;
        for (let axis = shape.length - 1, rest = i; axis >= 0; axis--) {
          const index = rest % shape[axis]!;
          rest = (rest - index) / shape[axis]!;
          position += index * shape.slice(0, axis).reduce((product, n) => product * n, 1);
        }
        const to = (header.order === 'F' ? position : i) * size;
        for (let k = 0; k < size; k++) {
          const from = header.byteOrder === 'big' ? k - (k % part) + part - 1 - (k % part) : k;
          stored[to + k] = data[i * size + from]!;
        }
      }
      const { tensors } = await readTensors(memorySource(bytesOf(header.bytes, stored)));
      sameBytes(tensors[0]!.data, data);
    }),
    { seed, numRuns: runs(3_000) },
  );
});

test('names of dtypes are complete', () => {
  assert.equal(
    Object.keys(CODES).sort(),
    Object.keys(DTYPES)
      .filter((dtype) => dtype !== 'bfloat16')
      .sort(),
  );
});

test.run();
