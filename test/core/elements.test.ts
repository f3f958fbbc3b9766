import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openCore } from '../../src/core/core.ts';
import { findNonFinite, swapBytes } from '../../src/core/elements.ts';
import { DTYPES, type DType } from '../../src/tensor/dtypes.ts';
import { sameBytes } from '../helpers/bytes.ts';

const test = suite('elements');

/** Bytes of one number, and little-endian patterns: the largest finite one, then some that are not finite. */
const PATTERNS = [
  ['float16', 2, 0xfbffn, [0x7c00n, 0xfc00n, 0x7c01n, 0xffffn]],
  ['bfloat16', 2, 0xff7fn, [0x7f80n, 0xff80n, 0x7f81n, 0xffffn]],
  ['float32', 4, 0xff7fffffn, [0x7f800000n, 0xff800000n, 0x7f800001n, 0xffffffffn]],
  [
    'float64',
    8,
    0xffefffffffffffffn,
    [0x7ff0000000000000n, 0xfff0000000000000n, 0x7ff0000000000001n, 0xffffffffffffffffn],
  ],
] as const;

const COMPLEX = { float32: 'complex64', float64: 'complex128' } as const;

function put(bytes: Uint8Array, index: number, size: number, bits: bigint): void {
  for (let i = 0; i < size; i++) bytes[index * size + i] = Number((bits >> BigInt(8 * i)) & 0xffn);
}

test('the first NaN or infinity at every place', async () => {
  const core = await openCore();
  for (const [dtype, size, finite, others] of PATTERNS) {
    const { code } = DTYPES[dtype];
    for (let count = 0; count <= 67; count++) {
      const address = core.take(8 * 68 + 16) + (count % 16);
      const bytes = core.bytes(address, (count + 1) * size);
      for (let i = 0; i < count; i++) put(bytes, i, size, finite);
      put(bytes, count, size, others[0]); // behind the end
      assert.is(findNonFinite(core, code, address, count, 0), -1, `${dtype}: none of ${count}`);
      for (let at = 0; at < count; at++) {
        put(bytes, at, size, others[at % others.length]!);
        const what = `${dtype}: ${at} of ${count}`;
        assert.is(findNonFinite(core, code, address, count, 0), at, what);
        assert.is(findNonFinite(core, code, address, count, at), at, what);
        assert.is(findNonFinite(core, code, address, count, at + 1), -1, what);
        if ((dtype === 'float32' || dtype === 'float64') && count % 2 === 0) {
          const complex = DTYPES[COMPLEX[dtype]].code;
          assert.is(findNonFinite(core, complex, address, count / 2, 0), at >> 1, what);
          assert.is(findNonFinite(core, complex, address, count / 2, (at >> 1) + 1), -1, what);
        }
        put(bytes, at, size, finite);
      }
    }
  }
});

test('integers are finite', async () => {
  const core = await openCore();
  const address = core.take(64);
  core.bytes(address, 64).fill(0xff);
  for (const dtype of ['bool', 'int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64', 'uint64']) {
    assert.is(findNonFinite(core, DTYPES[dtype as DType].code, address, 8, 0), -1, dtype);
  }
});

test('bytes of every size, number and alignment', async () => {
  const core = await openCore();
  for (const size of [1, 2, 4, 8]) {
    for (let count = 0; count <= 67; count++) {
      core.scope(() => {
        const block = core.take(8 * 68 + 32) + ((count * 5) % 16);
        const bytes = core.bytes(block, count * size + 1);
        for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 37 + count) & 0xff;
        const expected = bytes.slice();
        for (let i = 0; i < count; i++) expected.subarray(i * size, (i + 1) * size).reverse();
        swapBytes(core, block, count, size);
        sameBytes(bytes, expected, `${count} of ${size} bytes`);
      });
    }
  }
});

test.run();
