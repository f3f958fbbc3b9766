// What becomes of an update before it travels, and back: differences to the global model, float32 as two bytes, and the k
// elements of largest magnitude (Aji and Heafield, "Sparse Communication for Distributed Gradient Descent", 2017; Stich et
// al., "Sparsified SGD with Memory", 2018). int8 codes are in quantise.ts. Blocks have any alignment and do not overlap.

import {
  DTYPE_BFLOAT16,
  DTYPE_COMPLEX64,
  DTYPE_COMPLEX128,
  DTYPE_FLOAT16,
  DTYPE_FLOAT32,
  DTYPE_FLOAT64,
  TOP_FINE_BITS,
} from './abi';
import { loadNumber, makeCanonical, offset, storeNumber } from './step';

/** Element types of `addBlock`; as in step.ts those of two bytes differ by name only. */
type Half = u16;
type Brain = i16;

/**
 * a = a + x, or a - x, for n elements, rounded once: two numbers of up to 24 bits have a sum in binary64 whose rounding to
 * their dtype is that of the exact sum. Integers and bool stay as they are: what a difference says of them is the new value.
 * Answers false when a result is NaN (canonical) or infinite.
 */
export function addTo(dtype: u32, a: usize, x: usize, n: u32, subtract: bool): bool {
  if (dtype === DTYPE_FLOAT32) return addBlock<f32>(subtract, a, x, n);
  if (dtype === DTYPE_FLOAT64) return addBlock<f64>(subtract, a, x, n);
  if (dtype === DTYPE_FLOAT16) return addBlock<Half>(subtract, a, x, n);
  if (dtype === DTYPE_BFLOAT16) return addBlock<Brain>(subtract, a, x, n);
  if (dtype === DTYPE_COMPLEX64) return addBlock<f32>(subtract, a, x, n << 1);
  if (dtype === DTYPE_COMPLEX128) return addBlock<f64>(subtract, a, x, n << 1);
  return true;
}

function addBlock<T>(subtract: bool, a: usize, x: usize, n: u32): bool {
  let i: u32 = 0;
  let seen = false;
  if (ASC_FEATURE_SIMD) {
    if (isFloat<T>()) {
      const lanes: u32 = 16 / sizeof<T>();
      // v - v is +0 for every number and NaN for what is none.
      let rests = v128.splat<T>(0);
      for (; n - i >= lanes; i += lanes) {
        const p = a + offset<T>(i);
        const term = v128.load(x + offset<T>(i));
        const v = subtract ? v128.sub<T>(v128.load(p), term) : v128.add<T>(v128.load(p), term);
        v128.store(p, v);
        rests = v128.or(rests, v128.sub<T>(v, v));
      }
      seen = v128.any_true(rests);
    }
  }
  for (; i < n; i++) {
    const at = offset<T>(i);
    const term = loadNumber<T>(x + at);
    if (!storeNumber<T>(a + at, loadNumber<T>(a + at) + (subtract ? -term : term))) seen = true;
  }
  if (seen) makeCanonical<T>(a, n);
  return !seen;
}

/**
 * Rounds n float32 to float16 or bfloat16, half to even. What is too large becomes infinity: from 65,520 on, and for bfloat16
 * from half a unit above its largest number on. NaN is canonical. Answers false when a result is NaN or infinite.
 */
export function narrow(dtype: u32, x: usize, n: u32, out: usize): bool {
  return dtype === DTYPE_FLOAT16 ? narrowHalf(x, n, out) : narrowBrain(x, n, out);
}

/** Bits of float32: the smallest number that rounds to infinity, the smallest normal float16, and 0.5, whose unit is 2^-24. */
const HALF_OVERFLOW: u32 = 0x477ff000;
const HALF_NORMAL: u32 = 0x38800000;
const HALF_UNIT: u32 = 0x3f000000;
const INFINITY: u32 = 0x7f800000;

function narrowHalf(x: usize, n: u32, out: usize): bool {
  let i: u32 = 0;
  let seen = false;
  if (ASC_FEATURE_SIMD) {
    let overs = i32x4.splat(0);
    for (; n - i >= 4; i += 4) {
      const bits = v128.load(x + ((<usize>i) << 2));
      const a = v128.and(bits, i32x4.splat(0x7fffffff));
      const odd = v128.and(i32x4.shr_u(a, 13), i32x4.splat(1));
      const normal = i32x4.shr_u(i32x4.add(i32x4.add(a, odd), i32x4.splat(0xfff - (112 << 23))), 13);
      const unit = i32x4.splat(HALF_UNIT);
      const small = i32x4.sub(f32x4.add(a, unit), unit);
      let half = v128.bitselect(small, normal, i32x4.lt_s(a, i32x4.splat(HALF_NORMAL)));
      const over = i32x4.ge_s(a, i32x4.splat(HALF_OVERFLOW));
      overs = v128.or(overs, over);
      half = v128.bitselect(i32x4.splat(0x7c00), half, over);
      half = v128.or(half, v128.and(i32x4.shr_u(bits, 16), i32x4.splat(0x8000)));
      half = v128.bitselect(i32x4.splat(0x7e00), half, i32x4.gt_s(a, i32x4.splat(INFINITY)));
      v128.store64_lane(out + ((<usize>i) << 1), i16x8.narrow_i32x4_u(half, half), 0);
    }
    seen = v128.any_true(overs);
  }
  for (; i < n; i++) {
    const bits = load<u32>(x + ((<usize>i) << 2));
    const a = bits & 0x7fffffff;
    let half: u32 = 0;
    if (a < HALF_NORMAL) half = reinterpret<u32>(reinterpret<f32>(a) + <f32>0.5) - HALF_UNIT;
    else half = (a + ((a >> 13) & 1) + 0xfff - (112 << 23)) >> 13;
    if (a >= HALF_OVERFLOW) {
      half = 0x7c00;
      seen = true;
    }
    half |= (bits >> 16) & 0x8000;
    store<u16>(out + ((<usize>i) << 1), <u16>(a > INFINITY ? 0x7e00 : half));
  }
  return !seen;
}

function narrowBrain(x: usize, n: u32, out: usize): bool {
  let i: u32 = 0;
  let seen = false;
  if (ASC_FEATURE_SIMD) {
    let overs = i32x4.splat(0);
    for (; n - i >= 4; i += 4) {
      const bits = v128.load(x + ((<usize>i) << 2));
      const a = v128.and(bits, i32x4.splat(0x7fffffff));
      const odd = v128.and(i32x4.shr_u(bits, 16), i32x4.splat(1));
      let brain = i32x4.shr_u(i32x4.add(i32x4.add(bits, odd), i32x4.splat(0x7fff)), 16);
      overs = v128.or(overs, i32x4.ge_s(a, i32x4.splat(0x7f7f8000)));
      brain = v128.bitselect(i32x4.splat(0x7fc0), brain, i32x4.gt_s(a, i32x4.splat(INFINITY)));
      v128.store64_lane(out + ((<usize>i) << 1), i16x8.narrow_i32x4_u(brain, brain), 0);
    }
    seen = v128.any_true(overs);
  }
  for (; i < n; i++) {
    const bits = load<u32>(x + ((<usize>i) << 2));
    const a = bits & 0x7fffffff;
    if (a >= 0x7f7f8000) seen = true;
    const brain = a > INFINITY ? 0x7fc0 : (bits + ((bits >> 16) & 1) + 0x7fff) >> 16;
    store<u16>(out + ((<usize>i) << 1), <u16>brain);
  }
  return !seen;
}

/** 2^112, between the exponent biases of float16 and float32. */
const REBIAS: f32 = 5.192296858534828e33;

/** Gives n float16 or bfloat16 as float32, exactly. NaN is canonical. */
export function widenHalves(dtype: u32, x: usize, n: u32, out: usize): void {
  const isHalf = dtype === DTYPE_FLOAT16;
  let i: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    for (; n - i >= 4; i += 4) {
      const bits = v128.load_ext<u16>(x + ((<usize>i) << 1));
      v128.store(out + ((<usize>i) << 2), widenFour(isHalf, bits));
    }
  }
  for (; i < n; i++) {
    const bits = <u32>load<u16>(x + ((<usize>i) << 1));
    store<u32>(out + ((<usize>i) << 2), widenOne(isHalf, bits));
  }
}

function widenOne(isHalf: bool, bits: u32): u32 {
  let wide = bits << 16;
  if (isHalf) {
    const a = bits & 0x7fff;
    // The exponent field keeps its value under another bias, subnormals too; the factor corrects it.
    const magnitude =
      a >= 0x7c00 ? INFINITY | (a << 13) : reinterpret<u32>(reinterpret<f32>(a << 13) * REBIAS);
    wide = magnitude | ((bits & 0x8000) << 16);
  }
  return (wide & 0x7fffffff) > INFINITY ? 0x7fc00000 : wide;
}

function widenFour(isHalf: bool, bits: v128): v128 {
  let wide = i32x4.shl(bits, 16);
  if (isHalf) {
    const a = v128.and(bits, i32x4.splat(0x7fff));
    const shifted = i32x4.shl(a, 13);
    const special = i32x4.ge_s(a, i32x4.splat(0x7c00));
    const magnitude = v128.bitselect(
      v128.or(shifted, i32x4.splat(INFINITY)),
      f32x4.mul(shifted, f32x4.splat(REBIAS)),
      special,
    );
    wide = v128.or(magnitude, v128.and(wide, i32x4.splat(0x80000000)));
  }
  const none = i32x4.gt_s(v128.and(wide, i32x4.splat(0x7fffffff)), i32x4.splat(INFINITY));
  return v128.bitselect(i32x4.splat(0x7fc00000), wide, none);
}

// The k elements of largest magnitude, ties to the smaller index, in three passes: magnitudes of float32 order as their bits
// do, so a histogram of the upper bits tells which of its bins holds the k-th, one of the lower bits within that bin its
// exact magnitude, and how many of those that tie are among the k.

/**
 * Counts n float32 by the upper bits of their magnitudes in `bins` (u32 each). Answers false for NaN or infinity.
 */
export function countUpper(x: usize, n: u32, bins: usize): bool {
  let largest: u32 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const magnitude = load<u32>(x + ((<usize>i) << 2)) & 0x7fffffff;
    largest = max(largest, magnitude);
    const bin = bins + ((<usize>(magnitude >> TOP_FINE_BITS)) << 2);
    store<u32>(bin, load<u32>(bin) + 1);
  }
  return largest < INFINITY;
}

/** Counts those of n float32 whose magnitudes have these upper bits by the lower ones. */
export function countLower(x: usize, n: u32, upper: u32, bins: usize): void {
  for (let i: u32 = 0; i < n; i++) {
    const magnitude = load<u32>(x + ((<usize>i) << 2)) & 0x7fffffff;
    if (magnitude >> TOP_FINE_BITS !== upper) continue;
    const bin = bins + ((<usize>(magnitude & ((1 << TOP_FINE_BITS) - 1))) << 2);
    store<u32>(bin, load<u32>(bin) + 1);
  }
}

/**
 * Takes the elements above a magnitude (its bits) and the first that tie with it out of n float32: their indices (u32,
 * counted from `first`) and values. What stays in x is the rest; zeros are where elements were taken. The number at `ties`
 * (u32) is how many that tie are still to be taken. Answers how many were taken.
 */
export function takeTop(
  x: usize,
  n: u32,
  threshold: u32,
  ties: usize,
  first: u32,
  indices: usize,
  values: usize,
): u32 {
  let left = load<u32>(ties);
  let taken: u32 = 0;
  for (let i: u32 = 0; i < n; ) {
    if (ASC_FEATURE_SIMD) {
      if (n - i >= 4) {
        const four = v128.and(v128.load(x + ((<usize>i) << 2)), i32x4.splat(0x7fffffff));
        const least = i32x4.splat(threshold);
        if (!v128.any_true(left > 0 ? i32x4.ge_s(four, least) : i32x4.gt_s(four, least))) {
          i += 4;
          continue;
        }
      }
    }
    for (const end = min(i + 4, n); i < end; i++) {
      const p = x + ((<usize>i) << 2);
      const bits = load<u32>(p);
      const magnitude = bits & 0x7fffffff;
      if (magnitude < threshold || (magnitude === threshold && left === 0)) continue;
      if (magnitude === threshold) left--;
      store<u32>(indices + ((<usize>taken) << 2), first + i);
      store<u32>(values + ((<usize>taken) << 2), bits);
      store<u32>(p, 0);
      taken++;
    }
  }
  store<u32>(ties, left);
  return taken;
}

/**
 * Of n elements from the one at `start` of a tensor on writes those at k indices. Indices that lie elsewhere are passed over,
 * whatever they are.
 */
export function placeTop(indices: usize, values: usize, k: u32, start: u32, n: u32, out: usize): void {
  for (let j: u32 = 0; j < k; j++) {
    const i = load<u32>(indices + ((<usize>j) << 2)) - start;
    if (i < n) store<u32>(out + ((<usize>i) << 2), load<u32>(values + ((<usize>j) << 2)));
  }
}
