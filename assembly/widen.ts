// Elements of any dtype as binary64, for the kernels that measure.
//
// Exact for every dtype but int64 and uint64, which are rounded to the nearest binary64, ties to even. bool is 0 or 1; a
// complex element is two numbers. NaN stays NaN, its bits do not matter; infinity stays infinity.

import {
  DTYPE_BFLOAT16,
  DTYPE_BOOL,
  DTYPE_COMPLEX64,
  DTYPE_COMPLEX128,
  DTYPE_FLOAT16,
  DTYPE_FLOAT32,
  DTYPE_FLOAT64,
  DTYPE_UINT64,
} from './abi';
import { elementSize, isSigned, loadBits } from './mean-exact';

/** 2^112, between the exponent biases of float16 and float32. */
const REBIAS: f32 = 5.192296858534828e33;

/** The dtype of the numbers of an element: of a complex one its components. */
export function numberType(dtype: u32): u32 {
  if (dtype === DTYPE_COMPLEX64) return DTYPE_FLOAT32;
  if (dtype === DTYPE_COMPLEX128) return DTYPE_FLOAT64;
  return dtype;
}

/**
 * Writes n numbers to `to` and zeros behind them up to a multiple of four. dtype is not complex; `from` may be unaligned,
 * `to` is 16-byte aligned, has room for the zeros and does not overlap it.
 */
export function widen(dtype: u32, from: usize, n: u32, to: usize): void {
  for (let i = n; (i & 3) !== 0; i++) store<f64>(to + ((<usize>i) << 3), 0.0);
  if (dtype === DTYPE_FLOAT32) widen32(from, n, to);
  else if (dtype === DTYPE_FLOAT64) memory.copy(to, from, (<usize>n) << 3);
  else if (dtype === DTYPE_BFLOAT16) widenBrain(from, n, to);
  else if (dtype === DTYPE_FLOAT16) widenHalf(from, n, to);
  else widenIntegers(dtype, from, n, to);
}

function widen32(from: usize, n: u32, to: usize): void {
  const end = from + ((<usize>n) << 2);
  if (ASC_FEATURE_SIMD) {
    // Two loads that the conversion takes in: twice as quick as one and a shuffle.
    for (; end - from >= 16; from += 16) {
      v128.store(to, f64x2.promote_low_f32x4(v128.load64_zero(from)));
      v128.store(to, f64x2.promote_low_f32x4(v128.load64_zero(from, 8)), 16);
      to += 32;
    }
  }
  for (; from < end; from += 4) {
    store<f64>(to, <f64>load<f32>(from));
    to += 8;
  }
}

function widenBrain(from: usize, n: u32, to: usize): void {
  const end = from + ((<usize>n) << 1);
  if (ASC_FEATURE_SIMD) {
    for (; end - from >= 8; from += 8) {
      storePromoted(to, i32x4.shl(v128.load_ext<u16>(from), 16));
      to += 32;
    }
  }
  for (; from < end; from += 2) {
    store<f64>(to, <f64>reinterpret<f32>((<u32>load<u16>(from)) << 16));
    to += 8;
  }
}

// float16: the exponent field keeps its value under another bias, subnormals too, and 2^112 corrects it; the product is
// exact. An exponent field of ones is made one of float32.

function widenHalf(from: usize, n: u32, to: usize): void {
  const end = from + ((<usize>n) << 1);
  if (ASC_FEATURE_SIMD) {
    for (; end - from >= 8; from += 8) {
      const bits = v128.load_ext<u16>(from);
      const magnitude = v128.and(bits, i32x4.splat(0x7fff));
      const sign = i32x4.shl(v128.xor(bits, magnitude), 16);
      const x = f32x4.mul(i32x4.shl(magnitude, 13), f32x4.splat(REBIAS));
      const ones = v128.and(i32x4.ge_s(magnitude, i32x4.splat(0x7c00)), i32x4.splat(0x7f800000));
      storePromoted(to, v128.or(v128.or(x, ones), sign));
      to += 32;
    }
  }
  for (; from < end; from += 2) {
    const bits = <u32>load<u16>(from);
    const magnitude = bits & 0x7fff;
    const x = reinterpret<u32>(reinterpret<f32>(magnitude << 13) * REBIAS);
    const ones: u32 = magnitude >= 0x7c00 ? 0x7f800000 : 0;
    store<f64>(to, <f64>reinterpret<f32>(x | ones | ((bits ^ magnitude) << 16)));
    to += 8;
  }
}

function storePromoted(to: usize, x: v128): void {
  v128.store(to, f64x2.promote_low_f32x4(x));
  v128.store(to, f64x2.promote_low_f32x4(i64x2.shuffle(x, x, 1, 1)), 16);
}

function widenIntegers(dtype: u32, from: usize, n: u32, to: usize): void {
  const size = elementSize(dtype);
  const extend = isSigned(dtype) ? 64 - 8 * size : 0;
  for (const end = from + <usize>n * size; from < end; from += size) {
    const bits = loadBits(from, size);
    let x = <f64>(<i64>(bits << extend) >> extend);
    if (dtype === DTYPE_UINT64) x = <f64>bits;
    else if (dtype === DTYPE_BOOL) x = bits === 0 ? 0.0 : 1.0;
    store<f64>(to, x);
    to += 8;
  }
}
