// Exact partial sums: random trees of leaves, merged and taken apart again, against the flat mean, bit for bit.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Core, openStrategies } from '../../src/core/core.ts';
import type { StrategyExports } from '../../src/core/exports.ts';
import { meanInto, planMean } from '../../src/core/mean.ts';
import {
  exactSpread,
  finishPartial,
  foldPartial,
  type PartialTerm,
  partialArenaBytes,
  partialKind,
  prepareTotal,
  takePartialRoom,
  totalOf,
} from '../../src/core/partial.ts';
import { readTensors } from '../../src/formats/read.ts';
import { memorySource } from '../../src/tensor/bytes.ts';
import { DTYPES, type DType, itemSize } from '../../src/tensor/dtypes.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { Random, testSeed } from '../helpers/random.ts';
import { FORMATS, roundRational, takeApart } from '../helpers/rational.ts';

const seed = testSeed();
const LONG = process.env.CAMBIUM_LONG ? 10 : 1;

/** A partial sum in memory. */
interface Sum {
  readonly sums: Uint8Array;
  readonly block: Uint8Array;
  readonly leaves: number;
  readonly weightings: readonly number[];
}

interface Leaf {
  readonly bytes: Uint8Array;
  readonly weighting: number;
}

type Part = { readonly leaf: Leaf } | { readonly sum: Sum; readonly sign: 1 | -1 };

function put(core: Core<StrategyExports>, bytes: Uint8Array, spare = 0): number {
  const address = core.take(bytes.byteLength + spare + 16);
  core.bytes(address, bytes.byteLength).set(bytes);
  return address;
}

/** Folds leaves and sums; `count` numbers, one chunk at most. */
function fold(core: Core<StrategyExports>, dtype: DType, parts: readonly Part[], count: number): Sum {
  return core.scope(() => {
    const kind = partialKind(DTYPES[dtype].code);
    const terms: PartialTerm[] = [];
    let leaves = 0;
    const weightings: number[] = [];
    for (const part of parts) {
      if ('leaf' in part) {
        const { bytes, weighting } = part.leaf;
        const values = core.take(8 * (kind.terms * count + 4));
        core.exports.partialTerms(kind.dtype, put(core, bytes), count, values);
        for (let term = 0; term < kind.terms; term++) {
          terms.push({
            weight: weighting * kind.scale,
            leaves: term === 0 ? 1 : 0,
            values: values + 8 * count * term,
            block: 0,
            isSum: false,
          });
        }
        leaves++;
        weightings.push(weighting);
        continue;
      }
      const { sum, sign } = part;
      const block = sum.block.byteLength === 0 ? 0 : put(core, sum.block);
      if (block > 0) {
        assert.is(core.exports.checkResidues(block, sum.block.byteLength, count, sum.leaves), -1);
      }
      const values = put(core, sum.sums);
      terms.push({ weight: sign, leaves: sign * sum.leaves, values, block, isSum: true });
      leaves += sign * sum.leaves;
      if (sign > 0) weightings.push(...sum.weightings);
      else for (const w of sum.weightings) weightings.splice(weightings.indexOf(w), 1);
    }
    const room = takePartialRoom(core, terms.length);
    const spread = parts.every((part) => 'leaf' in part) ? exactSpread(kind, weightings) : 0;
    const bytes = foldPartial(core, room, kind, terms, count, spread, leaves, false);
    if (typeof bytes !== 'number') throw new Error(`${dtype}: ${bytes.code} at ${bytes.index}`);
    return {
      sums: core.bytes(room.sums, 8 * count).slice(),
      block: core.bytes(room.block, bytes).slice(),
      leaves,
      weightings,
    };
  });
}

function finish(core: Core<StrategyExports>, dtype: DType, sum: Sum, count: number): Uint8Array {
  return core.scope(() => {
    const kind = partialKind(DTYPES[dtype].code);
    const total = prepareTotal(core, totalOf(sum.weightings));
    const block = sum.block.byteLength === 0 ? 0 : put(core, sum.block);
    const size = count * itemSize(dtype);
    const out = core.take(size + 16);
    const refusal = finishPartial(core, total, kind, put(core, sum.sums), block, count, out, false);
    if (refusal !== undefined) throw new Error(`${dtype}: ${refusal.code} at ${refusal.index}`);
    return core.bytes(out, size).slice();
  });
}

function flatMean(
  core: Core<StrategyExports>,
  dtype: DType,
  leaves: readonly Leaf[],
  count: number,
): Uint8Array {
  return core.scope(() => {
    const plan = planMean(
      core,
      leaves.map(({ weighting }) => weighting),
    );
    const table = core.take(4 * leaves.length);
    for (const [j, { bytes }] of leaves.entries()) {
      core.view(table + 4 * j, 4).setUint32(0, put(core, bytes), true);
    }
    const out = core.take(count * itemSize(dtype) + 16);
    assert.ok(meanInto(core, plan, DTYPES[dtype].code, table, count, out, false));
    return core.bytes(out, count * itemSize(dtype)).slice();
  });
}

/** A random tree over leaves. */
function tree(
  core: Core<StrategyExports>,
  random: Random,
  dtype: DType,
  leaves: readonly Leaf[],
  count: number,
): Sum {
  if (leaves.length <= 2 || random.uniform() < 0.2) {
    return fold(
      core,
      dtype,
      leaves.map((leaf) => ({ leaf })),
      count,
    );
  }
  const cut = random.integer(1, leaves.length - 1);
  const low = leaves.slice(0, cut);
  const rest = leaves.slice(cut);
  const right: Part[] =
    random.uniform() < 0.3
      ? rest.map((leaf) => ({ leaf })) // a plain update beside a partial sum
      : [{ sum: tree(core, random, dtype, rest, count), sign: 1 }];
  return fold(core, dtype, [{ sum: tree(core, random, dtype, low, count), sign: 1 }, ...right], count);
}

const FLOATS: readonly DType[] = ['float16', 'bfloat16', 'float32', 'float64'];
const ALL: readonly DType[] = [
  ...FLOATS,
  'bool',
  'int8',
  'uint8',
  'int16',
  'uint16',
  'int32',
  'uint32',
  'int64',
  'uint64',
];

const EXPONENT: Partial<Record<DType, readonly [bits: number, fraction: number]>> = {
  float16: [5, 10],
  bfloat16: [8, 7],
  float32: [8, 23],
  float64: [11, 52],
};

type Sample = 'near' | 'wide' | 'any' | 'zeros' | 'few' | 'cancelling' | 'spread';
const SAMPLES: readonly Sample[] = ['near', 'wide', 'any', 'zeros', 'few', 'cancelling', 'spread'];

/** The bits of one finite element. */
function element(random: Random, dtype: DType, sample: Sample, i: number, j: number): bigint {
  const float = EXPONENT[dtype];
  const size = 8 * itemSize(dtype);
  const any = (BigInt(random.bits()) << 32n) | BigInt(random.bits());
  if (float === undefined) {
    if (dtype === 'bool') return any & 1n;
    const width = sample === 'any' || sample === 'wide' ? size : Math.min(size, 6);
    const value = any & ((1n << BigInt(width)) - 1n);
    return sample === 'zeros' ? value & 1n : value;
  }
  const [exponentBits, fractionBits] = float;
  const bias = 2 ** (exponentBits - 1) - 1;
  const sign = any & 1n;
  let fraction = (any >> 1n) & ((1n << BigInt(fractionBits)) - 1n);
  let exponent = bias - random.integer(0, 3);
  if (sample === 'spread') exponent = bias - random.integer(0, Math.min(bias, 30)); // beside certificate A
  if (sample === 'wide') exponent = random.integer(0, 2 * bias);
  if (sample === 'any') exponent = random.integer(0, Math.min(3, bias)) + random.pick([0, 2 * bias - 3]);
  if (sample === 'zeros' && random.uniform() < 0.8) [exponent, fraction] = [0, 0n];
  if (sample === 'few') fraction = (fraction >> BigInt(fractionBits - 2)) << BigInt(fractionBits - 2);
  if (sample === 'cancelling') {
    // Pairs of leaves with the same magnitude and other signs, but for a rest far below.
    exponent = j % 3 === 2 ? random.integer(0, 2) : bias + (i % 3);
    if (j % 3 !== 2) fraction = BigInt(i) & ((1n << BigInt(fractionBits)) - 1n);
    const negative = j % 3 === 1 ? 1n : 0n;
    return (((negative << BigInt(exponentBits)) | BigInt(exponent)) << BigInt(fractionBits)) | fraction;
  }
  return (((sign << BigInt(exponentBits)) | BigInt(exponent)) << BigInt(fractionBits)) | fraction;
}

function leafOf(
  random: Random,
  dtype: DType,
  sample: Sample,
  count: number,
  j: number,
  weighting: number,
): Leaf {
  const size = itemSize(dtype);
  const bytes = new Uint8Array(count * size);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < count; i++) {
    let bits = element(random, dtype, sample, i, j);
    for (let b = 0; b < size; b++, bits >>= 8n) view.setUint8(i * size + b, Number(bits & 255n));
  }
  return { bytes, weighting };
}

const WEIGHTINGS: Readonly<Record<string, (random: Random) => number>> = {
  ones: () => 1,
  samples: (random) => random.integer(1, 5000),
  fractional: (random) => random.uniform() + 0.01,
  'from 2^-64 to 2^49': (random) => (1 + random.uniform()) * 2 ** random.integer(-64, 48),
};

const test = suite('partial');
const ARENA = partialArenaBytes(64) + (8 << 20);

for (const [name, weigh] of Object.entries(WEIGHTINGS)) {
  test(`${name}: a random tree gives the flat mean and one set of bytes, and gives leaves back`, async () => {
    const random = new Random(seed);
    const core = await openStrategies(ARENA);
    for (let round = 0; round < 3 * LONG; round++) {
      for (const dtype of ALL) {
        for (const sample of SAMPLES) {
          const k = random.integer(1, 9);
          const count = random.pick([1, 3, 4, 67, 200]);
          const leaves = Array.from({ length: k }, (_, j) =>
            leafOf(random, dtype, sample, count, j, weigh(random)),
          );
          const what = `${dtype}, ${sample}, ${k} leaves`;
          const flat = fold(
            core,
            dtype,
            leaves.map((leaf) => ({ leaf })),
            count,
          );
          const merged = tree(core, random, dtype, random.shuffle(leaves), count);
          sameBytes(merged.sums, flat.sums, `${what}: sums`);
          sameBytes(merged.block, flat.block, `${what}: residues`);
          sameBytes(
            finish(core, dtype, merged, count),
            flatMean(core, dtype, leaves, count),
            `${what}: mean`,
          );
          const cut = random.integer(1, k);
          if (cut === k) continue;
          const out = tree(core, random, dtype, leaves.slice(cut), count);
          const left = fold(
            core,
            dtype,
            [
              { sum: merged, sign: 1 },
              { sum: out, sign: -1 },
            ],
            count,
          );
          const without = fold(
            core,
            dtype,
            leaves.slice(0, cut).map((leaf) => ({ leaf })),
            count,
          );
          sameBytes(left.sums, without.sums, `${what}: sums without ${k - cut}`);
          sameBytes(left.block, without.block, `${what}: residues without ${k - cut}`);
        }
      }
    }
    core.close();
  });
}

/** S of the parts of a sum, times 2^2000. */
function exactly(parts: readonly number[]): bigint {
  return parts.reduce((sum, x) => {
    const { significand, exponent } = takeApart(x);
    return sum + (significand << BigInt(exponent + 2000));
  }, 0n);
}

test('a sum is the exact rational, in parts that are each the nearest number of what is left', async () => {
  const random = new Random(seed);
  const core = await openStrategies(ARENA);
  for (let round = 0; round < 100 * LONG; round++) {
    const count = 8;
    const k = random.integer(1, 6);
    const weightings = Array.from({ length: k }, () => random.pick(Object.values(WEIGHTINGS))(random));
    const leaves = weightings.map((weighting, j) =>
      leafOf(random, 'float32', random.pick(SAMPLES), count, j, weighting),
    );
    const sum = fold(
      core,
      'float32',
      leaves.map((leaf) => ({ leaf })),
      count,
    );
    const first = new Float64Array(sum.sums.buffer);
    const parts = Array.from(first, (x) => [x]);
    if (sum.block.byteLength > 0) {
      const view = new DataView(sum.block.buffer);
      const t = view.getUint32(0, true);
      const array = view.getUint32(4, true) === 1 ? 8 * count : 0;
      for (let i = 0; i < array / 8; i++) parts[i]!.push(view.getFloat64(8 + 8 * i, true));
      for (let j = 0; j < t; j++) {
        const place = view.getUint16(8 + array + 8 * t + 2 * j, true);
        if ((place & 3) === 0) parts[place >> 2]!.push(view.getFloat64(8 + array + 8 * j, true));
      }
    }
    for (let i = 0; i < count; i++) {
      let expected = 0n;
      for (const { bytes, weighting } of leaves) {
        const x = takeApart(new Float32Array(bytes.buffer)[i]!);
        const w = takeApart(weighting);
        expected += (x.significand * w.significand) << BigInt(x.exponent + w.exponent + 2000);
      }
      assert.is(exactly(parts[i]!), expected, `element ${i} of round ${round}`);
      for (const [j, part] of parts[i]!.entries()) {
        const left = exactly(parts[i]!.slice(j));
        assert.is(part, left === 0n ? 0 : roundRational(left, 1n, -2000, FORMATS.float64));
      }
    }
  }
  core.close();
});

test('means beside half-way points, which the quotient in binary64 takes for these, are rounded by the exact sum', async () => {
  const random = new Random(seed);
  const core = await openStrategies(ARENA);
  const none = new Uint8Array(0);
  for (let round = 0; round < 20 * LONG; round++) {
    const count = random.pick([1, 3, 4, 67]);
    const total = 2 ** 30 + 1 + 2 * random.integer(0, 2 ** 29); // odd: too many bits for certificate A
    const lower = Array.from({ length: count }, () => random.integer(2 ** 23, 2 ** 24 - 1));
    // The nearest number of the half-way point times the total, which is a little more than that or less.
    const sums = Float64Array.from(lower, (m) => (m + 0.5) * total);
    const expected = Float32Array.from(lower, (m, i) => {
      const over = 2n * BigInt(sums[i]!) - BigInt(2 * m + 1) * BigInt(total);
      return over > 0n || (over === 0n && m % 2 === 1) ? m + 1 : m;
    });
    const bytes = new Uint8Array(sums.buffer);
    const sum = { sums: bytes, block: none, leaves: 1, weightings: [total] };
    sameBytes(finish(core, 'float32', sum, count), expected, `${count} numbers, total ${total}`);
  }
  core.close();
});

/** One float64 number of sums for direct calls: the status is answered by name. */
function foldSums(
  core: Core<StrategyExports>,
  sums: readonly (readonly [hi: number, sign: number])[],
  propagate = false,
) {
  return core.scope(() => {
    const terms = sums.map(([hi, sign]) => {
      const values = core.take(8);
      core.view(values, 8).setFloat64(0, hi, true);
      return { weight: sign, leaves: sign, values, block: 0, isSum: true };
    });
    const room = takePartialRoom(core, terms.length);
    const leaves = sums.reduce((sum, [, sign]) => sum + sign, 0);
    const answer = foldPartial(core, room, partialKind(DTYPES.float64.code), terms, 1, 0, leaves, propagate);
    return typeof answer === 'number' ? core.view(room.sums, 8).getFloat64(0, true) : answer.code;
  });
}

for (const [name, sums, propagate, expected] of [
  ['NaN', [[Number.NaN, 1]], false, 'non-finite'],
  [
    'infinity that may go on',
    [
      [Infinity, 1],
      [1, 1],
    ],
    true,
    Infinity,
  ],
  [
    'infinities of both signs',
    [
      [Infinity, 1],
      [-Infinity, 1],
    ],
    true,
    Number.NaN,
  ],
  [
    'infinity taken out',
    [
      [1, 1],
      [1, 1],
      [Infinity, -1],
    ],
    true,
    'non-finite',
  ],
  [
    'a sum beyond binary64',
    [
      [Number.MAX_VALUE, 1],
      [Number.MAX_VALUE, 1],
    ],
    false,
    'partial-range',
  ],
  [
    'beyond it on the way only',
    [
      [Number.MAX_VALUE, 1],
      [Number.MAX_VALUE, 1],
      [-Number.MAX_VALUE, 1],
    ],
    false,
    Number.MAX_VALUE,
  ],
  [
    'a -0 taken out that was not in',
    [
      [0, 1],
      [0, 1],
      [-0, -1],
    ],
    false,
    'partial-mismatch',
  ],
  [
    '-0 alone',
    [
      [-0, 1],
      [-0, 1],
    ],
    false,
    -0,
  ],
  [
    '-0 beside 0',
    [
      [-0, 1],
      [0, 1],
    ],
    false,
    0,
  ],
] as const) {
  test(`sums: ${name}`, async () => {
    const core = await openStrategies(ARENA);
    assert.ok(Object.is(foldSums(core, sums, propagate), expected));
    core.close();
  });
}

test('residues of a hostile file are refused at the byte that is wrong', async () => {
  const core = await openStrategies(ARENA);
  const block = (
    t: number,
    dense: number,
    values: readonly number[],
    places: readonly number[],
    rest = 0,
  ) => {
    const length = 8 + 8 * values.length + Math.ceil(places.length / 4) * 8;
    const view = new DataView(new ArrayBuffer(length));
    view.setUint32(0, t, true);
    view.setUint32(4, dense, true);
    for (const [i, value] of values.entries()) view.setFloat64(8 + 8 * i, value, true);
    for (const [i, place] of places.entries()) view.setUint16(8 + 8 * values.length + 2 * i, place, true);
    if (rest > 0) view.setUint8(length - 1, rest);
    return new Uint8Array(view.buffer);
  };
  const at = (bytes: Uint8Array, n = 3, leaves = 4) =>
    core.scope(() => core.exports.checkResidues(put(core, bytes), bytes.byteLength, n, leaves));
  for (const [name, bytes, expected] of [
    ['good', block(2, 0, [1, 2], [0, 8]), -1],
    ['good, with an array', block(1, 1, [1, 0, 3, 2], [4]), -1],
    ['good, several parts of one element', block(3, 0, [1, 0.5, 2], [4, 4, 6]), -1],
    ['too short', new Uint8Array(8), 0],
    ['a count that does not match', block(3, 0, [1, 2], [0, 8]), 0],
    ['a count beyond all bounds', block(0xffffffff, 0, [1, 2], [0, 8]), 0],
    ['an unknown flag', block(2, 2, [1, 2], [0, 8]), 4],
    ['an index out of range', block(2, 0, [1, 2], [0, 12]), 26],
    ['indices that fall', block(2, 0, [1, 2], [8, 4]), 26],
    ['an unknown kind', block(2, 0, [1, 2], [0, 11]), 26],
    ['zero', block(2, 0, [1, 0], [0, 8]), 16],
    ['NaN', block(2, 0, [Number.NaN, 1], [0, 8]), 8],
    ['infinity in the array', block(1, 1, [1, Infinity, 3, 2], [4]), 16],
    ['more zeros than leaves', block(1, 0, [4], [2]), 8],
    ['a count of zeros that is not whole', block(1, 0, [1.5], [2]), 8],
    ['bytes behind the end', block(2, 0, [1, 2], [0, 8], 7), 31],
  ] as const) {
    assert.is(at(bytes), expected, name);
  }
  core.close();
});

interface FedavgSet {
  readonly set: string;
  readonly inputs: readonly { readonly leaf: string; readonly file: string }[];
  readonly outcome: 'ok' | 'error';
  readonly expected: readonly {
    readonly correctly_rounded: string;
    readonly same_dtype_half_even?: string;
  }[];
  readonly non_finite?: readonly unknown[];
}

const fixture = (name: string) =>
  readFileSync(fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url)));

test('every averaging case of fedavg.json through random trees', async () => {
  const random = new Random(seed);
  const core = await openStrategies(ARENA);
  const { sets } = JSON.parse(fixture('fedavg.json').toString()) as { sets: FedavgSet[] };
  let elements = 0;
  for (const { set, inputs, expected } of sets.filter((one) => one.outcome === 'ok' && !one.non_finite)) {
    const updates = await Promise.all(
      inputs.map(async ({ file }) => readTensors(memorySource(fixture(file), file))),
    );
    const counting = updates.filter(({ weighting }) => weighting !== 0);
    for (const [t, { correctly_rounded, same_dtype_half_even }] of expected.entries()) {
      const { dtype, data } = counting[0]!.tensors[t]!;
      const size = itemSize(dtype);
      const mean = Buffer.from(same_dtype_half_even ?? correctly_rounded, 'base64');
      for (let at = 0; at < data.byteLength; at += 4096 * size) {
        const end = Math.min(data.byteLength, at + 4096 * size);
        const leaves = counting.map(({ weighting, tensors }) => ({
          bytes: tensors[t]!.data.subarray(at, end),
          weighting: weighting ?? 1,
        }));
        const count = (end - at) / size;
        const sum = tree(core, random, dtype, random.shuffle(leaves), count);
        sameBytes(finish(core, dtype, sum, count), mean.subarray(at, end), `${set}, tensor ${t}`);
        elements += count;
      }
    }
  }
  assert.ok(elements > 300, `${elements} elements`);
  core.close();
});

test.run();
