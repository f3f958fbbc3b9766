// Elements of any dtype as bytes: the search for NaN and infinity, and the way from big to little endian.

import {
  DTYPE_BFLOAT16,
  DTYPE_COMPLEX64,
  DTYPE_COMPLEX128,
  DTYPE_FLOAT16,
  DTYPE_FLOAT32,
  DTYPE_FLOAT64,
} from './abi';

/**
 * Index of the first element at or after `from` that is NaN or infinite (for a complex one: in either component), -1
 * when there is none. Integers have none. Little endian; x may be unaligned.
 */
export function findNonFinite(dtype: u32, x: usize, n: u32, from: u32): i32 {
  if (from >= n) return -1;
  if (dtype === DTYPE_FLOAT32) return find32(x, n, from);
  if (dtype === DTYPE_FLOAT64) return find64(x, n, from);
  if (dtype === DTYPE_FLOAT16) return find16(x, n, from, 0x7c00);
  if (dtype === DTYPE_BFLOAT16) return find16(x, n, from, 0x7f80);
  let at = -1;
  if (dtype === DTYPE_COMPLEX64) at = find32(x, n << 1, from << 1);
  if (dtype === DTYPE_COMPLEX128) at = find64(x, n << 1, from << 1);
  return at >> 1;
}

// NaN and infinity are the patterns whose exponent bits are all ones: bits << 1 is then at least the exponent mask.

function find32(x: usize, n: u32, from: u32): i32 {
  let i = from;
  if (ASC_FEATURE_SIMD) {
    const limit = i32x4.splat(0xff000000);
    // n - i cannot wrap: i <= n. Eight elements a step, because the test costs as much as the loads.
    for (; n - i >= 8; i += 8) {
      const p = x + ((<usize>i) << 2);
      const a = i32x4.ge_u(i32x4.shl(v128.load(p), 1), limit);
      const b = i32x4.ge_u(i32x4.shl(v128.load(p, 16), 1), limit);
      if (v128.any_true(v128.or(a, b))) break;
    }
  }
  for (; i < n; i++) {
    if (load<u32>(x + ((<usize>i) << 2)) << 1 >= 0xff000000) return i;
  }
  return -1;
}

function find64(x: usize, n: u32, from: u32): i32 {
  let i = from;
  if (ASC_FEATURE_SIMD) {
    const mask = i64x2.splat(0x7ff0000000000000);
    for (; n - i >= 4; i += 4) {
      const p = x + ((<usize>i) << 3);
      const a = i64x2.eq(v128.and(v128.load(p), mask), mask);
      const b = i64x2.eq(v128.and(v128.load(p, 16), mask), mask);
      if (v128.any_true(v128.or(a, b))) break;
    }
  }
  for (; i < n; i++) {
    if (load<u64>(x + ((<usize>i) << 3)) << 1 >= 0xffe0000000000000) return i;
  }
  return -1;
}

function find16(x: usize, n: u32, from: u32, mask: u32): i32 {
  for (let i = from; i < n; i++) {
    if ((load<u16>(x + ((<usize>i) << 1)) & mask) === mask) return i;
  }
  return -1;
}

/** Reverses the bytes of n items of `size` (2, 4 or 8) bytes in place; x may be unaligned. Other sizes stay as they are. */
export function swapBytes(x: usize, n: u32, size: u32): void {
  const end = x + <usize>n * size;
  if (size === 2) {
    if (ASC_FEATURE_SIMD) {
      for (; end - x >= 16; x += 16) {
        const v = v128.load(x);
        v128.store(x, i8x16.shuffle(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
      }
    }
    for (; x < end; x += 2) store<u16>(x, bswap<u16>(load<u16>(x)));
  } else if (size === 4) {
    if (ASC_FEATURE_SIMD) {
      for (; end - x >= 16; x += 16) {
        const v = v128.load(x);
        v128.store(x, i8x16.shuffle(v, v, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12));
      }
    }
    for (; x < end; x += 4) store<u32>(x, bswap<u32>(load<u32>(x)));
  } else if (size === 8) {
    if (ASC_FEATURE_SIMD) {
      for (; end - x >= 16; x += 16) {
        const v = v128.load(x);
        v128.store(x, i8x16.shuffle(v, v, 7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8));
      }
    }
    for (; x < end; x += 8) store<u64>(x, bswap<u64>(load<u64>(x)));
  }
}
