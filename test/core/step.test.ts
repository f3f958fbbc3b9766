import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { stateDType } from '../../src/aggregate/steps.ts';
import { type Core, openStrategies } from '../../src/core/core.ts';
import type { StrategyExports } from '../../src/core/exports.ts';
import { prepareStep, proximalInto, stepInto } from '../../src/core/step.ts';
import { DTYPES, type DType, itemSize } from '../../src/tensor/dtypes.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { hasPythonModule, PYTHON } from '../helpers/peers.ts';
import { Random, testSeed } from '../helpers/random.ts';

const seed = testSeed();
const PEER = fileURLToPath(new URL('step_peer.py', import.meta.url));
const RULES = ['rate', 'momentum', 'adagrad', 'adam', 'yogi'] as const;
const FLOATS = ['float16', 'bfloat16', 'float32', 'float64'] as const;
const HAS_SLOTS = { rate: 0, momentum: 1, adagrad: 2, adam: 2, yogi: 2 } as const;

type Float = (typeof FLOATS)[number];

interface Case {
  readonly rule: (typeof RULES)[number];
  readonly dtype: DType;
  readonly parameters: {
    scale: number;
    differences: boolean;
    learningRate: number;
    beta1: number;
    beta2: number;
    tau: number;
  };
  readonly a: Uint8Array;
  readonly x: Uint8Array;
  readonly m: Uint8Array;
  readonly v: Uint8Array;
}

const slotOf = (dtype: DType) => stateDType(dtype) ?? 'float32';

/** Steps at odd places of the arena; copies of the results. */
function run(core: Core<StrategyExports>, { rule, dtype, parameters, a, x, m, v }: Case, shift: number) {
  return core.scope(() => {
    const place = (bytes: Uint8Array, odd: number) => {
      const address = core.take(bytes.byteLength + 48) + ((shift + odd) & 15);
      core.bytes(address, bytes.byteLength + 16).fill(0xa5);
      core.bytes(address, bytes.byteLength).set(bytes);
      return address;
    };
    const prepared = prepareStep(core, rule, parameters);
    const blocks = [a, x, m, v];
    const at = blocks.map((bytes, i) => place(bytes, 3 * i));
    const count = a.byteLength / itemSize(dtype);
    const finite = stepInto(core, prepared, DTYPES[dtype].code, at[0]!, at[1]!, at[2]!, at[3]!, count);
    for (const [i, bytes] of blocks.entries()) {
      const behind = core.bytes(at[i]! + bytes.byteLength, 16);
      assert.ok(
        behind.every((byte) => byte === 0xa5),
        'wrote behind a block',
      );
    }
    sameBytes(core.bytes(at[1]!, x.byteLength), x, 'the model');
    const results = blocks.map((bytes, i) => core.bytes(at[i]!, bytes.byteLength).slice());
    return { x: results[0]!, m: results[2]!, v: results[3]!, finite };
  });
}

/** Random numbers of a dtype as bytes. Bits of 16 are drawn directly: halves need no arithmetic here. */
function draw(random: Random, dtype: Float, count: number, spread: number, special: boolean): Uint8Array {
  const pick = () => {
    if (special && random.uniform() < 0.2) return random.pick([0, -0, Infinity, -Infinity, NaN, 1e-40, 3e38]);
    return random.gauss() * 2 ** random.integer(-spread, spread);
  };
  if (dtype === 'float32') return new Uint8Array(new Float32Array(count).map(pick).buffer);
  if (dtype === 'float64') return new Uint8Array(new Float64Array(count).map(pick).buffer);
  const infinity = dtype === 'float16' ? 0x7c00 : 0x7f80;
  const one = dtype === 'float16' ? 0x3c00 : 0x3f80;
  const bits = new Uint16Array(count).map(() => {
    if (special && random.uniform() < 0.2) return random.pick([0, 0x8000, infinity, infinity | 0x8000, 1]);
    return (random.integer(-400, 400) + one) | (random.bits() & 0x8000);
  });
  return new Uint8Array(bits.buffer);
}

const positive = (random: Random, slot: DType, count: number) =>
  slot === 'float64'
    ? new Uint8Array(new Float64Array(count).map(() => random.gauss() ** 2).buffer)
    : new Uint8Array(new Float32Array(count).map(() => random.gauss() ** 2).buffer);

function drawCase(random: Random, rule: Case['rule'], dtype: Float, count: number, special = false): Case {
  const slot = slotOf(dtype) as Float;
  return {
    rule,
    dtype,
    parameters: {
      scale: random.pick([1, 0.5, 0.3]),
      differences: !special && random.uniform() < 0.3,
      learningRate: random.pick([1, 0.1, 0.01]),
      beta1: random.pick([0, 0.9, 0.5]),
      beta2: random.pick([0.99, 0.999, 0]),
      tau: random.pick([1e-3, 1e-9, 1]),
    },
    a: draw(random, dtype, count, 4, special),
    x: draw(random, dtype, count, 4, special),
    m: draw(random, slot, count, 4, special),
    v: positive(random, slot, count),
  };
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

/** What NumPy makes of the cases. */
function peer(cases: readonly Case[]): { x: Uint8Array; m: Uint8Array; v: Uint8Array }[] {
  const input = cases.map((one) =>
    JSON.stringify({
      ...one,
      slot: slotOf(one.dtype),
      a: hex(one.a),
      x: hex(one.x),
      m: hex(one.m),
      v: hex(one.v),
    }),
  );
  const { status, stdout, stderr } = spawnSync(PYTHON, [PEER], {
    input: `${input.join('\n')}\n`,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  assert.is(status, 0, stderr);
  const lines = stdout.trim().split('\n');
  assert.is(lines.length, cases.length);
  return lines.map((line) => {
    const { x, m, v } = JSON.parse(line) as { x: string; m: string; v: string };
    const bytes = (text: string) => new Uint8Array(Buffer.from(text, 'hex'));
    return { x: bytes(x), m: bytes(m), v: bytes(v) };
  });
}

const test = suite('core/step');

if (hasPythonModule('numpy')) {
  test('bit for bit what NumPy computes, for every rule, dtype, length and alignment', async () => {
    const random = new Random(seed);
    const core = await openStrategies(1 << 20);
    const cases: Case[] = [];
    for (const rule of RULES) {
      for (const dtype of FLOATS) {
        for (let count = 0; count <= 67; count++) cases.push(drawCase(random, rule, dtype, count));
        cases.push(drawCase(random, rule, dtype, 2000));
      }
    }
    const expected = peer(cases);
    for (const [i, one] of cases.entries()) {
      const actual = run(core, one, i);
      const what = `${one.rule} ${one.dtype} ${one.a.byteLength} bytes`;
      sameBytes(actual.x, expected[i]!.x, `${what} x`);
      sameBytes(actual.m, HAS_SLOTS[one.rule] > 0 ? expected[i]!.m : one.m, `${what} m`);
      sameBytes(actual.v, HAS_SLOTS[one.rule] > 1 ? expected[i]!.v : one.v, `${what} v`);
    }
    core.close();
  });

  test('NaN, infinity and overflow are told, and follow IEEE 754 with canonical NaN', async () => {
    const random = new Random(seed);
    const core = await openStrategies(1 << 20);
    const cases = RULES.flatMap((rule) => FLOATS.map((dtype) => drawCase(random, rule, dtype, 501, true)));
    const expected = peer(cases);
    for (const [i, one] of cases.entries()) {
      const actual = run(core, one, i);
      sameBytes(actual.x, expected[i]!.x, `${one.rule} ${one.dtype} x`);
      if (HAS_SLOTS[one.rule] > 0) sameBytes(actual.m, expected[i]!.m, `${one.rule} ${one.dtype} m`);
      assert.is(actual.finite, false);
    }
    core.close();
  });
}

test('a complex element is two numbers; integers and bool stay at the average', async () => {
  const random = new Random(seed);
  const core = await openStrategies(1 << 20);
  for (const [complex, float] of [
    ['complex64', 'float32'],
    ['complex128', 'float64'],
  ] as const) {
    const one = drawCase(random, 'adam', float, 34);
    const expected = run(core, one, 1);
    const actual = run(core, { ...one, dtype: complex }, 5);
    for (const part of ['x', 'm', 'v'] as const)
      sameBytes(actual[part], expected[part], `${complex} ${part}`);
  }
  const bytes = Uint8Array.from({ length: 64 }, (_, i) => i);
  const none = new Uint8Array(64);
  for (const dtype of ['bool', 'int8', 'uint16', 'int32', 'int64', 'uint64'] as const) {
    const one = { ...drawCase(random, 'yogi', 'float32', 16), dtype, a: bytes, x: none, m: none, v: none };
    const actual = run(core, one, 0);
    sameBytes(actual.x, bytes, dtype);
    sameBytes(actual.m, none, dtype);
    assert.is(actual.finite, true);
    assert.is(stateDType(dtype), null);
  }
  core.close();
});

test('the cut into blocks does not matter', async () => {
  const random = new Random(seed);
  const core = await openStrategies(1 << 20);
  for (const dtype of ['float32', 'float16'] as const) {
    const one = drawCase(random, 'yogi', dtype, 61);
    const whole = run(core, one, 0);
    for (let cut = 0; cut <= 61; cut++) {
      const part = (bytes: Uint8Array, from: number, to: number) => {
        const size = bytes.byteLength / 61;
        return bytes.subarray(from * size, to * size);
      };
      const of = (from: number, to: number) =>
        run(
          core,
          {
            ...one,
            a: part(one.a, from, to),
            x: part(one.x, from, to),
            m: part(one.m, from, to),
            v: part(one.v, from, to),
          },
          cut,
        );
      const low = of(0, cut);
      const high = of(cut, 61);
      for (const slot of ['x', 'm', 'v'] as const) {
        sameBytes(Buffer.concat([low[slot], high[slot]]), whole[slot], `${dtype} cut at ${cut}`);
      }
    }
  }
  core.close();
});

test('the proximal gradient pulls towards the global model', async () => {
  const random = new Random(seed);
  const core = await openStrategies(1 << 20);
  for (let count = 0; count <= 67; count++) {
    const [g, x, global] = [0, 1, 2].map(() => Float32Array.from({ length: count }, () => random.gauss()));
    const expected = g!.map((value, i) => value + 0.1 * (x![i]! - global![i]!));
    core.scope(() => {
      const at = [g!, x!, global!].map((array, i) => {
        const address = core.take(array.byteLength + 16) + i;
        core.bytes(address, array.byteLength).set(new Uint8Array(array.buffer));
        return address;
      });
      assert.is(proximalInto(core, DTYPES.float32.code, 0.1, at[0]!, at[1]!, at[2]!, count), true);
      sameBytes(core.bytes(at[0]!, 4 * count), expected, `${count} elements`);
    });
  }
  core.close();
});

test.run();
