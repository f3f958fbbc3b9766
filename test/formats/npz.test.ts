import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Aggregation } from '../../src/aggregate/aggregation.ts';
import { isCambiumError } from '../../src/errors.ts';
import { encodeWeights } from '../../src/formats/encode.ts';
import { openWeights } from '../../src/formats/open.ts';
import { readTensors } from '../../src/formats/read.ts';
import { unpackWeights } from '../../src/formats/weights.ts';
import { writeWeights } from '../../src/formats/write.ts';
import { nodeCrc32, nodeInflate } from '../../src/node/inflate.ts';
import { type ByteSource, memoryScratch, memorySink, memorySource } from '../../src/tensor/bytes.ts';
import { elementCount } from '../../src/tensor/layout.ts';
import { type ModelUpdate, tensorOf } from '../../src/tensor/tensor.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { fixtureBytes, fixtures } from '../helpers/fixtures.ts';
import { hasPythonModule, PYTHON } from '../helpers/peers.ts';
import { bytesOf, counted } from '../helpers/pickles.ts';
import { Random, testSeed } from '../helpers/random.ts';
import { zipOf } from '../helpers/zips.ts';

const test = suite('formats/npz');

/** The .npy of an array, with a header as short as it can be. */
function npyOf(descr: string, shape: readonly number[], data: Uint8Array): Uint8Array {
  const text = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${shape.map((n) => `${n},`).join('')})}`;
  return bytesOf('\x93NUMPY\x01\x00', text.length, 0, text, data);
}

const numbers = (...values: number[]) => new Uint8Array(new Float64Array(values).buffer);
const float = (name: string, ...values: number[]) => ({
  name: `${name}.npy`,
  data: npyOf('<f8', [values.length], numbers(...values)),
});

const open = (bytes: Uint8Array) => openWeights(memorySource(bytes));

test('layers are positions in the order of their numbers, also beyond ten', async () => {
  const parts = Array.from({ length: 12 }, (_, i) => float(`layer_${(7 * i) % 12}`, (7 * i) % 12));
  for (const members of [
    parts,
    [...parts, float('weighting', 3)],
    parts.map((part) => ({ ...part, deflate: true })),
  ]) {
    const { tensors, weighting } = await readTensors(memorySource(zipOf(members)));
    assert.is(weighting, members.length === 13 ? 3 : null);
    for (const [i, { name, data }] of tensors.entries()) {
      assert.is(name, null);
      sameBytes(data, numbers(i));
    }
  }
});

test('other names are kept, in the order of the archive', async () => {
  const names = ['b', 'a/x', 'layer_0', 'layer_01', 'größe'];
  const { layout } = await open(zipOf([float('weighting', 0.5), ...names.map((name) => float(name, 1))]));
  assert.equal(
    layout.tensors.map(({ name }) => name),
    names,
  );
  assert.is(layout.weighting, 0.5);
});

test('a weighting is one real number of any type', async () => {
  const weighting = (descr: string, shape: readonly number[], data: Uint8Array, deflate = false) =>
    zipOf([{ name: 'weighting.npy', data: npyOf(descr, shape, data), deflate }, float('layer_0', 1)]);
  const good: [descr: string, data: Uint8Array, value: number, type: string][] = [
    ['<f8', numbers(12.5), 12.5, 'float'],
    ['<f8', numbers(Number.NaN), Number.NaN, 'float'],
    ['>f4', bytesOf('\x40\x20\0\0'), 2.5, 'float'],
    ['<f2', bytesOf('\0\x3e'), 1.5, 'float'],
    ['|u1', bytesOf(200), 200, 'int'],
    ['|i1', bytesOf(200), -56, 'int'],
    ['<i8', bytesOf('\xff'.repeat(8)), -1, 'int'],
    ['>u2', bytesOf('\x01\x02'), 258, 'int'],
  ];
  for (const [descr, data, value, type] of good) {
    for (const shape of [[], [1], [1, 1]]) {
      for (const deflate of [false, true]) {
        const { layout } = await open(weighting(descr, shape, data, deflate));
        assert.ok(Object.is(layout.weighting, value), `${descr}: ${layout.weighting}`);
        assert.is(layout.weightingType, type);
        assert.is(layout.tensors.length, 1);
      }
    }
  }
  for (const [descr, shape, data] of [
    ['<f8', [2], numbers(1, 2)],
    ['<f8', [0], numbers()],
    ['|b1', [], bytesOf(1)],
    ['<c8', [], new Uint8Array(8)],
    ['<V2', [], new Uint8Array(2)],
    ['<u8', [], bytesOf('\xff'.repeat(8))],
  ] as const) {
    await failsWith('weights-form', () => open(weighting(descr, shape, data)));
  }
});

test('damage is found by who reads the elements, and by nobody before', async () => {
  for (const deflate of [false, true]) {
    const bytes = zipOf([{ ...float('layer_0', 1, 2, 3), deflate }]);
    const { tensors } = (await open(bytes)).layout;
    assert.is(tensors[0]!.byteOffset === null, deflate);
    const wrong = zipOf([{ ...float('layer_0', 1, 2, 3), deflate, descriptor: 32 }]);
    const at = Buffer.from(wrong).indexOf('PK\x07\x08') + 4;
    const entry = Buffer.from(wrong).indexOf('PK\x01\x02') + 16;
    for (const place of [at, entry]) wrong[place]! ^= 1;
    await open(wrong);
    const error = await failsWith('zip-crc', () => readTensors(memorySource(wrong)));
    assert.ok(error.message.includes('layer_0.npy'));
  }
});

test('what an archive may take when it is unpacked is checked before', async () => {
  const weights = await open(zipOf([{ ...float('a', ...new Array(1000).fill(1)), deflate: true }]));
  let asked = 0;
  const scratch = (byteLength: number) => {
    asked += byteLength;
    return memoryScratch(byteLength);
  };
  await failsWith('zip-limit', () => unpackWeights(weights, { scratch, maxByteLength: 7999 }));
  assert.is(asked, 0);
  await unpackWeights(weights, { scratch, maxByteLength: 8000 });
  assert.is(asked, 8000);
});

test('many members unpack at the same time, with the means of every host', async () => {
  const random = new Random(testSeed());
  const parts = Array.from({ length: 40 }, (_, i) => {
    const values = Array.from({ length: random.integer(0, 30_000) }, () => random.integer(0, 3));
    return { ...float(`t${i}`, ...values), deflate: i % 3 > 0 };
  });
  const weights = await open(zipOf(parts));
  for (const host of [{}, { inflate: nodeInflate, crc32: nodeCrc32 }]) {
    const { source, layout } = await unpackWeights(weights, { scratch: memoryScratch, ...host });
    const { tensors } = await readTensors(source, layout);
    for (const [i, { data }] of tensors.entries()) {
      sameBytes(data, parts[i]!.data.subarray(-data.byteLength || parts[i]!.data.byteLength), `t${i}`);
    }
  }
});

test('stored and deflated neighbours are read in one go', async () => {
  const parts = [1, 2, 3, 4].map((value) => ({
    ...float(`t${value}`, value, -value),
    deflate: value % 2 === 0,
  }));
  const bytes = zipOf([parts[1]!, parts[0]!, parts[3]!, parts[2]!]);
  const { source, layout } = await unpackWeights(await open(bytes), { scratch: memoryScratch });
  const aggregation = await Aggregation.open([{ leaf: 'a', source, layout, weighting: 2 }]);
  const { tensors } = aggregation;
  const encoding = await encodeWeights({ format: 'npz', weighting: null, tensors });
  const sink = memorySink(encoding.byteLength);
  await aggregation.run(sink, encoding);
  await aggregation.close();
  const read = await readTensors(memorySource(sink.bytes));
  for (const { name, data } of read.tensors)
    sameBytes(data, numbers(Number(name!.slice(1)), -Number(name!.slice(1))));
});

test('an error of source or scratch room stays what it is, and the room is closed', async () => {
  const weights = await open(zipOf([{ ...float('a', ...new Array(9000).fill(1)), deflate: true }]));
  let isClosed = false;
  const scratch = (byteLength: number) => ({
    ...memoryScratch(byteLength),
    write() {
      throw new Error('full');
    },
    close() {
      isClosed = true;
    },
  });
  for (const host of [{}, { inflate: nodeInflate }]) {
    isClosed = false;
    try {
      await unpackWeights(weights, { scratch, ...host });
      assert.unreachable();
    } catch (error) {
      assert.is((error as Error).message, 'full');
    }
    assert.is(isClosed, true);
  }
});

test('truncations and changed bytes of the small fixtures end in a typed error or a valid result', async () => {
  let accepted = 0;
  let refused = 0;
  const read = async (bytes: Uint8Array) => {
    try {
      await readTensors(memorySource(bytes));
      accepted++;
    } catch (error) {
      if (!isCambiumError(error)) throw error;
      refused++;
    }
  };
  for (const { file, outcome, bytes: size } of fixtures()) {
    if (!file.startsWith('npz/') || outcome !== 'ok') continue;
    const bytes = fixtureBytes(file);
    const before = accepted;
    for (let length = size - 1; length >= 0; length -= size < 700 ? 1 : 29)
      await read(bytes.subarray(0, length));
    assert.is(accepted, before, `${file} cut short`);
    for (let at = 0; at < size; at += size < 700 ? 3 : 31) {
      const changed = bytes.slice();
      changed[at]! ^= 1 << (at % 8);
      await read(changed);
    }
  }
  console.log(`changed archives: ${accepted} accepted, ${refused} refused`);
  // Times, versions and attributes mean nothing to us.
  assert.ok(refused > 10 * accepted, `${accepted}`);
});

test('the layout of 6 GiB is found in less than 64 KiB', async () => {
  const source = counted(hugeArchive(200, 32 * 2 ** 20));
  const { layout } = await openWeights(source);
  assert.ok(layout.byteLength > 6 * 2 ** 30);
  assert.is(layout.tensors.length, 200);
  assert.ok(layout.tensors[199]!.byteOffset! > 6 * 2 ** 30);
  assert.ok(source.count.bytes < 64 << 10, `${source.count.bytes} bytes read`);
});

/** A stored archive of layers of zeros, which exist nowhere; positions above 4 GiB stand in zip64 fields. */
function hugeArchive(count: number, payload: number): ByteSource {
  const pieces: { offset: number; bytes: Uint8Array }[] = [];
  const u16 = (value: number) => bytesOf(value & 255, value >> 8);
  const u32 = (value: number) => new Uint8Array(Uint32Array.of(value).buffer);
  const u64 = (value: number) => new Uint8Array(BigUint64Array.of(BigInt(value)).buffer);
  const entries: Uint8Array[] = [];
  let offset = 0;
  for (let i = 0; i < count; i++) {
    const name = `layer_${i}.npy`;
    const header = npyOf('<f4', [payload / 4], new Uint8Array(0));
    const size = header.byteLength + payload;
    const sizes = bytesOf(u32(0), u32(size), u32(size));
    const lengths = bytesOf(u16(name.length), u16(0));
    pieces.push({
      offset,
      bytes: bytesOf('PK\x03\x04', u16(20), u32(0), u32(0), sizes, lengths, name, header),
    });
    const isFar = offset >= 0xffffffff;
    entries.push(
      bytesOf('PK\x01\x02', u16(45), u16(45), u32(0), u32(0), sizes, u16(name.length), u16(isFar ? 12 : 0)),
      bytesOf(u32(0), u32(0), u16(0), u32(isFar ? 0xffffffff : offset), name),
      isFar ? bytesOf(u16(1), u16(8), u64(offset)) : bytesOf(),
    );
    offset += pieces[i]!.bytes.byteLength + payload;
  }
  const directory = bytesOf(...entries);
  const end = offset + directory.byteLength;
  const bytes = bytesOf(
    directory,
    bytesOf(
      'PK\x06\x06',
      u64(44),
      u32(0),
      u64(0),
      u64(count),
      u64(count),
      u64(directory.byteLength),
      u64(offset),
    ),
    bytesOf('PK\x06\x07', u32(0), u64(end), u32(1)),
    bytesOf('PK\x05\x06', u32(0), u16(count), u16(count), u32(directory.byteLength), u32(0xffffffff), u16(0)),
  );
  pieces.push({ offset, bytes });
  return sparse(pieces, offset + bytes.byteLength);
}

function sparse(pieces: readonly { offset: number; bytes: Uint8Array }[], byteLength: number): ByteSource {
  return {
    name: 'sparse',
    byteLength,
    readInto(offset, target) {
      target.fill(0);
      for (const { offset: at, bytes } of pieces) {
        const from = Math.max(at, offset);
        const to = Math.min(at + bytes.byteLength, offset + target.byteLength);
        if (from < to) target.set(bytes.subarray(from - at, to - at), from - offset);
      }
      return Math.min(target.byteLength, byteLength - offset);
    },
    close() {},
  };
}

async function written(update: ModelUpdate, compress = false): Promise<Uint8Array> {
  let sink = memorySink(0);
  await writeWeights((byteLength) => (sink = memorySink(byteLength)), update, {
    format: 'npz',
    compress,
  });
  return sink.bytes;
}

test('names that would come back as something else are refused', async () => {
  const named = (...names: (string | null)[]) =>
    written({ weighting: 1, tensors: names.map((name) => ({ ...tensorOf(new Float32Array(1)), name })) });
  const bad = [
    ['weighting'],
    ['a', 'a'],
    ['layer_1', null],
    ['layer_1', 'layer_0'],
    ['../a'],
    [''],
    ['a\0b'],
    ['\ud800'],
  ];
  for (const names of bad) {
    try {
      await named(...names);
      assert.unreachable(`${names}`);
    } catch (error) {
      assert.instance(error, RangeError, `${names}: ${error}`);
    }
  }
  await named('layer_0', null, 'layer_2');
  await named('layer_1', 'b');
});

test('compressed archives are smaller, and the same weights', async () => {
  const update = { weighting: 2, tensors: [tensorOf(new Float64Array(100_000), [100, 1000], 'zeros')] };
  const bytes = await written(update, true);
  assert.ok(bytes.byteLength < 2000, `${bytes.byteLength} bytes`);
  const { layout, ...read } = await readTensors(memorySource(bytes));
  assert.is(layout.tensors[0]!.byteOffset, null);
  sameBytes(read.tensors[0]!.data, update.tensors[0]!.data);
  try {
    await writeWeights(memorySink(0), update, { format: 'npy-object', compress: true });
    assert.unreachable();
  } catch (error) {
    assert.instance(error, RangeError);
  }
});

test('sizes and places beyond 32 bits are written as zip64, and read', async () => {
  const large = { name: null, dtype: 'float32' as const, shape: [5, 2 ** 28] };
  const small = { name: null, dtype: 'float32' as const, shape: [3] };
  const encoding = await encodeWeights({ format: 'npz', weighting: 2, tensors: [small, large, small] });
  assert.ok(encoding.byteLength > 5 * 2 ** 30);
  const { layout } = await openWeights(sparse(encoding.literals, encoding.byteLength));
  assert.equal(
    layout.tensors.map(({ byteOffset }) => byteOffset),
    encoding.payloads.map(({ offset }) => offset),
  );
});

test('a mean is the same archive for every block size, and its checksums are those of its elements', async () => {
  const tensors = [
    tensorOf(
      Float32Array.from({ length: 20_000 }, (_, i) => i / 7),
      [100, 200],
      'a',
    ),
    tensorOf(new Float32Array(0), [0], 'nothing'),
    tensorOf(new Float64Array([1, 2, 3]), [3], 'b'),
  ];
  const expected = await written({ weighting: 6, tensors });
  const inputs = await Promise.all(
    [1, 2, 3].map(async (weighting) => {
      const { source, layout } = await open(await written({ weighting, tensors }));
      return { leaf: `${weighting}`, source, layout, weighting };
    }),
  );
  for (const blockBytes of [64, 4096, 1 << 20]) {
    const aggregation = await Aggregation.open(inputs, { blockBytes });
    const encoding = await encodeWeights({ format: 'npz', weighting: 6, tensors: aggregation.tensors });
    const sink = memorySink(encoding.byteLength);
    const seen = new Uint8Array(encoding.byteLength);
    let reached = 0;
    await aggregation.run(sink, encoding, {
      onWritten(offset) {
        seen.set(sink.bytes.subarray(reached, offset), reached);
        reached = offset;
      },
    });
    await aggregation.close();
    sameBytes(sink.bytes, expected);
    sameBytes(seen, expected, 'what a digest sees');
  }
});

if (hasPythonModule('numpy')) {
  const PEER = fileURLToPath(new URL('npz_peer.py', import.meta.url));
  let folder: string;
  test.before(() => {
    folder = mkdtempSync(join(tmpdir(), 'cambium-npz-'));
  });
  test.after(() => rmSync(folder, { recursive: true, force: true }));

  /** Runs NumPy; an object for each line that it prints. */
  function numpy<T>(...args: string[]): T[] {
    const { status, stdout, stderr } = spawnSync(PYTHON, [PEER, ...args], {
      encoding: 'utf8',
      maxBuffer: 2 ** 28,
    });
    assert.is(status, 0, stderr);
    const lines = stdout.split('\n').filter((line) => line !== '');
    return lines.map((line) => JSON.parse(line) as T);
  }

  test('what is written NumPy and zipfile read', async () => {
    const random = new Random(testSeed());
    const expected: { path: string; arrays: object[] }[] = [];
    for (let i = 0; i < 40; i++) {
      const isNamed = i % 2 === 0;
      const tensors = Array.from({ length: random.integer(0, 9) }, (_, k) => {
        const shape = Array.from({ length: random.integer(0, 3) }, () => random.integer(0, 6));
        const data = Uint8Array.from({ length: 4 * elementCount(shape) }, () => random.bits() & 255);
        return { name: isNamed ? `größe/${k}.weight` : null, dtype: 'int32' as const, shape, data };
      });
      const weighting = i % 3 === 0 ? null : i / 2;
      const bytes = await written({ weighting, tensors }, i % 4 > 1);
      const path = join(folder, `ours-${i}.npz`);
      writeFileSync(path, bytes);
      const { layout, ...read } = await readTensors(memorySource(bytes));
      assert.equal(read, { weighting, tensors });
      assert.is(layout.format, 'npz');
      const digest = (data: Uint8Array) => createHash('sha256').update(data).digest('hex');
      const arrays = tensors.map(({ name, dtype, shape, data }, k) => ({
        name: name ?? `layer_${k}`,
        dtype,
        shape,
        sha256: digest(data),
      }));
      const first = {
        name: 'weighting',
        dtype: 'float64',
        shape: [1],
        sha256: digest(numbers(weighting ?? 0)),
      };
      expected.push({ path, arrays: weighting === null ? arrays : [first, ...arrays] });
    }
    const found = numpy<{ damaged: string | null; arrays: object[] }>(
      'read',
      ...expected.map(({ path }) => path),
    );
    for (const [i, { path, arrays }] of expected.entries()) {
      assert.is(found[i]!.damaged, null, path);
      assert.equal(found[i]!.arrays, arrays, path);
    }
  });

  test('what NumPy writes is read, from files and from pipes', async () => {
    interface Written {
      readonly path: string;
      readonly weighting: number | null;
      readonly tensors: readonly {
        name: string | null;
        dtype: string;
        shape: readonly number[];
        sha256: string;
      }[];
    }
    const files = numpy<Written>('write', folder, String(testSeed()), '60');
    assert.is(files.length, 60);
    for (const { path, weighting, tensors } of files) {
      const read = await readTensors(memorySource(new Uint8Array(readFileSync(path)), path));
      assert.is(read.weighting, weighting, path);
      const found = read.tensors.map(({ name, dtype, shape, data }) => ({
        name,
        dtype,
        shape,
        sha256: createHash('sha256').update(data).digest('hex'),
      }));
      assert.equal(found, tensors, path);
    }
  });
}

test.run();
