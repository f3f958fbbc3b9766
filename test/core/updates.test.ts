import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Core, openStrategies } from '../../src/core/core.ts';
import type { StrategyExports } from '../../src/core/exports.ts';
import { SCALE_ARENA_BYTES, ScaleSearch } from '../../src/core/quantise.ts';
import {
  addInto,
  narrowInto,
  placeTopInto,
  TOP_ARENA_BYTES,
  TopSearch,
  widenInto,
} from '../../src/core/updates.ts';
import { DTYPES } from '../../src/tensor/dtypes.ts';
import { decodeFloat16 } from '../../src/tensor/float16.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { hasPythonModule, PYTHON } from '../helpers/peers.ts';
import { Random, testSeed } from '../helpers/random.ts';

const seed = testSeed();
const PEER = fileURLToPath(new URL('updates_peer.py', import.meta.url));
const hasNumPy = hasPythonModule('numpy');
type Strategies = Core<StrategyExports>;

function peer(cases: readonly object[]): Record<string, string>[] {
  const input = cases.map((one) => JSON.stringify(one)).join('\n');
  const { stdout, stderr, status } = spawnSync(PYTHON, [PEER], { input, maxBuffer: 1 << 28 });
  assert.is(status, 0, String(stderr));
  return String(stdout)
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}

const hex = (view: ArrayBufferView) =>
  Buffer.from(view.buffer, view.byteOffset, view.byteLength).toString('hex');
const fromHex = (text: string) => new Uint8Array(Buffer.from(text, 'hex'));

/** Puts bytes at an odd place of the arena. */
function put(core: Core<StrategyExports>, bytes: ArrayBufferView, odd: number): number {
  const address = core.take(bytes.byteLength + 32) + (odd & 15);
  core.bytes(address, bytes.byteLength).set(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  return address;
}

/** A place for results with a guard behind it. */
function room(core: Core<StrategyExports>, byteLength: number, odd: number): number {
  return put(core, new Uint8Array(byteLength + 16).fill(0xa5), odd);
}

function taken(core: Core<StrategyExports>, address: number, byteLength: number): Uint8Array {
  assert.ok(
    core.bytes(address + byteLength, 16).every((byte) => byte === 0xa5),
    'wrote behind a block',
  );
  return core.bytes(address, byteLength).slice();
}

/** float32 of many magnitudes, ties, zeros of both signs, denormals; with `any` also NaN and infinities. */
function floats(random: Random, n: number, any: boolean): Float32Array {
  const bits = new Uint32Array(n).map(() => random.bits());
  const wild = new Float32Array(bits.buffer);
  return wild.map((x, i) => {
    const kind = random.integer(0, 5);
    if (kind === 0) return random.pick([0, -0, 1, -1, 0.5, 2 ** -149, 65_504, 65_520, -65_519.996]);
    if (kind === 1) return random.gauss();
    if (kind === 2) return (random.integer(-40, 40) + 0.5) * 2 ** random.integer(-25, 5); // ties of 16-bit floats
    if (kind === 3 && any) return random.pick([Number.NaN, Infinity, -Infinity, 3.3961775e38, 3.4e38]);
    return any || Number.isFinite(x) ? x : bits[i]! / 2 ** 32;
  });
}

const test = suite('transforms of updates');

test('differences and sums are those of NumPy, at every length and alignment', async () => {
  if (!hasNumPy) return;
  const core: Strategies = await openStrategies(1 << 16);
  const random = new Random(seed);
  const cases = [];
  const own: Uint8Array[] = [];
  for (let n = 0; n <= 67; n++) {
    for (const [dtype, name] of [
      ['float32', '<f4'],
      ['float64', '<f8'],
      ['float16', '<f2'],
      ['complex64', '<c8'],
    ] as const) {
      const { size, code } = DTYPES[dtype];
      const make = () => {
        if (dtype === 'float16') return new Uint16Array(n).map(() => random.bits());
        if (dtype === 'float64') return new Float64Array(n).map(() => floats(random, 1, true)[0]!);
        return floats(random, (n * size) / 4, dtype === 'float32');
      };
      const [a, x] = [make(), make()];
      const subtract = random.uniform() < 0.5;
      cases.push({ kind: 'add', dtype: name, a: hex(a), x: hex(x), subtract });
      core.scope(() => {
        const at = put(core, a, n);
        const finite = addInto(core, code, at, put(core, x, n * 3), n, subtract);
        const result = core.bytes(at, n * size).slice();
        own.push(result);
        if (dtype === 'float32') {
          assert.is(finite, new Float32Array(result.buffer).every(Number.isFinite), `n ${n}`);
        }
      });
    }
  }
  for (const [i, { out }] of peer(cases).entries()) {
    const { dtype } = cases[i]!;
    let expected = fromHex(out!);
    if (dtype === '<f2') {
      // NumPy keeps payloads of float16 NaN.
      const words = new Uint16Array(expected.buffer).map((w) => ((w & 0x7fff) > 0x7c00 ? 0x7e00 : w));
      expected = new Uint8Array(words.buffer);
    }
    if (dtype === '<c8') {
      const words = new Uint32Array(expected.buffer).map((w) =>
        (w & 0x7fffffff) > 0x7f800000 ? 0x7fc00000 : w,
      );
      expected = new Uint8Array(words.buffer);
    }
    sameBytes(own[i]!, expected, `case ${i}: ${dtype}`);
  }
  core.close();
});

test('bfloat16 differences are exact ones rounded once; integers and bool stay', async () => {
  const core: Strategies = await openStrategies(1 << 16);
  const random = new Random(seed + 1);
  const wide = (bits: number) => new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!;
  for (let n = 0; n <= 67; n++) {
    const [a, x] = [0, 1].map(() => new Uint16Array(n).map(() => random.bits() & 0xbfff)); // below infinity
    core.scope(() => {
      const at = put(core, a!, n);
      addInto(core, DTYPES.bfloat16.code, at, put(core, x!, 1), n, true);
      const got = new Uint16Array(core.bytes(at, 2 * n).slice().buffer);
      for (let i = 0; i < n; i++) {
        const exact = wide(a![i]!) - wide(x![i]!);
        const below = Math.abs(wide(got[i]!) - exact);
        for (const other of [got[i]! - 1, got[i]! + 1]) {
          if ((other & 0x7f80) !== 0x7f80) assert.ok(below <= Math.abs(wide(other) - exact), `${n}[${i}]`);
        }
      }
      const ints = put(core, Uint32Array.of(7, 8), 3);
      assert.ok(addInto(core, DTYPES.int32.code, ints, put(core, Uint32Array.of(1, 1), 0), 2, true));
      sameBytes(core.bytes(ints, 8), Uint32Array.of(7, 8));
    });
  }
  core.close();
});

test('casts to two bytes are those of NumPy, and every pattern comes back', async () => {
  const core: Strategies = await openStrategies(1 << 21);
  const random = new Random(seed + 2);
  const cases = Array.from({ length: 68 + 4 }, (_, n) => floats(random, n > 67 ? 5_000 : n, true));
  const expected = hasNumPy ? peer(cases.map((x) => ({ kind: 'halves', x: hex(x) }))) : [];
  for (const [i, x] of cases.entries()) {
    for (const type of ['float16', 'bfloat16'] as const) {
      core.scope(() => {
        const out = room(core, 2 * x.length, i * 5);
        const finite = narrowInto(core, type, put(core, x, i), x.length, out);
        const got = taken(core, out, 2 * x.length);
        if (hasNumPy) sameBytes(got, fromHex(expected[i]![type]!), `${type}, case ${i}`);
        const mask = type === 'float16' ? 0x7c00 : 0x7f80;
        assert.is(
          finite,
          new Uint16Array(got.buffer).every((word) => (word & mask) !== mask),
        );
      });
    }
  }
  const every = new Uint16Array(65_536).map((_, bits) => bits);
  for (const type of ['float16', 'bfloat16'] as const) {
    core.scope(() => {
      const out = room(core, 4 * every.length, 3);
      widenInto(core, type, put(core, every, 1), every.length, out);
      const got = new Float32Array(taken(core, out, 4 * every.length).buffer);
      const bits = new Uint32Array(got.buffer);
      for (const pattern of every) {
        const value =
          type === 'float16'
            ? decodeFloat16(pattern)
            : new Float32Array(Uint32Array.of(pattern << 16).buffer)[0]!;
        if (Number.isNaN(value)) assert.is(bits[pattern], 0x7fc00000);
        else assert.ok(Object.is(got[pattern], value), `${type} ${pattern.toString(16)}`);
      }
      const back = room(core, 2 * every.length, 7);
      narrowInto(core, type, out, every.length, back);
      const mask = type === 'float16' ? 0x7c00 : 0x7f80;
      const expectedWords = every.map((word) =>
        (word & 0x7fff) > mask ? (type === 'float16' ? 0x7e00 : 0x7fc0) : word,
      );
      sameBytes(taken(core, back, 2 * every.length), expectedWords, type);
    });
  }
  core.close();
});

/** Finds the k largest of x, shown in pieces. */
function takeTop(core: Strategies, x: Float32Array, k: number, pieces: readonly Float32Array[]) {
  return core.scope(() => {
    const search = new TopSearch(core, k);
    const at = pieces.map((piece, i) => put(core, piece, 3 * i));
    const indices = room(core, 4 * k, 5);
    const values = room(core, 4 * k, 9);
    const finite = at.map((address, i) => search.countUpper(address, pieces[i]!.length)).every(Boolean);
    if (!finite) return null;
    for (const [i, address] of at.entries()) search.countLower(address, pieces[i]!.length);
    let taken = 0;
    let first = 0;
    for (const [i, address] of at.entries()) {
      const { length } = pieces[i]!;
      taken += search.take(address, length, first, indices + 4 * taken, values + 4 * taken);
      first += length;
    }
    assert.is(taken, k);
    const rest = new Float32Array(x.length);
    for (let i = 0, done = 0; i < pieces.length; done += pieces[i++]!.length) {
      const bytes = core.bytes(at[i]!, pieces[i]!.byteLength);
      rest.set(new Float32Array(bytes.slice().buffer), done);
    }
    const back = room(core, 4 * x.length, 2);
    core.bytes(back, 4 * x.length).fill(0);
    placeTopInto(core, indices, values, k, 0, x.length, back);
    return {
      indices: core.bytes(indices, 4 * k).slice(),
      values: core.bytes(values, 4 * k).slice(),
      rest,
      back: new Float32Array(core.bytes(back, 4 * x.length).slice().buffer),
    };
  });
}

test('the k largest are those of a sort, ties to the smaller index, whatever the pieces', async () => {
  const core: Strategies = await openStrategies(TOP_ARENA_BYTES + (1 << 17));
  const random = new Random(seed + 3);
  const cases: { x: Float32Array; k: number }[] = [];
  for (let n = 1; n <= 67; n++) cases.push({ x: floats(random, n, false), k: random.integer(1, n) });
  for (let round = 0; round < 20; round++) {
    const few = round % 2 === 0 ? [0, -0, 1, -1, 2 ** -149] : null; // mostly ties
    const x = floats(random, 3_000, false).map((v) => (few === null ? v : random.pick(few)));
    cases.push({ x, k: random.integer(1, 3_000) });
  }
  const expected = hasNumPy ? peer(cases.map(({ x, k }) => ({ kind: 'top', x: hex(x), k }))) : [];
  for (const [i, { x, k }] of cases.entries()) {
    const cut = random.integer(0, x.length);
    const found = takeTop(core, x, k, [x.subarray(0, cut), x.subarray(cut)])!;
    const naive = [...x.keys()]
      .sort((a, b) => Math.abs(x[b]!) - Math.abs(x[a]!) || a - b)
      .slice(0, k)
      .sort((a, b) => a - b);
    sameBytes(found.indices, Uint32Array.from(naive), `case ${i}`);
    if (hasNumPy) {
      sameBytes(found.indices, fromHex(expected[i]!.indices!), `case ${i}`);
      sameBytes(found.values, fromHex(expected[i]!.values!), `case ${i}`);
      sameBytes(found.rest, fromHex(expected[i]!.rest!), `case ${i}`);
    }
    const chosen = new Set(naive);
    sameBytes(
      found.back,
      x.map((v, j) => (chosen.has(j) ? v : 0)),
      `case ${i}`,
    );
  }
  assert.is(takeTop(core, Float32Array.of(1, Number.NaN), 1, [Float32Array.of(1, Number.NaN)]), null);
  core.close();
});

test('what is sent and what stays add up, for any numbers and any k', async () => {
  const core: Strategies = await openStrategies(1 << 20);
  fc.assert(
    fc.property(
      fc.float32Array({ minLength: 1, maxLength: 300, noNaN: true, noDefaultInfinity: true }),
      fc.nat(),
      (x, raw) => {
        const k = 1 + (raw % x.length);
        const found = takeTop(core, x, k, [x])!;
        for (let i = 0; i < x.length; i++) {
          assert.ok(found.back[i]! + found.rest[i]! === x[i]);
          assert.ok(found.back[i] === 0 || found.rest[i] === 0);
        }
        const least = Math.min(...new Float32Array(found.values.buffer).map(Math.abs));
        assert.ok(found.rest.every((rest) => Math.abs(rest) <= least));
      },
    ),
    { seed },
  );
  core.close();
});

test('indices beyond the range are passed over', async () => {
  const core: Strategies = await openStrategies(1 << 16);
  const indices = put(core, Uint32Array.of(0, 5, 6, 9, 0xffff_ffff), 1);
  const values = put(core, Float32Array.of(1, 2, 3, 4, 5), 2);
  const out = room(core, 16, 3);
  core.bytes(out, 16).fill(0);
  placeTopInto(core, indices, values, 5, 5, 4, out);
  sameBytes(taken(core, out, 16), Float32Array.of(2, 3, 0, 0));
  core.close();
});

test('int8 with one scale is NumPy’s, whatever the pieces', async () => {
  const core: Strategies = await openStrategies(SCALE_ARENA_BYTES + (1 << 16));
  const random = new Random(seed + 4);
  const cases = Array.from({ length: 90 }, (_, n) => floats(random, n > 67 ? 2_000 : n, false));
  const expected = hasNumPy ? peer(cases.map((x) => ({ kind: 'int8', x: hex(x) }))) : [];
  for (const [i, x] of cases.entries()) {
    core.scope(() => {
      const search = new ScaleSearch(core);
      const cut = random.integer(0, x.length);
      const pieces = [x.subarray(0, cut), x.subarray(cut)];
      const at = pieces.map((piece, j) => put(core, piece, i + j));
      for (const [j, address] of at.entries()) assert.ok(search.extend(address, pieces[j]!.length));
      search.settle();
      const codes = room(core, x.length, i);
      for (const [j, address] of at.entries())
        search.encode(address, pieces[j]!.length, codes + (j === 0 ? 0 : cut));
      if (!hasNumPy) return;
      sameBytes(core.bytes(search.scale, 4), fromHex(expected[i]!.scale!), `scale ${i}`);
      assert.is(core.view(search.zero, 1).getInt8(0), Number(expected[i]!.zero));
      sameBytes(taken(core, codes, x.length), fromHex(expected[i]!.codes!), `codes ${i}`);
      assert.not(search.extend(put(core, Float32Array.of(1, 1, 1, 1, Infinity), 0), 5));
    });
  }
  core.close();
});

test.run();
