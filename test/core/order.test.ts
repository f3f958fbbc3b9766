import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ORDER_MAX_INPUTS } from '../../assembly/abi.ts';
import { type Core, openStrategies } from '../../src/core/core.ts';
import type { StrategyExports } from '../../src/core/exports.ts';
import {
  orderArenaBytes,
  orderInto,
  planTrimmed,
  planWeightedMedian,
  supportsOrder,
} from '../../src/core/order.ts';
import { DTYPES, type DType, itemSize } from '../../src/tensor/dtypes.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { hasPythonModule, PYTHON } from '../helpers/peers.ts';
import { Random, testSeed } from '../helpers/random.ts';
import { exactMean, FORMATS, integerWeights } from '../helpers/rational.ts';

const seed = testSeed();
const LONG = process.env.CAMBIUM_LONG ? 8 : 1;

/** How many values are cut at each end, or the weightings of a weighted median. */
type Rule = number | readonly number[];

type FloatType = keyof typeof FORMATS;
type Plain = Exclude<DType, 'complex64' | 'complex128' | 'void16'>;

const PLAIN = (Object.keys(DTYPES) as DType[]).filter(
  (dtype): dtype is Plain => !dtype.startsWith('complex') && dtype !== 'void16',
);

const isFloat = (dtype: Plain): dtype is FloatType => dtype in FORMATS;

/** Combines inputs that lie at odd places of the arena, and takes a copy of the result; false as the kernel says it. */
function combine(
  core: Core<StrategyExports>,
  dtype: DType,
  inputs: readonly Uint8Array[],
  rule: Rule,
  { offset = 0, propagate = false }: { offset?: number; propagate?: boolean } = {},
): Uint8Array<ArrayBuffer> | false {
  return core.scope(() => {
    const bytes = inputs[0]!.byteLength;
    const plan =
      typeof rule === 'number' ? planTrimmed(core, inputs.length, rule) : planWeightedMedian(core, rule);
    const table = core.take(4 * inputs.length);
    for (const [j, input] of inputs.entries()) {
      const address = core.take(bytes + 16) + ((offset + j * 3) & 15);
      core.bytes(address, bytes).set(input);
      core.view(table + 4 * j, 4).setUint32(0, address, true);
    }
    const out = core.take(bytes + 32) + (offset & 15);
    core.bytes(out, bytes + 16).fill(0xa5);
    const count = bytes / itemSize(dtype);
    const finite = orderInto(core, plan, DTYPES[dtype].code, table, count, out, propagate);
    assert.ok(
      core.bytes(out + bytes, 16).every((byte) => byte === 0xa5),
      'wrote behind the block',
    );
    return finite && core.bytes(out, bytes).slice();
  });
}

function combineFinite(...given: Parameters<typeof combine>): Uint8Array<ArrayBuffer> {
  const result = combine(...given);
  if (result === false) throw new Error('met NaN or infinity');
  return result;
}

/** Element i as a number, of an integer dtype as a bigint. */
function element(dtype: Plain, bytes: Uint8Array, i: number): number | bigint {
  const size = itemSize(dtype);
  const view = new DataView(bytes.buffer, bytes.byteOffset + i * size, size);
  if (dtype === 'float32') return view.getFloat32(0, true);
  if (dtype === 'float64') return view.getFloat64(0, true);
  if (dtype === 'float16' || dtype === 'bfloat16') return widen(view.getUint16(0, true), dtype);
  let bits = 0n;
  for (let at = size - 1; at >= 0; at--) bits = (bits << 8n) | BigInt(view.getUint8(at));
  return dtype.startsWith('int') ? BigInt.asIntN(8 * size, bits) : bits;
}

/** Bits of a half as a number. */
function widen(bits: number, dtype: 'float16' | 'bfloat16'): number {
  const { precision, smallest } = FORMATS[dtype];
  const field = (bits & 0x7fff) >> (precision - 1);
  const fraction = bits & (2 ** (precision - 1) - 1);
  const sign = bits & 0x8000 ? -1 : 1;
  if (field === 0x7fff >> (precision - 1)) return fraction === 0 ? sign * Infinity : Number.NaN;
  const significand = field === 0 ? fraction : fraction + 2 ** (precision - 1);
  return sign * significand * 2 ** (smallest + Math.max(field, 1) - 1);
}

/** The total order, without NaN. */
function compare(a: number | bigint, b: number | bigint): number {
  if (a < b) return -1;
  if (a > b) return 1;
  return Number(Object.is(b, -0)) - Number(Object.is(a, -0));
}

/** The exact mean of equal weights, rounded once. */
function meanOf(dtype: Plain, xs: readonly (number | bigint)[]): number | bigint {
  if (isFloat(dtype)) {
    const numbers = xs as number[]; // of a float dtype
    const infinite = numbers.filter((x) => !Number.isFinite(x));
    if (infinite.length > 0) return infinite.reduce((a, b) => a + b);
    return exactMean(numbers, integerWeights(numbers.map(() => 1)), FORMATS[dtype]);
  }
  const sum = (xs as bigint[]).reduce((a, b) => a + b, 0n); // of an integer dtype
  const count = BigInt(xs.length);
  let floor = sum / count;
  if (floor * count > sum) floor--;
  const twice = 2n * (sum - floor * count);
  return twice > count || (twice === count && (floor & 1n) === 1n) ? floor + 1n : floor;
}

/** One element by the definition. */
function naive(dtype: Plain, xs: readonly (number | bigint)[], rule: Rule): number | bigint {
  if (xs.some((x) => Number.isNaN(x))) return Number.NaN;
  if (typeof rule === 'number') {
    return meanOf(dtype, [...xs].sort(compare).slice(rule, xs.length - rule));
  }
  const { weights, total } = integerWeights(rule);
  const order = xs.map((_, j) => j).sort((a, b) => compare(xs[a]!, xs[b]!));
  let sum = 0n;
  const reached = order.map((j) => {
    sum += weights[j]!;
    return 2n * sum;
  });
  const lower = xs[order[reached.findIndex((twice) => twice >= total)]!]!;
  const upper = xs[order[reached.findIndex((twice) => twice > total)]!]!;
  return meanOf(dtype, [lower, upper]);
}

/** Compares every element with the naive version. */
function check(
  core: Core<StrategyExports>,
  dtype: Plain,
  inputs: readonly Uint8Array[],
  rule: Rule,
  what: string,
  options: { offset?: number; propagate?: boolean } = {},
): void {
  const actual = combineFinite(core, dtype, inputs, rule, options);
  for (let i = 0; i < actual.byteLength / itemSize(dtype); i++) {
    const xs = inputs.map((input) => element(dtype, input, i));
    const expected = naive(dtype, xs, rule);
    const got = element(dtype, actual, i);
    if (Object.is(got, expected)) continue;
    assert.unreachable(
      `${what}, ${dtype}[${i}]: ${got}, expected ${expected}, of ${xs.slice(0, 12)} by ${rule}`,
    );
  }
}

/** Bytes of `count` elements. */
type Sample = (random: Random, dtype: Plain, count: number) => Uint8Array;

const bitsOf = (dtype: FloatType) => 8 * itemSize(dtype);

/** Bits of finite numbers: any pattern but those of NaN and infinity. */
const patterns: Sample = (random, dtype, count) => {
  const bytes = Uint8Array.from({ length: count * itemSize(dtype) }, () => random.bits());
  if (dtype === 'bool') return bytes.map((byte) => byte & 1);
  if (!isFloat(dtype)) return bytes;
  const size = itemSize(dtype);
  for (let i = 0; i < count; i++) {
    // The lowest bit of the exponent taken out of an exponent that is all ones.
    if (!Number.isFinite(element(dtype, bytes, i) as number)) {
      const low = FORMATS[dtype].precision - 1;
      bytes[i * size + (low >> 3)]! &= ~(1 << (low & 7));
    }
  }
  return bytes;
};

/** A few values, so that there are many equal ones: zeros of both signs, subnormals, the ends of the dtype. */
const few: Sample = (random, dtype, count) => {
  const size = itemSize(dtype);
  const some = patterns(random, dtype, 3);
  if (isFloat(dtype)) {
    const sign = BigInt(2) ** BigInt(bitsOf(dtype) - 1);
    const largest = sign - (1n << BigInt(FORMATS[dtype].precision - 1)) - 1n;
    const special = [0n, sign, 0n, sign, 1n, sign + 1n, largest, sign + largest];
    const bits = Array.from({ length: count }, () => random.pick(special));
    return Uint8Array.from({ length: count * size }, (_, at) =>
      Number((bits[Math.floor(at / size)]! >> BigInt(8 * (at % size))) & 255n),
    );
  }
  const bytes = new Uint8Array(count * size);
  for (let i = 0; i < count; i++) {
    const at = random.integer(0, 2) * size;
    bytes.set(some.subarray(at, at + size), i * size);
    if (random.uniform() < 0.3 && dtype !== 'bool')
      bytes.fill(random.pick([0, 255]), i * size, (i + 1) * size);
  }
  return bytes;
};

const WEIGHTINGS: Readonly<Record<string, (random: Random, k: number) => number[]>> = {
  ones: (_, k) => Array(k).fill(1),
  'one to four': (random, k) => Array.from({ length: k }, () => random.integer(1, 4)),
  samples: (random, k) => Array.from({ length: k }, () => random.integer(1, 5000)),
  fractional: (random, k) => Array.from({ length: k }, () => random.uniform() + 0.01),
  tenths: (random, k) => Array.from({ length: k }, () => random.integer(1, 9) / 10),
  'about 2^31': (random, k) =>
    Array.from({ length: k }, () => Math.ceil(2 ** 31 / k) + random.integer(-2, 2)),
  'up to 2^45': (random, k) => Array.from({ length: k }, () => random.integer(1, 2 ** 45 / k)),
  'from 2^-64 to 2^52': (random, k) =>
    Array.from(
      { length: k },
      (_, j) => (1 + random.uniform()) * 2 ** (j === 0 ? 51 : random.integer(-64, 40)),
    ),
  'one holds half': (random, k) => {
    const others = Array.from({ length: k - 1 }, () => random.integer(1, 99) * 2 ** -60);
    return [
      ...others,
      Math.max(
        others.reduce((a, b) => a + b, 0),
        2 ** -60,
      ),
    ];
  },
};

const test = suite('order');

test('every number of elements and alignment', async () => {
  const random = new Random(seed);
  const core = await openStrategies(1 << 20);
  for (const dtype of PLAIN) {
    for (let count = 0; count <= 67; count++) {
      const inputs = Array.from({ length: 5 }, () => patterns(random, dtype, count));
      for (const rule of [1, 2, [3, 1, 1, 2, 7]]) {
        check(core, dtype, inputs, rule, `${count} elements`, { offset: count });
      }
      check(core, dtype, inputs.slice(1), 1, `${count} elements`, { offset: count + 5 });
    }
  }
  core.close();
});

for (const dtype of PLAIN) {
  test(`every number of inputs and every cut: ${dtype}`, async () => {
    const random = new Random(seed);
    const core = await openStrategies(1 << 20);
    for (let k = 1; k <= 40; k++) {
      for (let cut = 0; 2 * cut < k; cut++) {
        const sample = random.pick([patterns, few]);
        const inputs = Array.from({ length: k }, () => sample(random, dtype, 4 * LONG));
        check(core, dtype, inputs, cut, `K = ${k} without ${cut}`);
      }
    }
    core.close();
  });

  test(`weighted medians: ${dtype}`, async () => {
    const random = new Random(seed);
    const core = await openStrategies(1 << 20);
    for (const [name, weigh] of Object.entries(WEIGHTINGS)) {
      for (const k of [1, 2, 3, 4, 5, 8, 10, 17, 40]) {
        for (const sample of [patterns, few]) {
          const inputs = Array.from({ length: k }, () => sample(random, dtype, 10 * LONG));
          check(core, dtype, inputs, weigh(random, k), `${name}, K = ${k}`);
        }
      }
    }
    core.close();
  });
}

test('rows longer than a tile', async () => {
  const random = new Random(seed);
  const core = await openStrategies(1 << 20);
  for (const dtype of PLAIN) {
    const count = Math.floor(2100 / itemSize(dtype)) + 3;
    const inputs = Array.from({ length: 4 }, () => patterns(random, dtype, count));
    for (const rule of [0, 1, [1, 1, 1, 1], [5, 1, 2, 1]])
      check(core, dtype, inputs, rule, 'many', { offset: 1 });
  }
  core.close();
});

test('the network brings every arrangement of zeros and ones where it belongs', async () => {
  // By the 0-1 principle a network that does this for zeros and ones does it for any keys.
  const core = await openStrategies(1 << 20);
  for (let k = 1; k <= 13; k++) {
    const inputs = Array.from({ length: k }, (_, j) =>
      Uint8Array.from({ length: 2 ** k }, (_, column) => (column >> j) & 1),
    );
    for (let cut = 0; 2 * cut < k; cut++) {
      const expected = inputs[0]!.map((_, column) => {
        const ones = inputs.reduce((sum, input) => sum + input[column]!, 0);
        const left = k - 2 * cut;
        const among = Math.max(0, Math.min(left, ones - cut));
        return 2 * among > left ? 1 : 0; // a tie goes to the even zero
      });
      sameBytes(combineFinite(core, 'uint8', inputs, cut), expected, `K = ${k} without ${cut}`);
    }
  }
  core.close();
});

test('hundreds and thousands of inputs', async () => {
  const random = new Random(seed);
  const core = await openStrategies(8 << 20);
  for (const k of [100, 256, 257, 1000, 4096]) {
    for (const dtype of ['float32', 'float64', 'int8', 'bfloat16'] as const) {
      const inputs = Array.from({ length: k }, () => patterns(random, dtype, 5));
      for (const rule of [0, 1, k >> 2, (k - 1) >> 1, WEIGHTINGS.samples!(random, k)]) {
        check(core, dtype, inputs, rule, `K = ${k}`);
      }
    }
    const inputs = Array.from({ length: k }, () => patterns(random, 'float32', 5));
    check(core, 'float32', inputs, WEIGHTINGS['from 2^-64 to 2^52']!(random, k), `K = ${k}`);
  }
  core.close();
});

test('order and blocks do not matter', async () => {
  const random = new Random(seed);
  const core = await openStrategies();
  for (const dtype of PLAIN) {
    for (const sample of [patterns, few]) {
      const k = random.integer(2, 12);
      const size = itemSize(dtype);
      const inputs = Array.from({ length: k }, () => sample(random, dtype, 101));
      for (const rule of [0, (k - 1) >> 1, k >> 2, WEIGHTINGS['one to four']!(random, k)]) {
        const whole = combineFinite(core, dtype, inputs, rule);
        for (let n = 0; n < 4; n++) {
          const order = random.shuffle(inputs.map((_, j) => j));
          const shuffled = typeof rule === 'number' ? rule : order.map((j) => rule[j]!);
          const again = combineFinite(
            core,
            dtype,
            order.map((j) => inputs[j]!),
            shuffled,
          );
          sameBytes(again, whole, `${dtype}, order ${order}`);
        }
        for (const block of [1, 3, 7, 16, 64]) {
          const parts: Uint8Array[] = [];
          for (let at = 0; at < 101; at += block) {
            const part = inputs.map((input) => input.subarray(at * size, (at + block) * size));
            parts.push(combineFinite(core, dtype, part, rule, { offset: at }));
          }
          sameBytes(Buffer.concat(parts), whole, `${dtype}, blocks of ${block}`);
        }
      }
    }
  }
  core.close();
});

test('equal weightings make the median, one input comes back bit for bit', async () => {
  const random = new Random(seed);
  const core = await openStrategies();
  for (const dtype of PLAIN) {
    for (let k = 1; k <= 12; k++) {
      const inputs = Array.from({ length: k }, () => patterns(random, dtype, 100));
      const median = combineFinite(core, dtype, inputs, (k - 1) >> 1);
      for (const weighting of [1, 0.1, 7777, 2 ** 40 + 1, 2 ** -64]) {
        sameBytes(combineFinite(core, dtype, inputs, Array(k).fill(weighting)), median, `${dtype}, K = ${k}`);
      }
      if (k === 1) sameBytes(median, inputs[0]!, dtype);
      const same = inputs.map(() => inputs[0]!);
      for (let cut = 0; 2 * cut < k; cut++) {
        sameBytes(combineFinite(core, dtype, same, cut), same[0]!, `${dtype}, the same ${k} times`);
      }
    }
  }
  core.close();
});

const floats = (...xs: number[]) => new Uint8Array(Float32Array.from(xs).buffer);

test('half of the weightings, exactly', async () => {
  const core = await openStrategies();
  const inputs = [1, 2, 4, 8].map((x) => floats(x));
  for (const [weightings, expected] of [
    [[1, 1, 1, 1], 3],
    [[2, 1, 1, 2], 3],
    [[3, 1, 1, 1], 1.5],
    [[1, 1, 1, 3], 6],
    [[4, 1, 1, 1], 1],
    [[1, 1, 3, 1], 4],
    // 0.1 + 0.2 is not the number 0.3 but the sum of two binary64 numbers, which is less.
    [[0.1, 0.2, 0.3, 2 ** -64], 2],
    [[0.5, 0.25, 0.75, 2 ** -64], 4],
    [[2 ** 52, 2 ** -64, 2 ** -64, 2 ** 52 - 2], 1],
    [[2 ** 51, 2 ** -60, 2 ** 51, 2 ** -60], 3],
    [[2 ** 51, 2 ** -60, 2 ** 51, 2 ** -61], 2],
    [[2 ** 51, 2 ** -61, 2 ** 51, 2 ** -60], 4],
    [[2 ** 30, 2 ** 30, 2 ** 30, 2 ** 30 + 1], 4],
    [[2 ** 30 - 1, 2 ** 30, 2 ** 30, 2 ** 30 - 1], 3],
  ] as const) {
    sameBytes(combineFinite(core, 'float32', inputs, weightings), floats(expected), `by ${weightings}`);
  }
  core.close();
});

test('zeros and infinities in order', async () => {
  const core = await openStrategies();
  const zeros = [-0, 0, -0, 0].map((x) => floats(x, -x));
  sameBytes(combineFinite(core, 'float32', zeros.slice(0, 3), 1), floats(-0, 0), 'of three');
  sameBytes(combineFinite(core, 'float32', zeros, 1), floats(0, 0), 'a mean of both');
  const some = [-Infinity, 1, 2, 3, Infinity].map((x) => floats(x, 5));
  const propagate = { propagate: true };
  for (const rule of [2, [1, 1, 1, 1, 1], [100, 1, 1, 1, 1]]) {
    assert.is(combine(core, 'float32', some, rule), false, 'infinity is refused, also when it is cut');
  }
  sameBytes(combineFinite(core, 'float32', some, 1, propagate), floats(2, 5), 'infinities are cut');
  sameBytes(combineFinite(core, 'float32', some, 0, propagate), floats(Number.NaN, 5), 'both infinities');
  sameBytes(
    combineFinite(core, 'float32', some, [9, 1, 1, 1, 1], propagate),
    floats(-Infinity, 5),
    'weighed',
  );
  sameBytes(combineFinite(core, 'float32', some, [1, 1, 1, 1, 4], propagate), floats(Infinity, 5), 'half');
  core.close();
});

test('NaN anywhere is refused or spreads in canonical form', async () => {
  const random = new Random(seed);
  const core = await openStrategies();
  const canonical = {
    float16: [0x00, 0x7e],
    bfloat16: [0xc0, 0x7f],
    float32: [0, 0, 0xc0, 0x7f],
    float64: [0, 0, 0, 0, 0, 0, 0xf8, 0x7f],
  } as const;
  for (const [dtype, nan] of Object.entries(canonical) as [FloatType, readonly number[]][]) {
    const size = nan.length;
    for (const count of [1, 7, 64, 300]) {
      const inputs = Array.from({ length: 4 }, () => patterns(random, dtype, count));
      for (const rule of [0, 1, [1, 2, 3, 5]]) {
        const expected = combineFinite(core, dtype, inputs, rule);
        const at = random.integer(0, count - 1);
        const dirty = inputs.map((input) => input.slice());
        // A negative NaN with another payload than the canonical one.
        const other = nan.map((byte, i) => byte | (i === 0 ? 1 : 0) | (i === size - 1 ? 0x80 : 0));
        dirty[random.integer(0, 3)]!.set(other, at * size);
        expected.set(nan, at * size);
        assert.is(combine(core, dtype, dirty, rule), false, `${dtype}[${at}] is refused`);
        sameBytes(combineFinite(core, dtype, dirty, rule, { propagate: true }), expected, `${dtype}[${at}]`);
      }
    }
  }
  core.close();
});

test('complex elements go by component', async () => {
  const random = new Random(seed);
  const core = await openStrategies();
  for (const [complex, dtype] of [
    ['complex64', 'float32'],
    ['complex128', 'float64'],
  ] as const) {
    const inputs = Array.from({ length: 4 }, () => patterns(random, dtype, 26));
    for (const rule of [0, 1, [1, 2, 4, 1]]) {
      const real = combineFinite(core, dtype, inputs, rule);
      sameBytes(combineFinite(core, complex, inputs, rule), real, complex);
    }
  }
  core.close();
});

test('the room that is asked for is enough', async () => {
  const core = await openStrategies();
  const sizes = [...Array(300).keys(), 511, 512, 513, 1000, 4095, 4096, 4097, 20_000, ORDER_MAX_INPUTS];
  for (const k of sizes.filter((k) => k > 0)) {
    const { trimmedPlanBytes, weightedMedianPlanBytes } = core.exports;
    const needed = Math.max(trimmedPlanBytes(k), weightedMedianPlanBytes(k)) + 8 * k + 32;
    assert.ok(orderArenaBytes(k) >= needed, `K = ${k}: ${orderArenaBytes(k)} bytes, ${needed} are needed`);
  }
  core.close();
});

test('what is refused', async () => {
  const core = await openStrategies();
  assert.is(supportsOrder(DTYPES.void16.code), false);
  for (const [code, work] of [
    ['aggregate-dtype-unsupported', () => combine(core, 'void16', [floats(1), floats(2)], 0)],
    ['aggregate-dtype-unsupported', () => combine(core, 'void16', [floats(1), floats(2)], [1, 1])],
    ['strategy-too-many-inputs', () => planTrimmed(core, ORDER_MAX_INPUTS + 1, 1)],
    ['strategy-too-many-inputs', () => planWeightedMedian(core, Array(ORDER_MAX_INPUTS + 1).fill(1))],
    ['average-nan-weight', () => planWeightedMedian(core, [1, Number.NaN])],
    ['average-negative-weight', () => planWeightedMedian(core, [1, -1])],
    ['average-sum-overflow', () => planWeightedMedian(core, [2 ** 53, 2 ** 53])],
  ] as const) {
    await failsWith(code, work);
  }
  core.close();
});

if (hasPythonModule('numpy')) {
  const PEER = fileURLToPath(new URL('order_peer.py', import.meta.url));

  test('NumPy agrees on many elements', async () => {
    const random = new Random(seed);
    const folder = mkdtempSync(join(tmpdir(), 'cambium-order-'));
    const count = 20_000 * LONG;
    const core = await openStrategies(16 * 8 * count);
    try {
      for (const dtype of [
        'float16',
        'float32',
        'float64',
        'int8',
        'uint16',
        'int32',
        'uint8',
        'bool',
      ] as const) {
        for (const k of [5, 10, 11]) {
          // Values on a grid, so that NumPy's sums in binary64 are exact too.
          const inputs = Array.from({ length: k }, () => gridded(random, dtype, count));
          writeFileSync(join(folder, 'inputs'), Buffer.concat(inputs));
          for (const rule of [1, (k - 1) >> 1, WEIGHTINGS['one to four']!(random, k)]) {
            const [name, ...values] = typeof rule === 'number' ? ['cut', rule] : ['weigh', ...rule];
            const { status, stderr } = spawnSync(
              PYTHON,
              [PEER, folder, dtype, String(k), name as string, ...values.map(String)],
              { encoding: 'utf8' },
            );
            assert.is(status, 0, stderr);
            sameBytes(
              combineFinite(core, dtype, inputs, rule),
              readFileSync(join(folder, 'output')),
              `${dtype}, K = ${k}, ${rule}`,
            );
          }
        }
      }
    } finally {
      core.close();
      rmSync(folder, { recursive: true, force: true });
    }
  });
}

/** Without -0, which NumPy does not tell from 0 when it sorts. */
function gridded(random: Random, dtype: Plain, count: number): Uint8Array {
  if (dtype === 'float32') {
    return new Uint8Array(
      new Float32Array(count).map(() => Math.round(random.gauss() * 2 ** 18) / 2 ** 20 + 0).buffer,
    );
  }
  if (dtype === 'float64') {
    return new Uint8Array(
      new Float64Array(count).map(() => Math.round(random.gauss() * 2 ** 40) / 2 ** 42 + 0).buffer,
    );
  }
  // Positive halves below two and a sign.
  if (dtype === 'float16') {
    return new Uint8Array(new Uint16Array(count).map(() => (random.bits() & 0x83ff) | 0x3c00).buffer);
  }
  return patterns(random, dtype, count);
}

test.run();
