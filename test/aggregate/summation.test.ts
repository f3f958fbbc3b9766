// Partial sums as files: random trees of updates and sums, merged, mixed and taken apart, against the flat aggregation.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Aggregation, type AggregationInput } from '../../src/aggregate/aggregation.ts';
import { inputOf } from '../../src/aggregate/average.ts';
import { openPartialSum, type PartialSum, verifyPartialSum } from '../../src/aggregate/partial-reader.ts';
import { encodeResult } from '../../src/aggregate/result.ts';
import { Summation, type SummationInputs } from '../../src/aggregate/summation.ts';
import { isCambiumError } from '../../src/errors.ts';
import { crc32 } from '../../src/formats/crc32.ts';
import { encodeWeights } from '../../src/formats/encode.ts';
import type { TensorSpec } from '../../src/formats/encoding.ts';
import { openWeights } from '../../src/formats/open.ts';
import { unpackWeights } from '../../src/formats/weights.ts';
import { writeWeights } from '../../src/formats/write.ts';
import { type ByteSink, memoryScratch, memorySink, memorySource } from '../../src/tensor/bytes.ts';
import { DTYPES, type DType, itemSize } from '../../src/tensor/dtypes.ts';
import { elementCount } from '../../src/tensor/layout.ts';
import { tensorOf } from '../../src/tensor/tensor.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { distantLanes } from '../helpers/lanes.ts';
import { Random, testSeed } from '../helpers/random.ts';

const seed = testSeed();
const LONG = process.env.CAMBIUM_LONG ? 10 : 1;
const test = suite('summation');

/** A sink that grows. */
function growingSink(): ByteSink & { bytes: Uint8Array } {
  return {
    bytes: new Uint8Array(0),
    write(offset, part) {
      if (offset + part.byteLength > this.bytes.byteLength) {
        const longer = new Uint8Array(offset + part.byteLength);
        longer.set(this.bytes);
        this.bytes = longer;
      }
      this.bytes.set(part, offset);
    },
    commit() {},
    discard() {},
  };
}

interface Options {
  readonly blockBytes?: number | undefined;
  readonly nonFinite?: 'reject' | 'propagate';
}

async function openSummation(
  inputs: Partial<SummationInputs>,
  { blockBytes, nonFinite = 'reject' }: Options,
) {
  const all = { updates: [], sums: [], without: [], ...inputs };
  return Summation.open(all, { nonFinite, scratch: memoryScratch, blockBytes });
}

async function sumOf(
  inputs: Partial<SummationInputs>,
  options: Options = {},
): Promise<PartialSum & { bytes: Uint8Array }> {
  const summation = await openSummation(inputs, options);
  const sink = growingSink();
  const { byteLength } = await summation.write(sink, {});
  await summation.close();
  assert.is(sink.bytes.byteLength, byteLength);
  return { ...(await openVerified(sink.bytes)), bytes: sink.bytes };
}

async function openVerified(bytes: Uint8Array): Promise<PartialSum> {
  const sum = await openPartialSum(memorySource(bytes, 'sum'));
  await verifyPartialSum(sum);
  return sum;
}

async function meanOf(inputs: Partial<SummationInputs>, options: Options = {}): Promise<Uint8Array> {
  const summation = await openSummation(inputs, options);
  const bytes = await runInto(summation);
  await summation.close();
  return bytes;
}

async function flatMean(updates: readonly AggregationInput[], { nonFinite = 'reject' }: Options = {}) {
  const aggregation = await Aggregation.open(updates, { nonFinite });
  const bytes = await runInto(aggregation);
  await aggregation.close();
  return bytes;
}

async function runInto(work: Pick<Aggregation, 'run' | 'tensors' | 'totalWeighting'>): Promise<Uint8Array> {
  const { tensors, totalWeighting: weighting } = work;
  const encoding = await encodeWeights({ format: 'npz', weighting, tensors });
  const sink = memorySink(encoding.byteLength);
  await work.run(sink, encoding);
  return sink.bytes;
}

/** A random tree of at most `depth` levels, some of whose branches are plain updates beside sums. */
async function tree(
  random: Random,
  updates: readonly AggregationInput[],
  depth: number,
): Promise<PartialSum & { bytes: Uint8Array }> {
  const blockBytes = random.pick([undefined, 1, 100_000]);
  if (depth === 1 || updates.length < 2) return sumOf({ updates }, { blockBytes });
  const branches: AggregationInput[][] = Array.from({ length: random.integer(1, 3) }, () => []);
  const plain: AggregationInput[] = [];
  for (const update of updates) random.pick([...branches, plain]).push(update);
  const sums = [];
  for (const branch of branches) if (branch.length > 0) sums.push(await tree(random, branch, depth - 1));
  return sumOf({ updates: random.shuffle(plain), sums: random.shuffle(sums) }, { blockBytes });
}

type Sample = 'near' | 'bits' | 'zeros';

function elements(random: Random, { dtype, shape }: TensorSpec, sample: Sample): Uint8Array {
  const data = new Uint8Array(elementCount(shape) * itemSize(dtype));
  const part = dtype.startsWith('complex') ? itemSize(dtype) / 2 : itemSize(dtype);
  const mantissa = { float16: 10, bfloat16: 7 }[dtype as string] ?? (part === 4 ? 23 : 52);
  const isFloat = /float|complex/.test(dtype);
  for (let at = 0; at < data.byteLength; at += part) {
    for (let b = 0; b < part; b++) data[at + b] = random.bits();
    const view = new DataView(data.buffer, at, part);
    if (!isFloat) {
      if (dtype === 'bool') data[at]! &= 1;
      continue;
    }
    const top = 8 * part - 1 - mantissa; // bits of the exponent
    const pattern =
      part === 8
        ? view.getBigUint64(0, true)
        : BigInt(part === 4 ? view.getUint32(0, true) : view.getUint16(0, true));
    let exponent = (pattern >> BigInt(mantissa)) & ((1n << BigInt(top)) - 1n);
    const most = (1n << BigInt(top)) - 1n;
    if (exponent === most) exponent--;
    if (sample === 'near') exponent = most / 2n - (exponent & 3n);
    const fraction = pattern & ((1n << BigInt(mantissa)) - 1n);
    const sign = pattern >> BigInt(8 * part - 1);
    const isZero = sample === 'zeros' && random.uniform() < 0.7;
    const bits = (sign << BigInt(8 * part - 1)) | (isZero ? 0n : (exponent << BigInt(mantissa)) | fraction);
    if (part === 8) view.setBigUint64(0, bits, true);
    else if (part === 4) view.setUint32(0, Number(bits), true);
    else view.setUint16(0, Number(bits), true);
  }
  return data;
}

async function updateOf(
  random: Random,
  tensors: readonly TensorSpec[],
  leaf: string,
  weighting: number | null,
  sample: Sample,
): Promise<AggregationInput> {
  const sink = growingSink();
  const format = weighting === null ? 'npz' : random.pick(['npz', 'npy-object'] as const);
  await writeWeights(
    sink,
    { weighting, tensors: tensors.map((tensor) => ({ ...tensor, data: elements(random, tensor, sample) })) },
    { format },
  );
  const { source, layout } = await openWeights(memorySource(sink.bytes, leaf), { void16: 'bfloat16' });
  return { leaf, source, layout, weighting };
}

const DTYPE_NAMES = Object.keys(DTYPES).filter((dtype) => dtype !== 'void16') as DType[];
const MODEL: readonly TensorSpec[] = [
  ...DTYPE_NAMES.map((dtype, i): TensorSpec => ({ name: `t${i}.${dtype}`, dtype, shape: [3, i] })),
  { name: 'long', dtype: 'float32', shape: [9000] },
  { name: 'long.complex', dtype: 'complex64', shape: [2, 2100] },
  { name: 'one', dtype: 'float64', shape: [] },
];

for (const [name, weigh] of Object.entries({
  'one each': () => null,
  samples: (random: Random) => random.integer(1, 5000),
  fractional: (random: Random) => random.uniform() + 0.01,
  'far apart': (random: Random) => (1 + random.uniform()) * 2 ** random.integer(-64, 48),
})) {
  test(`${name}: trees give the flat mean and one file, whatever the order and the blocks`, async () => {
    const random = new Random(seed);
    for (let round = 0; round < 5 * LONG; round++) {
      const updates = [];
      for (let j = random.integer(2, 9); j > 0; j--) {
        const sample = random.pick(['near', 'bits', 'zeros'] as const);
        updates.push(await updateOf(random, MODEL, `leaf ${j}`, weigh(random), sample));
      }
      const flat = await sumOf({ updates });
      const mean = await flatMean(updates);
      sameBytes(await meanOf({ updates }), mean, `round ${round}: mean of updates`);
      for (let shape = 0; shape < 5; shape++) {
        const merged = await tree(random, random.shuffle(updates), 4);
        sameBytes(merged.bytes, flat.bytes, `round ${round}: sum`);
        const blockBytes = random.pick([undefined, 1, 70_000]);
        sameBytes(await meanOf({ sums: [merged] }, { blockBytes }), mean, `round ${round}: mean`);
      }
      const cut = random.integer(1, updates.length - 1);
      const left = updates.slice(cut);
      const out = await tree(random, updates.slice(0, cut), 2);
      const without = await sumOf({ sums: [flat], without: [out] });
      sameBytes(without.bytes, (await sumOf({ updates: left })).bytes, `round ${round}: taken out`);
      sameBytes(await meanOf({ sums: [flat], without: [out] }), await flatMean(left), `round ${round}: mean`);
    }
  });
}

test('more inputs than go into one group', async () => {
  const random = new Random(seed);
  const tensors = MODEL.filter(({ dtype }) => /int64|float32|complex128/.test(dtype));
  const updates = [];
  for (let j = 0; j < 100; j++) {
    updates.push(await updateOf(random, tensors, `leaf ${j}`, random.integer(1, 9), 'bits'));
  }
  const sums = [];
  for (let j = 0; j < 66; j++) sums.push(await sumOf({ updates: updates.slice(j, j + 1) }));
  const merged = await sumOf({ sums, updates: updates.slice(66) });
  sameBytes(merged.bytes, (await sumOf({ updates })).bytes);
  sameBytes(await meanOf({ sums: [merged] }), await flatMean(updates));
});

const fixture = (name: string) =>
  readFileSync(fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url)));

test('every averaging case of fedavg.json', async () => {
  const random = new Random(seed);
  const { sets } = JSON.parse(fixture('fedavg.json').toString()) as {
    sets: { set: string; outcome: string; non_finite?: unknown; inputs: { leaf: string; file: string }[] }[];
  };
  let count = 0;
  for (const { set, inputs, non_finite } of sets.filter(({ outcome }) => outcome === 'ok')) {
    const updates: AggregationInput[] = [];
    for (const { leaf, file } of inputs) {
      const weights = await openWeights(memorySource(fixture(file), leaf));
      const { source, layout } = await unpackWeights(weights, { scratch: memoryScratch });
      updates.push({ leaf, source, layout, weighting: layout.weighting });
    }
    if (non_finite !== undefined) {
      await failsWith('non-finite', () => sumOf({ updates }));
      const options = { nonFinite: 'propagate' } as const;
      const sum = await sumOf({ updates }, options);
      sameBytes(await meanOf({ sums: [sum] }, options), await flatMean(updates, options), set);
      await failsWith('non-finite', () => meanOf({ sums: [sum] }));
      continue;
    }
    const counting = updates.filter(({ weighting }) => weighting !== 0);
    const merged = await tree(random, random.shuffle(counting), 4);
    sameBytes(merged.bytes, (await sumOf({ updates })).bytes, set);
    sameBytes(await meanOf({ sums: [merged] }), await flatMean(updates), set);
    count++;
  }
  assert.ok(count > 10, `${count} sets`);
});

const SMALL: readonly TensorSpec[] = [
  { name: 'w', dtype: 'float32', shape: [5] },
  { name: null, dtype: 'complex64', shape: [2] },
];

async function smallUpdates(weightings: readonly (number | null)[] = [0.3, 7, 1]) {
  const random = new Random(seed);
  const updates = [];
  for (const [j, weighting] of weightings.entries()) {
    updates.push(await updateOf(random, SMALL, `leaf ${j}`, weighting, 'bits'));
  }
  return updates;
}

test('what does not fit together is refused', async () => {
  const updates = await smallUpdates();
  const [a, b, c] = await Promise.all(updates.map((update) => sumOf({ updates: [update] })));
  const all = await sumOf({ updates });
  const other = [{ ...updates[1]!, weighting: 8 }];
  await failsWith('average-no-input', () => sumOf({}));
  await failsWith('partial-leaf-duplicate', () => sumOf({ sums: [all, a!] }));
  await failsWith('partial-leaf-duplicate', () => sumOf({ sums: [all], updates: updates.slice(2) }));
  await failsWith('partial-leaf-unknown', () => sumOf({ sums: [a!, b!], without: [c!] }));
  await failsWith('partial-leaf-unknown', () => sumOf({ sums: [a!, b!], without: [a!, a!] }));
  await failsWith('partial-empty', () => sumOf({ sums: [all], without: [all] }));
  const otherSum = await sumOf({ updates: other });
  await failsWith('partial-leaf-unknown', () => sumOf({ sums: [all], without: [otherSum] }));
  const [plain] = await smallUpdates([null]);
  await failsWith('weighting-missing', () => sumOf({ sums: [b!], updates: [plain!] }));
  const huge = await smallUpdates([2 ** 53 - 1, 1]);
  await failsWith('average-sum-overflow', () => sumOf({ updates: huge }));
  const random = new Random(seed);
  for (const [code, tensors] of [
    ['average-count', SMALL.slice(1)],
    ['average-dtype', [{ ...SMALL[0]!, dtype: 'float64' }, SMALL[1]!]],
    ['average-shape', [{ ...SMALL[0]!, shape: [6] }, SMALL[1]!]],
  ] as const) {
    const update = await updateOf(random, tensors, 'other', 1, 'near');
    const error = await failsWith(code, () => sumOf({ sums: [all], updates: [update] }));
    assert.match(error.message, /other/);
  }
  await failsWith('weights-partial-sum', () => openWeights(memorySource(all.bytes)));
});

test('what is taken out and was not in is noticed where zeros tell', async () => {
  const zeros = async (leaf: string, byte: number) => {
    const sink = growingSink();
    const data = new Uint8Array(8);
    data[7] = byte;
    const tensors = [{ name: 'x', dtype: 'float64' as const, shape: [1], data }];
    await writeWeights(sink, { weighting: 1, tensors }, { format: 'npz' });
    const { source, layout } = await openWeights(memorySource(sink.bytes, leaf));
    return { leaf, source, layout, weighting: 1 };
  };
  const sum = await sumOf({ updates: [await zeros('a', 0), await zeros('b', 0)] });
  const wrong = await sumOf({ updates: [await zeros('a', 0x80)] });
  await failsWith('partial-mismatch', () => sumOf({ sums: [sum], without: [wrong] }));
});

/** Puts another text into the header, of the same length or padded. */
function edit(bytes: Uint8Array, from: string, to: string): Uint8Array {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = Buffer.from(bytes.subarray(8, 8 + length))
    .toString()
    .trimEnd();
  assert.ok(header.includes(from), `${from} is in ${header}`);
  const text = Buffer.from(header.replace(from, to));
  const padded = Buffer.alloc(Math.ceil(text.byteLength / 8) * 8, ' ');
  text.copy(padded);
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(padded.byteLength));
  return Buffer.concat([prefix, padded, bytes.subarray(8 + length)]);
}

test('a header that says what is not so is refused by name', async () => {
  const { bytes } = await sumOf({ updates: await smallUpdates() });
  for (const [code, from, to] of [
    ['partial-form', '"partial-sum"', '"optimiser-state"'],
    ['partial-version', '"version":"1"', '"version":"2"'],
    ['partial-form', '[[\\"w\\"', '{{\\"w\\"'],
    ['partial-form', '\\"float32\\",[5]', '\\"float32\\",[6]'],
    ['partial-form', '\\"complex64\\"', '\\"complex65\\"'],
    ['partial-form', '\\"complex64\\"', '\\"void16\\"'],
    ['partial-form', '\\"complex64\\"', '\\"float32\\"'],
    ['partial-form', '[[\\"w\\"', '[[\\"v\\"'],
    ['partial-form', 'leaf 0', 'leaf 9'],
    ['partial-leaf-duplicate', 'leaf 1', 'leaf 0'],
    ['partial-form', '0.3]', 'null]'],
    ['partial-form', '0.3]', '-1]'],
    ['partial-total', '0.3]', '0.25]'],
    ['partial-total', '"total":"', '"total":"1'],
    ['partial-crc', 'leaf 2', 'leaf 3'],
    ['partial-form', '__residues__', '__residuez__'],
  ] as const) {
    await failsWith(code, () => openVerified(edit(bytes, from, to)));
  }
  await openVerified(edit(bytes, '"version"', ' "version"')); // a blank says nothing
});

test('every truncation and every changed byte is an error, or changes nothing', async () => {
  const updates = await smallUpdates();
  const { bytes } = await sumOf({ updates });
  const mean = await flatMean(updates);
  const read = async (changed: Uint8Array, what: string) => {
    try {
      const sum = await openPartialSum(memorySource(changed, 'sum'));
      sameBytes(await meanOf({ sums: [sum] }), mean, what);
    } catch (error) {
      if (!isCambiumError(error)) throw error;
      assert.not.match(error.code, /^internal/);
    }
  };
  for (let length = 0; length < bytes.byteLength; length++) {
    await failsWith('st-header-size|st-json|st-offsets', () =>
      openPartialSum(memorySource(bytes.slice(0, length), 'sum')),
    );
  }
  const random = new Random(seed);
  for (let at = 0; at < bytes.byteLength; at++) {
    for (const flip of [1, 0x80, random.integer(1, 255)]) {
      const changed = bytes.slice();
      changed[at]! ^= flip;
      await read(changed, `byte ${at} ^ ${flip}`);
    }
  }
});

test('an object array, which shares tensors of one byte, is made of sums, and damage is noticed', async () => {
  const updates = [1, 2].map((i) => {
    const tensors = [
      tensorOf(Float32Array.of(i, 3)),
      tensorOf(Int8Array.of(2 * i), []),
      tensorOf(Int8Array.of(4), []),
    ];
    return { ...inputOf({ tensors }, `leaf ${i}`), weighting: i };
  });
  const flat = await Aggregation.open(updates);
  const expected = await encodeResult(flat, {}, { format: 'npy-object' });
  const [first, second] = await Promise.all(updates.map((update) => sumOf({ updates: [update] })));
  const encode = async (sum: PartialSum) => {
    const summation = await openSummation({ sums: [sum, second!] }, {});
    const encoding = await encodeResult(summation, {}, { format: 'npy-object' });
    await summation.run(memorySink(encoding.byteLength), encoding);
    return encoding;
  };
  assert.equal(await encode(first!), expected);
  const damaged = first!.bytes.slice();
  damaged[first!.byteOffsets[0]! + 4]! ^= 1;
  const sum = await openPartialSum(memorySource(damaged, 'sum'));
  await failsWith('partial-crc', () => encode(sum));
});

test('sums whose tensors stand in another order are read, and compared with their checksums', async () => {
  const random = new Random(seed);
  const specs: TensorSpec[] = [
    { name: 'a', dtype: 'float32', shape: [9000] },
    { name: 'b', dtype: 'complex64', shape: [3] },
    { name: 'empty', dtype: 'float32', shape: [0] },
    { name: 'c', dtype: 'float64', shape: [4097] },
  ];
  const one = await updateOf(random, specs, 'one', 0.3, 'bits');
  const two = await updateOf(random, [...specs].reverse(), 'two', 0.7, 'bits');
  const sums = [await sumOf({ updates: [one] }), await sumOf({ updates: [two] })];
  const expected = await flatMean([one, two]);
  for (const blockBytes of [undefined, 1, 70_000]) {
    sameBytes(await meanOf({ sums }, { blockBytes }), expected, `blocks of ${blockBytes}`);
  }
});

test('a damaged sum is refused as such, whatever it would have been refused for', async () => {
  const random = new Random(seed);
  const tensors: TensorSpec[] = [{ name: 'w', dtype: 'float32', shape: [5000] }];
  const updates = [];
  for (const leaf of ['a', 'b']) updates.push(await updateOf(random, tensors, leaf, 0.3, 'near'));
  const { bytes, ...sum } = await sumOf({ updates });
  for (const [place, at] of [
    ['ends', sum.endsOffset],
    ['sums', sum.byteOffsets[0]!],
    ['the sign of a sum', sum.byteOffsets[0]! + 7],
    ['the last sum', sum.byteOffsets[0]! + 8 * 4999],
    ['residues', sum.residuesOffset],
    ['the last residue', bytes.byteLength - 1],
  ] as const) {
    const damaged = bytes.slice();
    damaged[at]! ^= 0x80;
    const hostile = { ...sum, source: memorySource(damaged, 'sum') };
    const error = await failsWith('partial-crc', () => meanOf({ sums: [hostile] }));
    assert.match(error.message, /damaged/, place);
    await failsWith('partial-crc', () => sumOf({ sums: [hostile] }));
  }
});

test('residues that no sum has are refused also where the checksum is right', async () => {
  const sum = await sumOf({ updates: await smallUpdates() });
  assert.ok(sum.residueBytes > 0);
  const random = new Random(seed);
  for (let round = 0; round < 100 * LONG; round++) {
    const changed = sum.bytes.slice();
    for (let i = random.integer(1, 4); i > 0; i--) {
      const at = random.pick([sum.endsOffset, sum.residuesOffset]) + random.integer(0, 23);
      if (at < changed.byteLength) changed[at] = random.pick([0, 1, 0xff, random.bits()]);
    }
    const checksum = crc32(changed.subarray(sum.dataOffset), sum.seed).toString(16).padStart(8, '0');
    const hostile = { ...sum, source: memorySource(changed, 'sum'), checksum };
    try {
      await meanOf({ sums: [hostile] });
      await sumOf({ sums: [hostile] });
    } catch (error) {
      if (!isCambiumError(error)) throw error;
      assert.match(error.code, /^partial-(?!crc)|^non-finite/);
    }
  }
});

test('lanes write the same sum, residues and all, and the same mean', async () => {
  const random = new Random(seed + 77);
  const specs: TensorSpec[] = [
    { name: 'a', dtype: 'float32', shape: [20_001] },
    { name: 'b', dtype: 'complex64', shape: [5_000] },
    { name: 'c', dtype: 'int64', shape: [77] },
  ];
  const shared = (bytes: Uint8Array, name: string) => ({
    ...memorySource(bytes, name),
    // Never opened: the lanes of this test know the sources.
    handle: { kind: 'file' as const, name, byteLength: bytes.byteLength, descriptor: -1 },
  });
  const updates = await Promise.all(
    Array.from({ length: 4 }, async (_, i): Promise<AggregationInput> => {
      const sink = growingSink();
      const tensors = specs.map((spec) => ({ ...spec, data: elements(random, spec, 'near') }));
      await writeWeights(sink, { weighting: i + 0.3, tensors }, { format: 'safetensors' });
      const source = shared(sink.bytes, `leaf-${i}`);
      return { leaf: source.name, source, layout: (await openWeights(source)).layout, weighting: i + 0.3 };
    }),
  );
  const half = await sumOf({ updates: updates.slice(0, 2) });
  const sum = await openPartialSum(shared(half.bytes, 'half'));
  const inputs = { updates: updates.slice(2), sums: [sum] };
  const expected = await sumOf(inputs);
  const mean = await meanOf(inputs);
  sameBytes(mean, await flatMean(updates));
  assert.ok(expected.residueBytes > 0, 'residues are among them');
  const sources = [sum.source, ...updates.slice(2).map(({ source }) => source)]; // by their first leaves
  for (let round = 0; round < 6; round++) {
    const summation = await openSummation(inputs, { blockBytes: random.pick([undefined, 1, 100_000]) });
    const openLanes = distantLanes(random.integer(1, 3), sources, random);
    const sink = growingSink();
    await summation.write(sink, { openLanes });
    sameBytes(sink.bytes, expected.bytes);
    const { tensors, totalWeighting: weighting } = summation;
    const encoding = await encodeWeights({ format: 'npz', weighting, tensors });
    const out = memorySink(encoding.byteLength);
    await summation.run(out, encoding, { openLanes });
    sameBytes(out.bytes, mean);
    await summation.close();
  }
});

test.run();
