// The build without SIMD: the same bits from the same sources, export by export, and whole suites on a host without SIMD.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CHUNK, MEAN_OK } from '../../assembly/abi.ts';
import type { StrategyExports } from '../../src/core/exports.ts';
import { DTYPES, type DType, itemSize } from '../../src/tensor/dtypes.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { Random, testSeed } from '../helpers/random.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const seed = testSeed();

/** Raw exports of one build, and as much of an allocator as a case needs. */
class Build {
  readonly exports: StrategyExports;
  #top: number;

  constructor(file: string) {
    const module = new WebAssembly.Module(readFileSync(`${root}dist/${file}`));
    this.exports = new WebAssembly.Instance(module).exports as unknown as StrategyExports; // typed by hand
    this.exports.memory.grow(64);
    this.#top = this.exports.arenaBase();
    this.reset();
  }

  reset(): void {
    this.#top = Math.ceil(this.exports.arenaBase() / 16) * 16;
  }

  /** An address with the alignment that is asked for: `skew` bytes behind a multiple of 16. */
  take(byteLength: number, skew = 0): number {
    const address = this.#top + skew;
    this.#top = Math.ceil((address + byteLength) / 16) * 16;
    return address;
  }

  put(bytes: Uint8Array, skew = 0): number {
    const address = this.take(bytes.byteLength, skew);
    this.bytes(address, bytes.byteLength).set(bytes);
    return address;
  }

  bytes(address: number, byteLength: number): Uint8Array {
    return new Uint8Array(this.exports.memory.buffer, address, byteLength);
  }
}

const builds = ['strategies.wasm', 'strategies.scalar.wasm'].map((file) => new Build(file));

/** Runs a case on both builds, which must answer the same. */
function same(what: string, run: (build: Build) => Uint8Array): void {
  const [vectors, scalars] = builds.map((build) => {
    build.reset();
    return run(build).slice();
  });
  sameBytes(scalars!, vectors!, what);
}

const bytesOf = (values: readonly number[]) => new Uint8Array(Float64Array.from(values).buffer);

const FLOATS: Partial<Record<DType, (values: readonly number[]) => ArrayBufferView>> = {
  float32: (values) => Float32Array.from(values),
  float64: (values) => Float64Array.from(values),
  complex64: (values) => Float32Array.from(values),
  complex128: (values) => Float64Array.from(values),
};

/** Elements: any bits, or for the wide floats numbers as models have them, zeros among them, or some that cancel. */
function elements(random: Random, dtype: DType, count: number, input: number): Uint8Array {
  const byteLength = count * itemSize(dtype);
  const make = FLOATS[dtype];
  if (make === undefined || random.uniform() < 0.3) {
    return Uint8Array.from({ length: byteLength }, () => random.integer(0, dtype === 'bool' ? 1 : 255));
  }
  const kind = random.integer(0, 3);
  const numbers = byteLength / (dtype === 'float32' || dtype === 'complex64' ? 4 : 8);
  const values = Array.from({ length: numbers }, () => {
    const x = random.gauss();
    if (kind === 1) return random.uniform() < 0.5 ? x : -0;
    if (kind === 2) return x * 2 ** random.integer(-140, 120);
    return kind === 3 ? [2 ** 60, x, -(2 ** 60)][input % 3]! : x;
  });
  const array = make(values);
  return new Uint8Array(array.buffer);
}

const WEIGHTINGS: readonly ((random: Random) => number)[] = [
  () => 1,
  (random) => random.integer(1, 5000),
  (random) => random.uniform() + 0.01,
  (random) => 2 ** random.integer(-64, 40),
];

const NAMES = Object.keys(DTYPES) as DType[];

/** A table of the addresses of k inputs, each with an alignment of its own. */
function table(build: Build, inputs: readonly Uint8Array[]): number {
  const addresses = inputs.map((input, j) => build.put(input, j % 5));
  return build.put(new Uint8Array(Uint32Array.from(addresses).buffer));
}

const test = suite('scalar');

test('no build has relaxed SIMD, and the scalar ones no vectors', () => {
  for (const name of ['core', 'strategies']) {
    const text = readFileSync(`${root}build/${name}.wat`, 'utf8');
    assert.match(text, /v128\.load/);
    assert.not.match(text, /relaxed/);
    assert.not.match(readFileSync(`${root}build/${name}.scalar.wat`, 'utf8'), /v128|[if]\d+x\d+/);
  }
});

test('means, medians and trimmed means', () => {
  const random = new Random(seed);
  for (let round = 0; round < 600; round++) {
    const dtype = random.pick(NAMES);
    const k = random.integer(1, 9);
    const n = random.integer(0, 70);
    const inputs = Array.from({ length: k }, (_, j) => elements(random, dtype, n, j));
    const weigh = random.pick(WEIGHTINGS);
    const weightings = bytesOf(inputs.map(() => weigh(random)));
    const cut = random.integer(0, (k - 1) >> 1);
    const propagate = random.uniform() < 0.7;
    const skew = random.integer(0, 15);
    const what = `round ${round}: ${dtype}, k ${k}, n ${n}`;
    for (const rule of ['mean', 'trimmed', 'weightedMedian'] as const) {
      same(`${what}, ${rule}`, (build) => {
        const { exports } = build;
        const given = build.put(weightings);
        const plan = build.take(exports[`${rule}PlanBytes`](k));
        const planned =
          rule === 'trimmed' ? exports.trimmedPlan(k, cut, plan) : exports[`${rule}Plan`](given, k, plan);
        if (planned !== undefined && planned !== MEAN_OK) return Uint8Array.of(planned);
        const inputTable = table(build, inputs);
        const out = build.take(n * itemSize(dtype), skew);
        build.bytes(out, n * itemSize(dtype)).fill(0);
        const status = exports[rule](DTYPES[dtype].code, plan, inputTable, n, out, propagate);
        const bytes = status === MEAN_OK ? build.bytes(out, n * itemSize(dtype)) : [];
        return Uint8Array.of(status, ...bytes);
      });
    }
  }
});

test('distances', () => {
  const random = new Random(seed + 1);
  for (let round = 0; round < 80; round++) {
    const dtype = random.pick(NAMES);
    const k = random.integer(1, 20);
    const n = random.integer(0, round % 8 === 0 ? CHUNK + 70 : 200);
    const inputs = Array.from({ length: k }, (_, j) => elements(random, dtype, n, j));
    const weightings = bytesOf(inputs.map(() => random.uniform() + 0.1));
    const chunks = Math.ceil(n / CHUNK);
    const { code } = DTYPES[dtype];
    const what = `round ${round}: ${dtype}, k ${k}, n ${n}`;
    const rules: Record<string, (build: Build, given: number, out: number) => number> = {
      squaredNorms: ({ exports }, given, out) => exports.squaredNorms(code, given, k, n, out),
      squaredDifferences: (build, given, out) =>
        build.exports.squaredDifferences(code, given, k, n, build.put(inputs[0]!, 3), out),
      squaredToCentre: (build, given, out) =>
        build.exports.squaredToCentre(code, given, k, n, build.put(weightings), out),
      pairwiseDistances: ({ exports }, given, out) => exports.pairwiseDistances(code, given, k, n, out),
    };
    for (const [rule, run] of Object.entries(rules)) {
      same(`${what}, ${rule}`, (build) => {
        const byteLength = 8 * chunks * Math.max(k, (k * (k - 1)) / 2);
        const out = build.take(byteLength);
        build.bytes(out, byteLength).fill(0);
        const known = run(build, table(build, inputs), out);
        return Uint8Array.of(known, ...build.bytes(out, byteLength));
      });
    }
  }
});

test('the search for NaN and infinity, and byte order', () => {
  const random = new Random(seed + 2);
  for (let round = 0; round < 400; round++) {
    const dtype = random.pick(NAMES);
    const n = random.integer(0, 67);
    const bytes = elements(random, dtype, n, 0);
    const from = random.integer(0, n);
    const size = random.pick([2, 4, 8]);
    const skew = random.integer(0, 15);
    same(`round ${round}: ${dtype}, n ${n}`, (build) => {
      const address = build.put(bytes, skew);
      const at = build.exports.findNonFinite(DTYPES[dtype].code, address, n, from);
      build.exports.swapBytes(address, Math.floor(bytes.byteLength / size), size);
      return Uint8Array.of(at & 255, ...build.bytes(address, bytes.byteLength));
    });
  }
});

/** Suites that go through the kernels. Those that take long are for long runs. */
const SUITES = [
  'core/elements',
  'core/distances',
  'core/npy',
  'core/partial',
  'core/step',
  'core/quantise',
  'core/updates',
  'aggregate/fedavg',
  ...(process.env.CAMBIUM_LONG ? ['core/mean', 'core/order', 'core/pickle', 'aggregate/aggregation'] : []),
];

for (const name of SUITES) {
  test(`${name} passes on a host without SIMD`, async () => {
    const options = [...process.execArgv, '--import', './test/helpers/no-simd.ts'];
    const child = spawn(process.execPath, [...options, `test/${name}.test.ts`], { cwd: root });
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    const code = await new Promise((resolve) => child.on('close', resolve));
    const [total, passed] = ['Total', 'Passed'].map((count) =>
      Number(new RegExp(`^\\s*${count}:\\s+(\\d+)`, 'm').exec(output)?.[1] ?? 0),
    );
    assert.ok(code === 0 && total! > 0 && total === passed, output);
  });
}

test.run();
