// The measures against plain loops of the same shape, sum for sum and bit for bit.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CHUNK } from '../../assembly/abi.ts';
import { type Core, openStrategies } from '../../src/core/core.ts';
import {
  pairwiseDistancesInto,
  squaredDifferencesInto,
  squaredNormsInto,
  squaredToCentreInto,
  supportsDistances,
} from '../../src/core/distances.ts';
import type { StrategyExports } from '../../src/core/exports.ts';
import { DTYPES, type DType, itemSize } from '../../src/tensor/dtypes.ts';
import { decodeFloat16 } from '../../src/tensor/float16.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { Random, testSeed } from '../helpers/random.ts';

const seed = testSeed();

const isComplex = (dtype: DType) => dtype.startsWith('complex');

/** The numbers of elements as binary64: of complex ones both components. */
function numbers(dtype: DType, bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = isComplex(dtype) ? itemSize(dtype) / 2 : itemSize(dtype);
  const read: Readonly<Record<Exclude<DType, 'void16'>, (at: number) => number>> = {
    bool: (at) => (view.getUint8(at) === 0 ? 0 : 1),
    int8: (at) => view.getInt8(at),
    uint8: (at) => view.getUint8(at),
    int16: (at) => view.getInt16(at, true),
    uint16: (at) => view.getUint16(at, true),
    int32: (at) => view.getInt32(at, true),
    uint32: (at) => view.getUint32(at, true),
    int64: (at) => Number(view.getBigInt64(at, true)),
    uint64: (at) => Number(view.getBigUint64(at, true)),
    float16: (at) => decodeFloat16(view.getUint16(at, true)),
    bfloat16: (at) => {
      const wide = new DataView(new ArrayBuffer(4));
      wide.setUint16(0, view.getUint16(at, true));
      return wide.getFloat32(0);
    },
    float32: (at) => view.getFloat32(at, true),
    float64: (at) => view.getFloat64(at, true),
    complex64: (at) => view.getFloat32(at, true),
    complex128: (at) => view.getFloat64(at, true),
  };
  if (dtype === 'void16') throw new Error('void16 has no numbers');
  return Array.from({ length: bytes.byteLength / size }, (_, i) => read[dtype](i * size));
}

/** Sums of squared differences, one for each chunk: what the kernels are held to. */
function chunkSums(a: readonly number[], b: readonly number[], parts: number): number[] {
  const sums: number[] = [];
  for (let first = 0; first < a.length; first += CHUNK * parts) {
    const lanes = [0, 0, 0, 0];
    for (let i = first; i < Math.min(a.length, first + CHUNK * parts); i++) {
      const d = a[i]! - b[i]!;
      lanes[i % 4]! += d * d;
    }
    sums.push(lanes[0]! + lanes[1]! + (lanes[2]! + lanes[3]!));
  }
  return sums;
}

/** From sums by pair (or input) and chunk to sums by chunk and pair, as the kernels write them. */
function byChunk(sums: readonly number[][]): Float64Array {
  const chunks = sums[0]?.length ?? 0;
  return Float64Array.from(Array.from({ length: chunks }, (_, c) => sums.map((of) => of[c]!)).flat());
}

function pairsOf(k: number): [number, number][] {
  const pairs: [number, number][] = [];
  for (let a = 0; a < k; a++) for (let b = a + 1; b < k; b++) pairs.push([a, b]);
  return pairs;
}

function centreOf(inputs: readonly number[][], weightings: readonly number[]): number[] {
  return inputs[0]!.map((_, i) => {
    let sum = 0;
    let total = 0;
    for (const [j, v] of weightings.entries()) {
      if (v === 0) continue;
      sum += v * inputs[j]![i]!;
      total += v;
    }
    return sum / total;
  });
}

interface Measures {
  readonly norms: Float64Array;
  readonly differences: Float64Array;
  readonly toCentre: Float64Array;
  readonly pairs: Float64Array;
}

/** All measures by the core; the last of the blocks is the model. */
function measure(
  core: Core<StrategyExports>,
  dtype: DType,
  blocks: readonly Uint8Array[],
  weightings: readonly number[],
  offset: number,
): Measures {
  return core.scope(() => {
    const { code } = DTYPES[dtype];
    const k = blocks.length - 1;
    const count = blocks[0]!.byteLength / itemSize(dtype);
    const chunks = Math.ceil(count / CHUNK);
    const table = core.take(4 * k);
    const addresses = blocks.map((block, j) => {
      const address = core.take(block.byteLength + 16) + ((offset + 3 * j) & 15);
      core.bytes(address, block.byteLength).set(block);
      return address;
    });
    for (let j = 0; j < k; j++) core.view(table + 4 * j, 4).setUint32(0, addresses[j]!, true);
    const given = core.take(8 * k);
    for (const [j, v] of weightings.entries()) core.view(given + 8 * j, 8).setFloat64(0, v, true);
    const sums = (width: number, run: (out: number) => void): Float64Array => {
      const bytes = 8 * width * chunks;
      const out = core.take(bytes + 16);
      core.bytes(out, bytes + 16).fill(0xa5);
      run(out);
      const after = core.bytes(out + bytes, 16);
      assert.ok(
        after.every((byte) => byte === 0xa5),
        'wrote behind the sums',
      );
      return new Float64Array(core.bytes(out, bytes).slice().buffer);
    };
    return {
      norms: sums(k, (out) => squaredNormsInto(core, code, table, k, count, out)),
      differences: sums(k, (out) => squaredDifferencesInto(core, code, table, k, count, addresses[k]!, out)),
      toCentre: sums(k, (out) => squaredToCentreInto(core, code, table, k, count, given, out)),
      pairs: sums((k * (k - 1)) / 2, (out) => pairwiseDistancesInto(core, code, table, k, count, out)),
    };
  });
}

/** The same by plain loops. */
function measurePlainly(
  dtype: DType,
  blocks: readonly Uint8Array[],
  weightings: readonly number[],
): Measures {
  const parts = isComplex(dtype) ? 2 : 1;
  const all = blocks.map((block) => numbers(dtype, block));
  const inputs = all.slice(0, -1);
  const model = all.at(-1)!;
  const zero = model.map(() => 0);
  const centre = centreOf(inputs, weightings);
  return {
    norms: byChunk(inputs.map((x) => chunkSums(x, zero, parts))),
    differences: byChunk(inputs.map((x) => chunkSums(x, model, parts))),
    toCentre: byChunk(inputs.map((x) => chunkSums(x, centre, parts))),
    pairs: byChunk(pairsOf(inputs.length).map(([a, b]) => chunkSums(inputs[a]!, inputs[b]!, parts))),
  };
}

/** Random bits, but no NaN or infinity among floats unless asked for: the patterns that have them lose an exponent bit. */
function randomBlock(random: Random, dtype: DType, count: number, finite = true): Uint8Array {
  const bytes = new Uint8Array(count * itemSize(dtype)).map(() => random.bits() & 255);
  if (!finite || !/float|complex/.test(dtype)) return bytes;
  const size = isComplex(dtype) ? itemSize(dtype) / 2 : itemSize(dtype);
  for (let at = size - 1; at < bytes.length; at += size) bytes[at]! &= 0xbf;
  return bytes;
}

/** Models of one round: close to one another, as multiples of 2^-20. */
function similarBlocks(random: Random, k: number, count: number): Uint8Array[] {
  const model = Float32Array.from({ length: count }, () => random.gauss());
  return Array.from(
    { length: k + 1 },
    () => new Uint8Array(model.map((x) => x + 1e-3 * random.gauss()).buffer),
  );
}

function agree(
  core: Core<StrategyExports>,
  dtype: DType,
  blocks: readonly Uint8Array[],
  random: Random,
  what: string,
): void {
  const k = blocks.length - 1;
  const weightings = Array.from({ length: k }, (_, j) =>
    j > 0 && random.uniform() < 0.2 ? 0 : random.integer(1, 5000) / 8,
  );
  const actual = measure(core, dtype, blocks, weightings, random.integer(0, 15));
  const expected = measurePlainly(dtype, blocks, weightings);
  for (const name of ['norms', 'differences', 'toCentre', 'pairs'] as const) {
    sameBytes(actual[name], expected[name], `${what}: ${name}`);
  }
}

const NUMERIC = (Object.keys(DTYPES) as DType[]).filter((dtype) => dtype !== 'void16');

const test = suite('core/distances');

test('every dtype, 0 to 67 elements at any alignment', async () => {
  const random = new Random(seed);
  const core = await openStrategies(1 << 20);
  for (const dtype of NUMERIC) {
    for (let count = 0; count <= 67; count++) {
      const blocks = Array.from({ length: random.integer(1, 5) + 1 }, () =>
        randomBlock(random, dtype, count),
      );
      agree(core, dtype, blocks, random, `${dtype}, ${count} elements`);
    }
  }
  core.close();
});

test('chunk borders', async () => {
  const random = new Random(seed + 1);
  const core = await openStrategies(4 << 20);
  for (const dtype of ['float32', 'bfloat16', 'int16', 'complex64', 'float64'] as const) {
    for (const count of [1, 2].flatMap((n) => [-5, -4, -1, 0, 1, 3, 4, 129].map((d) => n * CHUNK + d))) {
      const blocks = Array.from({ length: 4 }, () => randomBlock(random, dtype, count));
      agree(core, dtype, blocks, random, `${dtype}, ${count} elements`);
    }
  }
  core.close();
});

test('any number of inputs, groups of sixteen included', async () => {
  const random = new Random(seed + 2);
  const core = await openStrategies(8 << 20);
  for (const k of [...Array.from({ length: 37 }, (_, i) => i + 1), 47, 48, 49, 64, 65, 100]) {
    const count = k === 33 ? CHUNK + 131 : random.integer(100, 400);
    agree(core, 'float32', similarBlocks(random, k, count), random, `${k} inputs`);
  }
  core.close();
});

test('the sums of a cut tensor are those of the whole one', async () => {
  const random = new Random(seed + 3);
  const core = await openStrategies(4 << 20);
  const blocks = similarBlocks(random, 5, 3 * CHUNK + 1234);
  const weightings = [3, 1, 4, 1, 5];
  const whole = measure(core, 'float32', blocks, weightings, 4);
  const cuts = [0, CHUNK, 3 * CHUNK, 3 * CHUNK + 1234];
  const parts = cuts.slice(1).map((end, i) => {
    const cut = blocks.map((block) => block.subarray(4 * cuts[i]!, 4 * end));
    return measure(core, 'float32', cut, weightings, i);
  });
  for (const name of ['norms', 'differences', 'toCentre', 'pairs'] as const) {
    const joined = Float64Array.from(parts.flatMap((part) => [...part[name]]));
    sameBytes(joined, whole[name], name);
  }
  core.close();
});

test('NaN and infinity spoil the sums they take part in, and no others', async () => {
  const core = await openStrategies();
  const patterns = {
    float16: [0x7c00, 0xfc00, 0x7e01],
    bfloat16: [0x7f80, 0xff80, 0x7fc1],
    float32: [0x7f800000, 0xff800000, 0xffc00001],
  } as const;
  const canonical = new Float64Array([Number.NaN]);
  for (const [name, bits] of Object.entries(patterns)) {
    const dtype = name as keyof typeof patterns; // its keys
    for (const place of [0, 5, 66]) {
      for (const pattern of bits) {
        const blocks = Array.from({ length: 4 }, () => new Uint8Array(67 * itemSize(dtype)));
        const view = new DataView(blocks[1]!.buffer);
        if (dtype === 'float32') view.setUint32(4 * place, pattern, true);
        else view.setUint16(2 * place, pattern, true);
        const hasNaN = pattern === bits[2];
        const { norms, pairs } = measure(core, dtype, blocks, [1, 0, 1], place);
        const spoilt = hasNaN ? Number.NaN : Number.POSITIVE_INFINITY;
        assert.equal([...norms].map(String), [0, spoilt, 0].map(String));
        assert.equal([...pairs].map(String), [spoilt, 0, spoilt].map(String));
        if (hasNaN) sameBytes(norms.subarray(1, 2), canonical);
        const { toCentre } = measure(core, dtype, blocks, [1, 0, 1], place);
        assert.equal([...toCentre].map(String), [0, spoilt, 0].map(String));
      }
    }
  }
  core.close();
});

test('differences of close models do not cancel', async () => {
  const core = await openStrategies();
  // Norms of 1e12 and a difference of 2^-20: x·x - 2 x·y + y·y would leave nothing of it.
  const a = new Float32Array(64).fill(2 ** 20);
  const b = a.slice();
  b[7]! += 2 ** -3;
  const blocks = [a, b, a].map((x) => new Uint8Array(x.buffer));
  const { pairs } = measure(core, 'float32', blocks, [1, 1], 0);
  assert.equal([...pairs], [2 ** -6]);
  core.close();
});

test('anonymous bytes have no distances', async () => {
  assert.not(supportsDistances(DTYPES.void16.code));
  assert.ok(supportsDistances(DTYPES.bool.code));
  const core = await openStrategies();
  await failsWith('internal-status', () => squaredNormsInto(core, DTYPES.void16.code, 0, 0, 0, 0));
  core.close();
});

test.run();
