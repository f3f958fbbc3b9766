// Real NumPy on the other side: what it writes is read, what is written it reads, and writes again byte for byte.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readTensors } from '../../src/formats/read.ts';
import { writeWeights } from '../../src/formats/write.ts';
import { memorySink, memorySource } from '../../src/tensor/bytes.ts';
import { DTYPES, type DType, itemSize } from '../../src/tensor/dtypes.ts';
import { elementCount } from '../../src/tensor/layout.ts';
import type { ModelUpdate, Tensor } from '../../src/tensor/tensor.ts';
import { hasPythonModule, PYTHON } from '../helpers/peers.ts';
import { Random, testSeed } from '../helpers/random.ts';
import { fileOf } from '../helpers/round-trips.ts';

interface Described {
  readonly name: string | null;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly sha256: string;
}

const test = suite('formats/numpy');
const PEER = fileURLToPath(new URL('numpy_peer.py', import.meta.url));

/** Runs NumPy; an object for each line that it prints. */
function numpy<T>(...args: string[]): T[] {
  const { status, stdout, stderr } = spawnSync(PYTHON, [PEER, ...args], {
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  assert.is(status, 0, stderr);
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as T);
}

const describe = ({ name, dtype, shape, data }: Tensor): Described => ({
  name,
  dtype,
  shape,
  sha256: createHash('sha256').update(data).digest('hex'),
});

/** bfloat16 needs ml_dtypes on the other side. */
const WRITABLE = (Object.keys(DTYPES) as DType[]).filter((dtype) => dtype !== 'bfloat16');

/** A tensor of random bits. */
function randomTensor(random: Random, name: string | null): Tensor {
  const dtype = random.pick(WRITABLE);
  const dimensions = [0, 1, 2, 3, 5, 17, 256].map(String);
  const shape = Array.from({ length: random.integer(0, 5) }, () => Number(random.pick(dimensions)));
  if (elementCount(shape) > 20_000) return randomTensor(random, name);
  const data = Uint8Array.from({ length: elementCount(shape) * itemSize(dtype) }, () =>
    dtype === 'bool' ? random.bits() & 1 : random.bits() & 255,
  );
  return { name, dtype, shape, data };
}

async function written(update: ModelUpdate, format: 'npy' | 'npy-object'): Promise<Uint8Array> {
  let sink = memorySink(0);
  const length = await writeWeights((byteLength) => (sink = memorySink(byteLength)), update, { format });
  assert.is(sink.bytes.byteLength, length);
  return sink.bytes;
}

if (hasPythonModule('numpy')) {
  const seed = testSeed();
  let folder: string;
  test.before(() => {
    folder = mkdtempSync(join(tmpdir(), 'cambium-numpy-'));
  });
  test.after(() => rmSync(folder, { recursive: true, force: true }));

  test('what NumPy writes is read', async () => {
    const files = numpy<{
      path: string;
      format: string;
      weighting?: number;
      weightingType?: string;
      tensors: Described[];
    }>('write', folder, String(seed), '240');
    assert.is(files.length, 240);
    for (const { path, format, weighting, weightingType, tensors } of files) {
      const read = await readTensors(memorySource(new Uint8Array(readFileSync(path)), path));
      assert.is(read.layout.format, format);
      assert.is(read.weighting, weighting ?? null, path);
      assert.is(read.layout.weightingType, weightingType ?? null, path);
      assert.equal(read.tensors.map(describe), tensors, path);
    }
  });

  test('what is written NumPy reads, and writes again byte for byte', async () => {
    const random = new Random(seed);
    const expected: { path: string; kind: string; weighting?: number | null; tensors: Described[] }[] = [];
    const counts = [0, 1, 2, 260, 999, 1000, 1001, 2003];
    const weightings = [
      0,
      1,
      255,
      256,
      65_535,
      65_536,
      2 ** 31 - 1,
      2 ** 31,
      2 ** 53 - 1,
      -1,
      -(2 ** 31),
      -(2 ** 40),
      0.5,
      1e300,
    ];
    for (let i = 0; i < 80; i++) {
      const path = join(folder, `ours-${i}.npy`);
      if (i % 4 === 0) {
        const tensor = randomTensor(random, null);
        writeFileSync(path, await written({ weighting: null, tensors: [tensor] }, 'npy'));
        expected.push({ path, kind: 'ndarray', tensors: [describe(tensor)] });
        continue;
      }
      const count = counts.shift() ?? random.integer(1, 12);
      const isNamed = random.uniform() < 0.3;
      const tensors = Array.from({ length: count }, (_, k) =>
        randomTensor(random, isNamed ? `ebene_${k}.größe` : null),
      );
      const weighting = weightings[i % weightings.length]!;
      writeFileSync(path, await written({ weighting, tensors }, 'npy-object'));
      const kind = Number.isInteger(weighting) && weighting < 2 ** 53 ? 'int, list' : 'float, list';
      expected.push({ path, kind, weighting, tensors: tensors.map(describe) });
    }
    const found = numpy<{ kind: string; weighting?: string; tensors: Described[]; same: boolean }>(
      'read',
      ...expected.map(({ path }) => path),
    );
    for (const [i, { path, kind, weighting, tensors }] of expected.entries()) {
      assert.is(found[i]!.kind, kind, path);
      if (weighting !== undefined) assert.is(Number(found[i]!.weighting), weighting, path);
      assert.equal(found[i]!.tensors, tensors, path);
      assert.ok(found[i]!.same, `${path}: NumPy writes other bytes`);
    }
  });

  test('aligned files NumPy reads as any other', async () => {
    const random = new Random(seed);
    const expected: { path: string; tensors: Described[] }[] = [];
    for (let i = 0; i < 400; i++) {
      // Some pass the number 255, which aligned files keep for themselves.
      const count = i % 8 === 0 ? random.integer(36, 60) : random.integer(0, 5);
      const tensors = Array.from({ length: count }, (_, k) =>
        randomTensor(random, random.uniform() < 0.2 ? `ebene_${k}` : null),
      );
      const file = await fileOf({ weighting: i, tensors }, { align: 64 });
      const read = await readTensors(memorySource(file));
      assert.equal(read.tensors.map(describe), tensors.map(describe));
      for (const { byteLength, byteOffset } of read.layout.tensors) {
        if (byteLength > 0) assert.is(byteOffset! % 64, 0);
      }
      const path = join(folder, `aligned-${i}.npy`);
      writeFileSync(path, file);
      expected.push({ path, tensors: tensors.map(describe) });
    }
    const found = numpy<{ kind: string; weighting: string; tensors: Described[] }>(
      'read',
      ...expected.map(({ path }) => path),
    );
    for (const [i, { path, tensors }] of expected.entries()) {
      assert.equal([found[i]!.kind, found[i]!.weighting], ['int, list', String(i)], path);
      assert.equal(found[i]!.tensors, tensors, path);
    }
  });

  test('payloads of one byte, which NumPy shares, are read back by it', async () => {
    const path = join(folder, 'bytes.npy');
    const tensors = [0x62, 0x62, 0, 1].map((byte) => ({
      name: null,
      dtype: 'uint8' as const,
      shape: [1],
      data: Uint8Array.of(byte),
    }));
    writeFileSync(path, await written({ weighting: 7, tensors }, 'npy-object'));
    const [found] = numpy<{ tensors: Described[] }>('read', path);
    assert.equal(found!.tensors, tensors.map(describe));
  });
}

test.run();
