import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { encodeWeights } from '../../src/formats/encode.ts';
import type { Encoding, TensorSpec, WeightsSpec } from '../../src/formats/encoding.ts';
import { openWeights } from '../../src/formats/open.ts';
import { readTensors } from '../../src/formats/read.ts';
import { memorySource } from '../../src/tensor/bytes.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { FIXTURES } from '../helpers/fixtures.ts';
import { sparseSource } from '../helpers/pickles.ts';
import { fileOf } from '../helpers/round-trips.ts';

const test = suite('formats/encode');

const spec = (shape: number[], dtype: TensorSpec['dtype'] = 'float32', name: string | null = null) => ({
  name,
  dtype,
  shape,
});

/** Literals and payloads cover the file without gap or overlap. */
function checkCover({ byteLength, literals, payloads }: Encoding): void {
  const parts = [
    ...literals.map(({ offset, bytes }) => ({ offset, length: bytes.byteLength })),
    ...payloads.map(({ offset, byteLength }) => ({ offset, length: byteLength })),
  ].sort((a, b) => a.offset - b.offset || a.length - b.length);
  let end = 0;
  for (const { offset, length } of parts) {
    assert.is(offset, end);
    end += length;
  }
  assert.is(end, byteLength);
}

test('the files of NumPy 1 come out byte for byte', async () => {
  for (const file of [
    'np1-int',
    'np1-float',
    'np1-mixed',
    'np1-named-pairs',
    'np1-no-arrays',
    'np1-one-array',
    'np1-68000-bytes',
    'np1-260-arrays',
    'np1-weight-large',
    'np1-weight-negative',
    'np1-weight-zero',
  ]) {
    const bytes = new Uint8Array(readFileSync(`${FIXTURES}weights/${file}.npy`));
    const { weighting, tensors, layout } = await readTensors(memorySource(bytes, file));
    const encoding = await encodeWeights({
      format: 'npy-object',
      weighting,
      weightingType: layout.weightingType ?? undefined,
      tensors: tensors.map(({ data, ...rest }) =>
        data.byteLength === 1 ? { ...rest, onlyByte: data[0] } : rest,
      ),
    });
    checkCover(encoding);
    const written = new Uint8Array(encoding.byteLength);
    for (const { offset, bytes: literal } of encoding.literals) written.set(literal, offset);
    for (const [i, { offset, byteLength }] of encoding.payloads.entries()) {
      written.set(tensors[i]!.data.subarray(0, byteLength), offset);
    }
    sameBytes(written, bytes, file);
  }
});

test('a payload of one byte is shared when its value is known, as NumPy does', async () => {
  const one = { name: null, dtype: 'uint8', shape: [1] } as const;
  const lengths = async (onlyBytes: (number | undefined)[], align?: 64) => {
    const tensors = onlyBytes.map((onlyByte) => ({ ...one, onlyByte }));
    const encoding = await encodeWeights({ format: 'npy-object', weighting: 1, tensors, align });
    checkCover(encoding);
    return encoding.payloads.map(({ byteLength }) => byteLength);
  };
  assert.equal(await lengths([7, 7, 0, 255, 0, 255, 7]), [1, 0, 1, 1, 0, 0, 0]);
  assert.equal(await lengths([undefined, 7, undefined, 7]), [1, 1, 1, 0]);
  assert.equal(await lengths([0x62, 0x62]), [0, 0], "b'b' is in every file");
  assert.equal(await lengths([7, 7, 0x62], 64), [1, 1, 1], 'aligned: each at its place');

  const data = (...bytes: number[]) => bytes.map((byte) => ({ ...one, data: Uint8Array.of(byte) }));
  const update = { weighting: 1, tensors: data(7, 0x62, 7, 0, 0x62, 0) };
  const { tensors } = await readTensors(memorySource(await fileOf(update, { format: 'npy-object' })));
  assert.equal(tensors, update.tensors);

  for (const [shape, onlyByte] of [
    [[2], 7],
    [[0], 0],
    [[1], 256],
    [[1], -1],
    [[1], 0.5],
  ] as const) {
    const tensor = { ...one, shape, onlyByte };
    await encodeWeights({ format: 'npy-object', weighting: 1, tensors: [tensor] }).then(
      () => assert.unreachable(`${onlyByte} of shape (${shape})`),
      (error) => assert.instance(error, RangeError),
    );
  }
});

test('lengths and places are known before the first element: the example of the reference', async () => {
  const { byteLength, payloads } = await encodeWeights({
    format: 'npy-object',
    weighting: 1329,
    tensors: [spec([64, 32, 5, 5]), spec([64]), spec([10, 128])],
  });
  assert.is(byteLength, 210_639);
  assert.equal(
    payloads.map(({ offset }) => offset),
    [370, 205_209, 205_506],
  );
});

test('aligned files: the fixture byte for byte, and the example of the reference', async () => {
  const fixture = new Uint8Array(readFileSync(`${FIXTURES}weights/aligned64.npy`));
  const { weighting, tensors } = await readTensors(memorySource(fixture));
  sameBytes(await fileOf({ weighting, tensors }, { align: 64 }), fixture);
  const { byteLength, payloads } = await encodeWeights({
    format: 'npy-object',
    weighting: 1329,
    tensors: [spec([64, 32, 5, 5]), spec([64]), spec([10, 128])],
    align: 64,
  });
  assert.is(byteLength, 210_701);
  assert.equal(
    payloads.map(({ offset }) => offset),
    [384, 205_248, 205_568],
  );
});

test('aligned files keep the number 255 for their gaps, whatever object would get it', async () => {
  // An array of no dimensions takes one number less than others: the border meets every kind of object.
  for (let scalars = 0; scalars < 40; scalars++) {
    const tensors = [
      ...Array.from({ length: 40 }, (_, i) =>
        spec(i < scalars ? [] : [i], 'float64', i % 3 === 0 ? `t.${i}` : null),
      ),
      ...(['int8', 'int16', 'bool', 'float32', 'bfloat16', 'int8', 'int16'] as const).map((dtype) =>
        spec([3, 1], dtype),
      ),
    ];
    const encoding = await encodeWeights({ format: 'npy-object', weighting: 1, tensors, align: 64 });
    checkCover(encoding);
    const { layout } = await openWeights(sparseSource(encoding));
    for (const [i, { name, dtype, shape, byteOffset }] of layout.tensors.entries()) {
      assert.equal({ name, dtype, shape }, tensors[i], `${scalars} scalars, tensor ${i}`);
      if (shape[0] !== 0) assert.is(byteOffset! % 64, 0, `${scalars} scalars, tensor ${i}`);
    }
  }
});

test('aligned files of 4 GiB', async () => {
  const tensors = [spec([2 ** 30 + 1]), spec([2 ** 32, 3], 'int8'), spec([0]), spec([300]), spec([3])];
  const encoding = await encodeWeights({ format: 'npy-object', weighting: 1, tensors, align: 64 });
  checkCover(encoding);
  const { layout } = await openWeights(sparseSource(encoding));
  assert.equal(
    layout.tensors.map(({ byteOffset }) => byteOffset! % 64),
    [0, 0, 0, 0, 0],
  );
});

test('only object arrays are aligned, and only to 64', async () => {
  const isRangeError = (error: unknown) => error instanceof RangeError && /align/.test(error.message);
  const wrong: [format: WeightsSpec['format'], align: number][] = [
    ['npy-object', 0],
    ['npy-object', 32],
    ['npy', 64],
    ['npz', 64],
    ['safetensors', 64],
    ['torch', 64],
  ];
  for (const [format, align] of wrong) {
    // A caller without types.
    const work = encodeWeights({ format, weighting: null, tensors: [spec([1])], align: align as 64 });
    assert.ok(isRangeError(await work.catch((error: unknown) => error)), `${format}, ${align}`);
  }
});

test('a payload of 4 GiB turns the file into protocol 4', async () => {
  for (const [shape, protocol] of [
    [[2 ** 30 - 1], 3],
    [[2 ** 30], 4],
  ] as const) {
    const encoding = await encodeWeights({
      format: 'npy-object',
      weighting: 1,
      tensors: [spec([...shape]), spec([3])],
    });
    checkCover(encoding);
    assert.is(encoding.literals[0]!.bytes[129], protocol);
    const { layout } = await openWeights(sparseSource(encoding));
    assert.equal(
      layout.tensors.map(({ byteOffset, byteLength }) => ({ offset: byteOffset, byteLength })),
      encoding.payloads,
    );
  }
});

test('plain arrays', async () => {
  for (const [shape, dtype] of [
    [[], 'float64'],
    [[0], 'bool'],
    [[2, 3], 'bfloat16'],
    [[2 ** 40], 'complex128'],
  ] as const) {
    const encoding = await encodeWeights({
      format: 'npy',
      weighting: null,
      tensors: [spec([...shape], dtype)],
    });
    checkCover(encoding);
    assert.is(encoding.payloads[0]!.offset % 64, 0);
    const { layout } = await openWeights(sparseSource(encoding), { void16: 'bfloat16' });
    assert.equal([layout.tensors[0]!.dtype, layout.tensors[0]!.shape], [dtype, shape]);
  }
});

test('bfloat16 keeps its name in an object array', async () => {
  const encoding = await encodeWeights({
    format: 'npy-object',
    weighting: 1,
    tensors: [spec([2], 'bfloat16'), spec([2], 'void16'), spec([2], 'bfloat16'), spec([2], 'float32')],
  });
  const { layout } = await openWeights(sparseSource(encoding));
  assert.equal(
    layout.tensors.map(({ dtype }) => dtype),
    ['bfloat16', 'void16', 'bfloat16', 'float32'],
  );
});

test('the weighting is an int when it is integral, unless a float is asked for', async () => {
  const cases: [number, WeightsSpec['weightingType'], 'int' | 'float'][] = [
    [3, undefined, 'int'],
    [3, 'float', 'float'],
    [-3, 'int', 'int'],
    [3.5, undefined, 'float'],
    [2 ** 53 - 1, undefined, 'int'],
    [1 - 2 ** 53, undefined, 'int'],
    [2 ** 53, undefined, 'float'],
    [Number.NaN, undefined, 'float'],
    [Number.POSITIVE_INFINITY, undefined, 'float'],
    [5e-324, undefined, 'float'],
  ];
  for (const [weighting, weightingType, expected] of cases) {
    const encoding = await encodeWeights({
      format: 'npy-object',
      weighting,
      weightingType,
      tensors: [spec([1])],
    });
    const { layout } = await openWeights(sparseSource(encoding));
    assert.ok(Object.is(layout.weighting, weighting), `${layout.weighting} for ${weighting}`);
    assert.is(layout.weightingType, expected);
  }
});

test('what a format cannot hold is a RangeError', async () => {
  const object = { format: 'npy-object', weighting: 1 } as const;
  const cases: [WeightsSpec, RegExp][] = [
    [{ format: 'npy', weighting: null, tensors: [] }, /exactly one/],
    [{ format: 'npy', weighting: null, tensors: [spec([1]), spec([1])] }, /exactly one/],
    [{ ...object, weighting: null, tensors: [] }, /needs a weighting/],
    [{ ...object, weighting: 0.5, weightingType: 'int', tensors: [] }, /int/],
    [{ ...object, weighting: 2 ** 53, weightingType: 'int', tensors: [] }, /int/],
    [{ ...object, tensors: [spec([-1])] }, /whole numbers/],
    [{ ...object, tensors: [spec([1.5])] }, /whole numbers/],
    [{ ...object, tensors: [spec([2 ** 52])] }, /too large/],
    [{ ...object, tensors: [spec([0, 2 ** 52])] }, /too large/],
    [{ ...object, tensors: [spec(Array.from({ length: 65 }, () => 1))] }, /dimensions/],
    [{ ...object, tensors: [spec([1], 'float32', 'ü'.repeat(513))] }, /name/],
    [{ ...object, tensors: [spec([1], 'float32', 'a'), spec([2], 'int8', 'a')] }, /two tensors/],
    [{ ...object, tensors: [spec([1], 'float32', '\ud800')] }, /UTF-8/],
    [{ ...object, tensors: Array.from({ length: 65_537 }, () => spec([])) }, /65536/],
  ];
  for (const [wrong, message] of cases) {
    try {
      await encodeWeights(wrong);
      assert.unreachable(`accepted: ${message}`);
    } catch (error) {
      assert.instance(error, RangeError);
      assert.match((error as Error).message, message);
    }
  }
});

test.run();
