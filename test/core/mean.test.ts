import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Core, openCore } from '../../src/core/core.ts';
import { meanArenaBytes, meanInto, planMean, supportsMean } from '../../src/core/mean.ts';
import { DTYPES, type DType } from '../../src/tensor/dtypes.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { Random, testSeed } from '../helpers/random.ts';
import { exactMean, FORMATS, integerWeights, roundRational, takeApart } from '../helpers/rational.ts';

const seed = testSeed();
const LONG = process.env.CAMBIUM_LONG ? 12 : 1;

type FloatType = 'float32' | 'float64';
type Floats = Float32Array | Float64Array;

const ARRAYS = { float32: Float32Array, float64: Float64Array } as const;

/** Puts the inputs at odd places of the arena, folds them and takes a copy of the result. */
function fold(
  core: Core,
  dtype: DType,
  inputs: readonly ArrayBufferView[],
  weightings: readonly number[],
  count: number,
  { offset = 0, propagate = false }: { offset?: number; propagate?: boolean } = {},
): Uint8Array<ArrayBuffer> | false {
  return core.scope(() => {
    const bytes = inputs[0]!.byteLength;
    const plan = planMean(core, weightings);
    const table = core.take(4 * inputs.length);
    for (const [j, input] of inputs.entries()) {
      const address = core.take(bytes + 16) + ((offset + j * 3) & 15);
      core.bytes(address, bytes).set(new Uint8Array(input.buffer, input.byteOffset, bytes));
      core.view(table + 4 * j, 4).setUint32(0, address, true);
    }
    const out = core.take(bytes + 32) + (offset & 15);
    core.bytes(out, bytes + 16).fill(0xa5);
    const finite = meanInto(core, plan, DTYPES[dtype].code, table, count, out, propagate);
    assert.ok(
      core.bytes(out + bytes, 16).every((byte) => byte === 0xa5),
      'wrote behind the block',
    );
    return finite && core.bytes(out, bytes).slice();
  });
}

function foldFinite(...given: Parameters<typeof fold>): Uint8Array<ArrayBuffer> {
  const result = fold(...given);
  if (result === false) throw new Error('the mean met NaN or infinity');
  return result;
}

/** Compares every element with exact rational arithmetic. */
function check(
  core: Core,
  dtype: FloatType,
  inputs: readonly Floats[],
  weightings: readonly number[],
  what: string,
): void {
  const count = inputs[0]!.length;
  const weights = integerWeights(weightings);
  const expected = new ARRAYS[dtype](count);
  for (let i = 0; i < count; i++) {
    expected[i] = exactMean(
      inputs.map((input) => input[i]!),
      weights,
      FORMATS[dtype],
    );
  }
  const actual = foldFinite(core, dtype, inputs, weightings, count, { offset: count });
  const got = new ARRAYS[dtype](actual.buffer);
  const wrong = got.findIndex((value, i) => !Object.is(value, expected[i]));
  if (wrong >= 0) {
    const xs = inputs.map((input) => input[wrong]);
    assert.unreachable(
      `${what} ${dtype}[${wrong}]: ${got[wrong]}, expected ${expected[wrong]}, of ${xs.slice(0, 12)} by ${weightings.slice(0, 12)}`,
    );
  }
}

/** Numbers of one kind, from the exponents that the dtype has. */
type Sample = (random: Random, dtype: FloatType) => number;

const patterns = new DataView(new ArrayBuffer(8));

function randomPattern(random: Random, dtype: FloatType): number {
  for (;;) {
    patterns.setUint32(0, random.bits());
    patterns.setUint32(4, random.bits());
    const x = dtype === 'float32' ? patterns.getFloat32(0) : patterns.getFloat64(0);
    if (Number.isFinite(x)) return x;
  }
}

const top = (dtype: FloatType) => (dtype === 'float32' ? 127 : 1023);
const smallest = (dtype: FloatType) => 2 ** FORMATS[dtype].smallest;

const SAMPLES: Readonly<Record<string, Sample>> = {
  gauss: (random) => 0.05 * random.gauss(),
  'common model': (random) => 0.7 + 1e-3 * random.gauss(),
  'few bits': (random) => random.integer(-9, 9) / 8,
  'ties of the dtype': (random, dtype) => 1 + (random.integer(0, 7) * 2) / 2 ** FORMATS[dtype].precision,
  'heavy tails': (random) => Math.tan(3.14 * (random.uniform() - 0.5)) ** 3,
  'wide range': (random) => random.gauss() * 2 ** random.integer(-40, 10),
  'very wide range': (random, dtype) => random.gauss() * 2 ** random.integer(-top(dtype), top(dtype) - 8),
  'random patterns': randomPattern,
  subnormal: (random, dtype) => random.integer(-40, 40) * smallest(dtype),
  'subnormal border': (random, dtype) =>
    random.integer(-3, 3) * smallest(dtype) +
    random.pick([0, 1, -1, 0.5]) * 2 ** (dtype === 'float32' ? -126 : -1022),
  'near overflow': (random, dtype) =>
    random.pick([-1, 1, 1]) * (2 - random.uniform() * 2 ** -20 - 2 ** -22) * 2 ** top(dtype),
  zeros: (random) => random.pick([0, -0, -0, -0, 0, 1e-3 * random.gauss()]),
  'minus zeros': () => -0,
  pruned: (random) => (random.uniform() < 0.6 ? 0 : random.gauss()),
};

const WEIGHTINGS: Readonly<Record<string, (random: Random, k: number) => number[]>> = {
  ones: (_, k) => Array(k).fill(1),
  samples: (random, k) => Array.from({ length: k }, () => random.integer(1, 5000)),
  fractional: (random, k) => Array.from({ length: k }, () => random.uniform() + 0.01),
  'equal fractions': (_, k) => Array(k).fill(0.1),
  quarters: (random, k) => Array.from({ length: k }, () => random.integer(1, 99) / 4),
  'up to 2^28': (random, k) => Array.from({ length: k }, () => random.integer(1, 2 ** 27 / k)),
  'up to 2^45': (random, k) => Array.from({ length: k }, () => random.integer(1, 2 ** 45)),
  huge: (random, k) =>
    Array.from({ length: k }, () => random.integer(2 ** 52 / k - 2 ** 20, 2 ** 53 / k - 1)),
  'from 2^-64 to 2^52': (random, k) =>
    Array.from(
      { length: k },
      (_, j) => (1 + random.uniform()) * 2 ** (j === 0 ? 51 : random.integer(-64, 40)),
    ),
};

const test = suite('mean');

test('every number of elements and alignment', async () => {
  const random = new Random(seed);
  const core = await openCore(1 << 20);
  for (const dtype of ['float32', 'float64'] as const) {
    for (let count = 0; count <= 67; count++) {
      const inputs = Array.from({ length: 3 }, () =>
        new ARRAYS[dtype](count).map(() => SAMPLES.pruned!(random, dtype)),
      );
      check(core, dtype, inputs, [3, 1, 2], `${count} elements`);
    }
  }
});

for (const [sampleName, sample] of Object.entries(SAMPLES)) {
  test(`every element of ${sampleName}`, async () => {
    const random = new Random(seed + sampleName.length);
    const core = await openCore(1 << 21);
    for (const dtype of ['float32', 'float64'] as const) {
      for (const [weightName, weigh] of Object.entries(WEIGHTINGS)) {
        for (const [k, count] of [
          [1, 40],
          [2, 1000],
          [3, 1000],
          [10, 500],
          [100, 40],
        ] as const) {
          const weightings = weigh(random, k);
          const inputs = Array.from({ length: k }, () =>
            new ARRAYS[dtype](count * LONG).map(() => sample(random, dtype)),
          );
          check(core, dtype, inputs, weightings, `${sampleName} by ${weightName}, k = ${k}`);
        }
      }
    }
  });
}

/**
 * Two elements and weightings w0 = W - 1, w1 = 1 whose mean lies `delta` units of the exact sum beside a half-way point.
 *
 * In units of 2^-(p + s): w0·X0·2^(s + 1) + X1 = M·2^s·W + delta with M odd, the half-way point having one bit more than
 * the dtype. X1 = R·2^s + delta and X0 = (R + W·odd) / 2 solve it for every odd R and W.
 */
function besideHalfWay(random: Random, dtype: FloatType, weightBits: number, delta: number) {
  const { precision } = FORMATS[dtype];
  const total = 2 * random.integer(2 ** (weightBits - 2), 2 ** (weightBits - 1) - 1) + 1;
  const s = random.integer(2, precision - 3);
  const r = 2n * BigInt(random.integer(0, 2 ** Math.min(precision - s - 2, 50) - 1)) + 1n;
  const about = BigInt(Math.floor((1.1 + 0.7 * random.uniform()) * 2 ** (precision - 1)));
  const odd = ((2n * about) / BigInt(total)) | 1n;
  const x0 = Number((r + BigInt(total) * odd) / 2n) * 2 ** (1 - precision);
  const x1 = Number(r * 2n ** BigInt(s) + BigInt(delta)) * 2 ** (-precision - s);
  return { weightings: [total - 1, 1], xs: [x0, x1] };
}

/** The same mean of at least eight inputs, where certificates are tried in another order: the heaviest one in parts. */
function inParts<T>(random: Random, inputs: readonly T[], weightings: readonly number[]): [T[], number[]] {
  const heaviest = weightings.indexOf(Math.max(...weightings));
  const parts: number[] = [];
  let rest = weightings[heaviest]!;
  for (; rest >= 2 && parts.length < 7; rest -= parts[parts.length - 1]!) {
    parts.push(random.integer(1, Math.floor(rest / 2)));
  }
  parts.push(rest);
  const others = <V>(list: readonly V[]) => list.filter((_, j) => j !== heaviest);
  return [
    [...parts.map(() => inputs[heaviest] as T), ...others(inputs)],
    [...parts, ...others(weightings)],
  ];
}

test('beside half-way points, whatever the spread', async () => {
  const random = new Random(seed);
  const core = await openCore();
  for (const dtype of ['float32', 'float64'] as const) {
    for (let weightBits = 3; weightBits <= (dtype === 'float32' ? 20 : 48); weightBits++) {
      for (let n = 0; n < 40 * LONG; n++) {
        const delta = (n % 5) - 2;
        const { weightings, xs } = besideHalfWay(random, dtype, weightBits, delta);
        const sign = random.pick([1, -1]);
        const inputs = xs.map((x) => new ARRAYS[dtype]([x, -x, x * 2 ** 40 * sign, x * 2 ** -60, x]));
        assert.is(inputs[0]![0], xs[0], 'the case is not representable');
        assert.is(inputs[1]![0], xs[1], 'the case is not representable');
        check(core, dtype, inputs, weightings, `${delta} beside half-way, s`);
        check(core, dtype, ...inParts(random, inputs, weightings), `${delta} beside half-way, s, in parts`);
      }
    }
  }
});

test('beside half-way points, whatever the weights', async () => {
  const random = new Random(seed);
  const core = await openCore();
  for (const dtype of ['float32', 'float64'] as const) {
    const { precision, smallest } = FORMATS[dtype];
    for (const weightBits of [3, 10, 20, 25, 26, 27, 28, 29, 30, 31, 40, 45, 51]) {
      for (let n = 0; n < 60 * LONG; n++) {
        const delta = (n % 5) - 2;
        const isSubnormal = n % 3 === 0;
        const j = isSubnormal
          ? random.pick([0, 1, 2, 3, 2 ** (precision - 1) - 1, 2 ** (precision - 1) - 2])
          : 2 ** (precision - 1) + random.integer(2 ** 10, 2 ** (precision - 2));
        const { weightings, places } = besideHalf(random, weightBits, delta);
        const unit = isSubnormal ? 2 ** smallest : 2 ** random.integer(-40, 40);
        const xs = places.map((place) => (j + place) * unit);
        const inputs = xs.map((x) => new ARRAYS[dtype]([x, -x]));
        check(core, dtype, inputs, weightings, `${delta} beside half-way`);
        check(core, dtype, ...inParts(random, inputs, weightings), `${delta} beside half-way, in parts`);
        // The same with weights of 2^-60 that decide: a wide plan.
        const b = random.integer(3, 99);
        const wide = [...inputs.slice(0, 2), ...inputs.slice(0, 2)];
        const deciding = [2 ** (weightBits - 1), 2 ** (weightBits - 1), (b + delta) * 2 ** -60, b * 2 ** -60];
        check(core, dtype, wide, deciding, `${delta} beside half-way, wide`);
      }
    }
  }
});

test('a tiny element decides behind great ones that cancel', async () => {
  const random = new Random(seed);
  const core = await openCore();
  for (const dtype of ['float32', 'float64'] as const) {
    const { precision } = FORMATS[dtype];
    const ulp = 2 ** (1 - precision);
    for (let great = 20; great <= 120; great += 2) {
      for (let tiny = 4; tiny <= (dtype === 'float32' ? 100 : 300); tiny += 7) {
        // (x0 + x0 + ulp) / 8 is half-way between two numbers; the difference of two tiny ones breaks the tie.
        const x0 = 1 + random.integer(0, 99) * ulp;
        const signs = [1, -1, 0];
        const inputs = [
          ...[2 ** great, x0, x0 + ulp].map((x) => signs.map(() => x)),
          signs.map((sign) => sign * 2 ** -tiny * (1 + ulp)),
          signs.map((sign) => -sign * 2 ** -tiny),
          ...[0, 0, -(2 ** great)].map((x) => signs.map(() => x)),
        ].map((numbers) => ARRAYS[dtype].from(numbers));
        check(core, dtype, inputs, Array(8).fill(3), `2^${great}, 2^-${tiny}`);
        check(core, dtype, random.shuffle(inputs), Array(8).fill(3), `2^${great}, 2^-${tiny}, shuffled`);
      }
    }
  }
});

test('beside powers of two', async () => {
  const core = await openCore();
  for (const big of [0, 2 ** 300]) {
    for (let at = -20; at <= 20; at++) {
      const rest = Float64Array.from({ length: 129 }, (_, i) => (i - 64) * 2 ** (at - 54));
      const inputs = [big, -big, 4 * 2 ** at].map((x) => rest.map(() => x));
      check(core, 'float64', [...inputs, rest], [1, 1, 1, 1], 'beside a power of two');
      for (let w = 1; w < 60; w += 2) {
        const total = rest.map(() => (6 + w) * 2 ** at);
        const four = [inputs[0]!, inputs[1]!, total, rest];
        check(core, 'float64', four, [1, 1, 4, w], 'beside a power of two');
      }
    }
  }
});

test('cancellation', async () => {
  const random = new Random(seed);
  const core = await openCore();
  for (const dtype of ['float32', 'float64'] as const) {
    for (const big of [2 ** 10, 2 ** 30, 2 ** 60, 2 ** 100, 2 ** 122]) {
      for (const weighting of [1, 3, 0.1, 2 ** 40 + 1]) {
        const some = () => new ARRAYS[dtype](64).map(() => random.gauss());
        const large = some().map((x) => x * big);
        const inputs = random.shuffle([large, large.map((x) => -x), some()]);
        check(core, dtype, inputs, [weighting, weighting, weighting], `cancelling ${big}`);
        const zero = [large, large.map((x) => -x)];
        check(core, dtype, zero, [weighting, weighting], 'cancelling to zero');
      }
    }
  }
});

test('thousands of inputs', async () => {
  const random = new Random(seed);
  const core = await openCore(1 << 21);
  for (const dtype of ['float32', 'float64'] as const) {
    for (const name of ['samples', 'fractional', 'ones']) {
      for (const sample of [SAMPLES.gauss!, randomPattern]) {
        const inputs = Array.from({ length: 4096 }, () =>
          new ARRAYS[dtype](5).map(() => sample(random, dtype)),
        );
        check(core, dtype, inputs, WEIGHTINGS[name]!(random, 4096), `4096 by ${name}`);
      }
    }
  }
});

test('order and blocks do not matter', async () => {
  const random = new Random(seed);
  const core = await openCore();
  for (const dtype of ['float32', 'float64'] as const) {
    for (const [weightName, weigh] of Object.entries(WEIGHTINGS)) {
      for (const sampleName of ['gauss', 'heavy tails', 'very wide range', 'random patterns', 'zeros']) {
        const k = random.integer(2, 12);
        const inputs = Array.from({ length: k }, () =>
          new ARRAYS[dtype](101).map(() => SAMPLES[sampleName]!(random, dtype)),
        );
        const weightings = weigh(random, k);
        const whole = foldFinite(core, dtype, inputs, weightings, 101);
        const what = `${sampleName} by ${weightName}, ${dtype}`;
        for (let n = 0; n < 3; n++) {
          const order = random.shuffle(inputs.map((_, j) => j));
          const again = foldFinite(
            core,
            dtype,
            order.map((j) => inputs[j]!),
            order.map((j) => weightings[j]!),
            101,
          );
          sameBytes(again, whole, `${what}, order ${order}`);
        }
        for (const block of [1, 2, 3, 5, 7, 8, 9, 64]) {
          const parts: Uint8Array[] = [];
          for (let at = 0; at < 101; at += block) {
            const part = inputs.map((input) => input.subarray(at, at + block));
            parts.push(foldFinite(core, dtype, part, weightings, part[0]!.length, { offset: at }));
          }
          sameBytes(Buffer.concat(parts), whole, `${what}, blocks of ${block}`);
        }
      }
    }
  }
});

test('a lone input comes back bit for bit', async () => {
  const random = new Random(seed);
  const core = await openCore();
  for (const dtype of ['float32', 'float64'] as const) {
    const input = new ARRAYS[dtype](1000).map(() => randomPattern(random, dtype));
    input.set([0, -0, FORMATS[dtype].precision, 2 ** FORMATS[dtype].smallest]);
    for (const weighting of [1, 77, 0.3, 2 ** -64, 2 ** 53 - 1]) {
      sameBytes(foldFinite(core, dtype, [input], [weighting], 1000), input, `alone by ${weighting}`);
    }
  }
});

test('the same everywhere comes back bit for bit', async () => {
  const random = new Random(seed);
  const core = await openCore();
  for (const dtype of ['float32', 'float64'] as const) {
    const input = new ARRAYS[dtype](500).map(() => randomPattern(random, dtype));
    for (const [name, weigh] of Object.entries(WEIGHTINGS)) {
      const weightings = weigh(random, 5);
      const same = weightings.map(() => input);
      sameBytes(foldFinite(core, dtype, same, weightings, 500), input, `the same by ${name}`);
    }
  }
});

test('complex elements go by component', async () => {
  const random = new Random(seed);
  const core = await openCore();
  for (const [complex, dtype] of [
    ['complex64', 'float32'],
    ['complex128', 'float64'],
  ] as const) {
    const inputs = Array.from({ length: 3 }, () => new ARRAYS[dtype](26).map(() => random.gauss()));
    const real = foldFinite(core, dtype, inputs, [1, 2, 4], 26);
    sameBytes(foldFinite(core, complex, inputs, [1, 2, 4], 13), real, complex);
  }
});

/** Bits of a half as a number. */
function widen(bits: number, dtype: 'float16' | 'bfloat16'): number {
  const fractionBits = dtype === 'float16' ? 10 : 7;
  const field = (bits & 0x7fff) >> fractionBits;
  const fraction = bits & ((1 << fractionBits) - 1);
  const { smallest } = FORMATS[dtype];
  const significand = field === 0 ? fraction : fraction + (1 << fractionBits);
  const x = significand * 2 ** (smallest + Math.max(field, 1) - 1);
  return bits & 0x8000 ? -x : x;
}

test('every element of float16 and bfloat16', async () => {
  const random = new Random(seed);
  const core = await openCore(1 << 21);
  const exponents = { float16: 0x7c00, bfloat16: 0x7f80 } as const;
  for (const dtype of ['float16', 'bfloat16'] as const) {
    const any = () => {
      for (;;) {
        const bits = random.bits() & 0xffff;
        if ((bits & exponents[dtype]) !== exponents[dtype]) return bits;
      }
    };
    const near = () => (any() & 0x807f) | 0x3c00;
    const small = () => any() & 0x801f;
    for (const [weightName, weigh] of Object.entries(WEIGHTINGS)) {
      for (const sample of [any, near, small, () => random.pick([0, 0x8000, any()]), () => 0x8000]) {
        const k = random.pick([1, 2, 3, 10]);
        const inputs = Array.from({ length: k }, () => new Uint16Array(200).map(sample));
        const weightings = weigh(random, k);
        const weights = integerWeights(weightings);
        const actual = new Uint16Array(foldFinite(core, dtype, inputs, weightings, 200).buffer);
        for (const [i, bits] of actual.entries()) {
          const xs = inputs.map((input) => widen(input[i]!, dtype));
          const expected = exactMean(xs, weights, FORMATS[dtype]);
          const got = widen(bits, dtype);
          assert.ok(
            Object.is(got, expected),
            `${dtype} by ${weightName}: ${got}, expected ${expected}, of ${xs} by ${weightings}`,
          );
        }
      }
    }
  }
});

/** Weightings and places beside j + 1/2, in halves, whose sum of products is delta: the mean is j + 1/2 + delta / 2W. */
function besideHalf(random: Random, weightBits: number, delta: number) {
  const y = 2 * random.integer(-3, 3) + 1;
  const w1 = random.integer(2 ** (weightBits - 1), 2 ** weightBits - 1) + 8;
  return { weightings: [w1 - y + delta, w1, 1], places: [1, -1, y].map((place) => (1 + place) / 2) };
}

test('float16 and bfloat16 beside half-way points', async () => {
  const random = new Random(seed);
  const core = await openCore();
  for (const dtype of ['float16', 'bfloat16'] as const) {
    const { precision, smallest } = FORMATS[dtype];
    for (let weightBits = 3; weightBits <= 51; weightBits++) {
      for (let n = 0; n < 20 * LONG; n++) {
        const { weightings, places } = besideHalf(random, weightBits, (n % 5) - 2);
        // From the significand on; the biased exponent is far from the ends.
        const j = (15 << (precision - 1)) + random.integer(4, 2 ** (precision - 1) - 8);
        const inputs = places.map((place) => new Uint16Array([j + place, 0x8000 | (j + place)]));
        const actual = new Uint16Array(foldFinite(core, dtype, inputs, weightings, 2).buffer);
        const weights = integerWeights(weightings);
        for (const [i, bits] of actual.entries()) {
          const xs = inputs.map((input) => widen(input[i]!, dtype));
          const expected = exactMean(xs, weights, { precision, smallest });
          assert.is(widen(bits, dtype), expected, `${dtype}: ${xs} by ${weightings}`);
        }
      }
    }
  }
});

const INTEGERS = {
  bool: { array: Uint8Array, bits: 1, signed: false },
  int8: { array: Int8Array, bits: 8, signed: true },
  uint8: { array: Uint8Array, bits: 8, signed: false },
  int16: { array: Int16Array, bits: 16, signed: true },
  uint16: { array: Uint16Array, bits: 16, signed: false },
  int32: { array: Int32Array, bits: 32, signed: true },
  uint32: { array: Uint32Array, bits: 32, signed: false },
  int64: { array: BigInt64Array, bits: 64, signed: true },
  uint64: { array: BigUint64Array, bits: 64, signed: false },
} as const;

/** sum / total rounded to an integer, ties to even, for sums of both signs. */
function roundToEven(sum: bigint, total: bigint): bigint {
  let q = sum / total;
  let rest = sum % total;
  if (rest < 0n) {
    q -= 1n;
    rest += total;
  }
  return 2n * rest > total || (2n * rest === total && (q & 1n) === 1n) ? q + 1n : q;
}

test('every element of integers and bool', async () => {
  const random = new Random(seed);
  const core = await openCore(1 << 21);
  for (const [dtype, { array, bits, signed }] of Object.entries(INTEGERS)) {
    const wrap = (x: bigint) => (signed ? BigInt.asIntN(bits, x) : BigInt.asUintN(bits, x));
    const any = () => wrap((BigInt(random.bits()) << 32n) | BigInt(random.bits()));
    const small = () => wrap(BigInt(random.integer(0, 5)));
    const extreme = () =>
      wrap(random.pick([0n, -1n, 1n, 1n << BigInt(bits - 1), (1n << BigInt(bits - 1)) - 1n]));
    for (const [weightName, weigh] of Object.entries(WEIGHTINGS)) {
      for (const sample of [any, small, extreme]) {
        const k = random.pick([1, 2, 3, 10]);
        const values = Array.from({ length: k }, () => Array.from({ length: 60 }, sample));
        const inputs = values.map((numbers) =>
          bits === 64
            ? (array as BigInt64ArrayConstructor).from(numbers)
            : (array as Int32ArrayConstructor).from(numbers.map(Number)),
        );
        const weightings = weigh(random, k);
        const { weights, total } = integerWeights(weightings);
        const result = foldFinite(core, dtype as DType, inputs, weightings, 60);
        const actual = new array(result.buffer as ArrayBuffer);
        for (let i = 0; i < 60; i++) {
          const sum = values.reduce((s, numbers, j) => s + weights[j]! * numbers[i]!, 0n);
          assert.is(
            BigInt(actual[i]!),
            roundToEven(sum, total),
            `${dtype} by ${weightName}: ${values.map((numbers) => numbers[i])} by ${weightings}`,
          );
        }
      }
    }
  }
});

test('integers beside halves', async () => {
  const random = new Random(seed);
  const core = await openCore();
  for (const bits of [32, 64] as const) {
    for (let weightBits = 3; weightBits <= 51; weightBits++) {
      for (let n = 0; n < 40 * LONG; n++) {
        const { weightings, places } = besideHalf(random, weightBits, (n % 5) - 2);
        const j = (BigInt(random.bits()) << 31n) >> BigInt(64 - bits + random.integer(2, 26));
        const numbers = places.map((place) => j + BigInt(place));
        const inputs = numbers.map((x) =>
          bits === 64 ? BigInt64Array.of(x, -x) : Int32Array.of(Number(x), -Number(x)),
        );
        const result = foldFinite(core, `int${bits}`, inputs, weightings, 2);
        const actual = new (bits === 64 ? BigInt64Array : Int32Array)(result.buffer);
        const { weights, total } = integerWeights(weightings);
        const sum = numbers.reduce((s, x, i) => s + weights[i]! * x, 0n);
        assert.is(BigInt(actual[0]!), roundToEven(sum, total), `int${bits}: ${numbers} by ${weightings}`);
        assert.is(BigInt(actual[1]!), roundToEven(-sum, total), `int${bits}: -(${numbers}) by ${weightings}`);
      }
    }
  }
});

/** Bits by size, for the patterns that numbers cannot carry. */
const NON_FINITE = [
  ['float16', Uint16Array, [0x3c00, 0x7c00, 0xfc00, 0x7c01, 0xfe00], 0x7e00],
  ['bfloat16', Uint16Array, [0x3f80, 0x7f80, 0xff80, 0x7f81, 0xffc0], 0x7fc0],
  ['float32', Uint32Array, [0x3f800000, 0x7f800000, 0xff800000, 0x7f800001, 0xffc00000], 0x7fc00000],
  [
    'float64',
    BigUint64Array,
    [0x3ff0000000000000n, 0x7ff0000000000000n, 0xfff0000000000000n, 0x7ff0000000000001n, 0xfff8000000000000n],
    0x7ff8000000000000n,
  ],
] as const;

test('NaN and infinity, wherever they stand', async () => {
  const core = await openCore();
  for (const [dtype, array, [one, infinity, minusInfinity, signalling, quiet], nan] of NON_FINITE) {
    const rows = [
      [one, infinity, infinity],
      [infinity, infinity, infinity],
      [one, minusInfinity, minusInfinity],
      [infinity, minusInfinity, nan],
      [minusInfinity, infinity, nan],
      [one, signalling, nan],
      [quiet, one, nan],
      [quiet, infinity, nan],
      [signalling, minusInfinity, nan],
    ] as const;
    for (const [a, b, expected] of rows) {
      for (let count = 1; count <= 21; count++) {
        for (let at = 0; at < count; at += 3) {
          const make = (x: number | bigint) => {
            const block = (array as Uint32ArrayConstructor).from({ length: count }, () => one as number);
            block[at] = x as number;
            return block;
          };
          const inputs = [make(a), make(b), make(one)];
          const what = `${dtype}: ${a} and ${b} at ${at} of ${count}`;
          assert.is(fold(core, dtype, inputs, [1, 2, 3], count), false, what);
          const actual = foldFinite(core, dtype, inputs, [1, 2, 3], count, { propagate: true });
          sameBytes(actual, make(expected), what);
        }
      }
    }
  }
});

test('weightings that cannot be used', async () => {
  const core = await openCore();
  const table: [number[], string][] = [
    [[1, Number.NaN], 'average-nan-weight'],
    [[Number.POSITIVE_INFINITY, 1], 'average-inf-weight'],
    [[1, Number.NEGATIVE_INFINITY], 'average-inf-weight'],
    [[1, -1], 'average-negative-weight'],
    [[-(2 ** -1074)], 'average-negative-weight'],
    [[1, 0], 'average-weight-range'],
    [[1, -0], 'average-weight-range'],
    [[2 ** -1074], 'average-weight-range'],
    [[2 ** -64 * (1 - 2 ** -53)], 'average-weight-range'],
    [[2 ** 53 + 2], 'average-weight-range'],
    [[2 ** 53], 'average-sum-overflow'],
    [[2 ** 53 - 1, 2 ** -64], 'average-sum-overflow'],
    [[2 ** 52, 2 ** 52 - 1, 2 ** -64], 'average-sum-overflow'],
    [[2 ** 53 - 1, 2 ** 53 - 1], 'average-sum-overflow'],
    [[], 'average-no-input'],
  ];
  for (const [weightings, code] of table) {
    await failsWith(code, () => core.scope(() => planMean(core, weightings)));
  }
  for (const weightings of [[2 ** 53 - 1], [2 ** 52, 2 ** 52 - 1], [2 ** -64], [2 ** 53 - 2, 0.5, 0.5]]) {
    assert.ok(core.scope(() => planMean(core, weightings)).total > 0);
  }
});

test('the total is the nearest binary64 of the exact sum', async () => {
  const random = new Random(seed);
  const core = await openCore();
  for (const weigh of Object.values(WEIGHTINGS)) {
    for (let n = 0; n < 200; n++) {
      const weightings = weigh(random, random.integer(1, 40));
      let lowest = 0;
      for (const weighting of weightings) lowest = Math.min(lowest, takeApart(weighting).exponent);
      const sum = weightings.reduce((s, weighting) => {
        const { significand, exponent } = takeApart(weighting);
        return s + (significand << BigInt(exponent - lowest));
      }, 0n);
      const plan = core.scope(() => planMean(core, weightings));
      assert.is(plan.total, roundRational(sum, 1n, lowest, FORMATS.float64), `${weightings}`);
    }
  }
});

test('the arena that a plan takes is known beforehand', async () => {
  for (const k of [1, 2, 7, 4096]) {
    const core = await openCore(meanArenaBytes(k) + 16);
    const before = core.free;
    planMean(core, Array(k).fill(1));
    assert.ok(before - core.free <= meanArenaBytes(k));
    assert.ok(meanArenaBytes(k) >= core.exports.meanPlanBytes(k) + 8 * k);
  }
});

test('dtypes without a mean', async () => {
  const core = await openCore();
  const plan = planMean(core, [1]);
  assert.is(supportsMean(DTYPES.void16.code), false);
  await failsWith('aggregate-dtype-unsupported', () =>
    meanInto(core, plan, DTYPES.void16.code, core.take(16), 0, core.take(16), false),
  );
  for (const name of Object.keys(DTYPES)) {
    if (name !== 'void16') assert.is(supportsMean(DTYPES[name as DType].code), true, name);
  }
});

test.run();
