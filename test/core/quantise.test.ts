import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Core, openStrategies } from '../../src/core/core.ts';
import type { StrategyExports } from '../../src/core/exports.ts';
import { dequantiseInto, quantiseInto } from '../../src/core/quantise.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { hasPythonModule, PYTHON } from '../helpers/peers.ts';
import { Random, testSeed } from '../helpers/random.ts';

const seed = testSeed();
const PEER = fileURLToPath(new URL('quantise_peer.py', import.meta.url));

/** Encodes at odd places of the arena, and decodes from `from` on. */
function run(core: Core<StrategyExports>, x: Float32Array, block: number, odd: number, from: number) {
  return core.scope(() => {
    const blocks = Math.ceil(x.length / block);
    const address = core.take(x.byteLength + 16) + odd;
    core.bytes(address, x.byteLength).set(new Uint8Array(x.buffer));
    const at = {
      codes: core.take(x.length + 16) + odd,
      scales: core.take(4 * blocks + 16) + odd,
      zeros: core.take(blocks + 16) + odd,
      block,
    };
    const finite = quantiseInto(core, address, x.length, at);
    const out = core.take(x.byteLength + 32) + odd;
    core.bytes(out, x.byteLength + 16).fill(0xa5);
    dequantiseInto(core, at, from, x.length - from, out);
    const decodedBytes = 4 * (x.length - from);
    assert.ok(core.bytes(out + decodedBytes, 16).every((byte) => byte === 0xa5));
    return {
      finite,
      codes: core.bytes(at.codes, x.length).slice(),
      scales: core.bytes(at.scales, 4 * blocks).slice(),
      zeros: core.bytes(at.zeros, blocks).slice(),
      decoded: core.bytes(out, decodedBytes).slice(),
    };
  });
}

const test = suite('core/quantise');

if (hasPythonModule('numpy')) {
  test('bit for bit what NumPy computes, for every length, alignment and range', async () => {
    const random = new Random(seed);
    const cases = Array.from({ length: 3 * 68 }, (_, i) => {
      const spread = random.pick([1, 1, 30, 1e-44, 1e37]);
      const shift = random.pick([0, 0, 5, -5]) * spread;
      return {
        x: Float32Array.from({ length: i % 68 }, () => random.gauss() * spread + shift),
        block: random.pick([1, 7, 16, 32, 64]),
      };
    });
    const { status, stdout, stderr } = spawnSync(PYTHON, [PEER], {
      input: cases
        .map(({ x, block }) => `${JSON.stringify({ x: Buffer.from(x.buffer).toString('hex'), block })}\n`)
        .join(''),
      encoding: 'utf8',
    });
    assert.is(status, 0, stderr);
    const lines = stdout.trim().split('\n');
    const core = await openStrategies(1 << 16);
    for (const [i, { x, block }] of cases.entries()) {
      const expected = JSON.parse(lines[i]!) as Record<'codes' | 'scales' | 'zeros' | 'decoded', string>;
      const from = random.integer(0, x.length);
      const actual = run(core, x, block, i & 15, from);
      assert.ok(actual.finite);
      for (const part of ['codes', 'scales', 'zeros'] as const) {
        sameBytes(actual[part], Buffer.from(expected[part], 'hex'), `case ${i} ${part}`);
      }
      sameBytes(actual.decoded, Buffer.from(expected.decoded, 'hex').subarray(4 * from), `case ${i} decoded`);
    }
    core.close();
  });
}

test('NaN and infinity are told wherever they stand', async () => {
  const core = await openStrategies(1 << 16);
  for (let i = 0; i < 37; i++) {
    for (const value of [NaN, Infinity, -Infinity]) {
      assert.is(run(core, new Float32Array(37).fill(value, i, i + 1), 16, 1, 0).finite, false);
    }
  }
  assert.is(run(core, new Float32Array(37).fill(3), 16, 1, 0).finite, true);
  core.close();
});

test.run();
