// 100,000 random weight files: the bytes that NumPy's own writer emits, read back by NumPy and by us as the same arrays.
// One Python process checks them, a batch at a time, while the next batch is written.
//
// Left out, because CPython keeps them once, wherever they come from: names of fewer than two characters. bfloat16 needs
// ml_dtypes on the other side.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readTensors } from '../../src/formats/read.ts';
import { memorySource } from '../../src/tensor/bytes.ts';
import { DTYPES, type DType, itemSize } from '../../src/tensor/dtypes.ts';
import { elementCount } from '../../src/tensor/layout.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { hasPythonModule, PYTHON } from '../helpers/peers.ts';
import { Random, testSeed } from '../helpers/random.ts';
import { fileOf } from '../helpers/round-trips.ts';

const FILES = 100_000;
const BATCH = 1_000;
/** Every so many files has a few hundred to a few thousand tensors: batches of a list, memo numbers of four bytes. */
const LONG_LIST = 1_000;

const test = suite('formats/numpy-identity');
const PEER = fileURLToPath(new URL('numpy_identity.py', import.meta.url));
const WRITABLE = (Object.keys(DTYPES) as DType[]).filter((dtype) => dtype !== 'bfloat16');
const WEIGHTINGS = [
  ...[0, 255, 256, 65_535, 65_536, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 53 - 1],
  ...[-1, -128, -129, -32_768, -32_769, -(2 ** 31), -(2 ** 31) - 1, -(2 ** 39), -(2 ** 53) + 1],
];

/** Random bits, drawn once: each payload is a piece from anywhere. */
const pool = new Uint8Array(1 << 16);

function randomTensor(random: Random, name: string | null): Tensor {
  for (;;) {
    const dtype = random.pick(WRITABLE);
    const rank = random.pick([0, 1, 1, 2, 2, 2, 3, 4, 5, 8]);
    const shape = Array.from({ length: rank }, () => random.pick([0, 1, 1, 2, 3, 4, 7, 16, 255, 256, 300]));
    const byteLength = elementCount(shape) * itemSize(dtype);
    // Neither NumPy nor we take a shape that is too large but for a zero in it.
    const isVast = shape.reduce((product, n) => product * Math.max(n, 1), 1) > 2 ** 40;
    if (byteLength > 4_000 || isVast) continue;
    const from = random.integer(0, pool.byteLength - byteLength);
    const data = pool.slice(from, from + byteLength);
    return { name, dtype, shape, data: dtype === 'bool' ? data.map((byte) => byte & 1) : data };
  }
}

function randomUpdate(random: Random, number: number) {
  const count = number % LONG_LIST === 0 ? random.integer(200, 2_100) : random.integer(0, 7);
  const isNamed = random.uniform() < 0.3;
  const tensors = Array.from({ length: count }, (_, k) => {
    const hasName = isNamed && random.uniform() < 0.9;
    return randomTensor(random, hasName ? `${random.pick(['ebene', 'größe', '層', 'w'])}.${k}` : null);
  });
  const isFloat = random.uniform() < 0.25;
  const weighting = isFloat
    ? random.pick([random.gauss() * 10 ** random.integer(-300, 300), 0.5, 3, -0, 1e300, 5e-324])
    : random.uniform() < 0.3
      ? random.pick(WEIGHTINGS)
      : random.integer(0, 2 ** random.integer(1, 52));
  return { weighting, weightingType: isFloat ? ('float' as const) : ('int' as const), tensors };
}

/** NumPy's name of a dtype. */
const numpyName = (dtype: DType) => (dtype === 'void16' ? 'V2' : dtype);

function frames(...parts: readonly Uint8Array[]): Uint8Array[] {
  return parts.flatMap((part) => {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(part.byteLength);
    return [length, part];
  });
}

/** One batch as bytes of the protocol of numpy_identity.py. */
async function makeBatch(random: Random, first: number): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for (let number = first; number < first + BATCH; number++) {
    const { weightingType, ...update } = randomUpdate(random, number);
    const file = await fileOf(update, { format: 'npy-object', weightingType });
    const read = await readTensors(memorySource(file));
    assert.ok(Object.is(read.weighting, update.weighting), `file ${number}: weighting ${read.weighting}`);
    const elements = Buffer.concat(update.tensors.map(({ data }) => data));
    sameBytes(Buffer.concat(read.tensors.map(({ data }) => data)), elements, `file ${number}`);
    const spec = {
      // As text: JSON has neither -0 nor all digits.
      weighting: Object.is(update.weighting, -0) ? '-0.0' : String(update.weighting),
      isFloat: weightingType === 'float',
      tensors: update.tensors.map(({ name, dtype, shape }) => [name, numpyName(dtype), shape]),
    };
    parts.push(...frames(Buffer.from(JSON.stringify(spec)), file, elements));
  }
  return Buffer.concat([...parts, ...frames(Buffer.alloc(0))]);
}

if (hasPythonModule('numpy')) {
  const seed = testSeed();
  let peer: ChildProcess;
  test.after(() => {
    peer?.kill();
  });

  test(`${FILES} random weight files are NumPy's own bytes`, async () => {
    const random = new Random(seed);
    for (let i = 0; i < pool.byteLength; i++) pool[i] = random.bits();
    peer = spawn(PYTHON, [PEER], { stdio: ['pipe', 'pipe', 'inherit'] });
    const { stdin, stdout } = peer;
    assert.ok(stdin !== null && stdout !== null);
    const answers = createInterface({ input: stdout })[Symbol.asyncIterator]();
    let checked = 0;
    const hear = async (first: number) => {
      const line = await answers.next();
      if (line.done) assert.unreachable(`NumPy ended within the files from ${first} on`);
      const answer = JSON.parse(line.value) as { checked: number; failure: string | null };
      if (answer.failure !== null)
        assert.unreachable(`file ${first + answer.checked} of seed ${seed}: ${answer.failure}`);
      checked += answer.checked;
    };
    for (let first = 0; first < FILES; first += BATCH) {
      const batch = await makeBatch(random, first);
      if (first > 0) await hear(first - BATCH);
      if (!stdin.write(batch)) await once(stdin, 'drain');
    }
    await hear(FILES - BATCH);
    assert.is(checked, FILES);
    stdin.end();
    await once(peer, 'exit');
  });
}

test.run();
