// Weighted mean of float16, bfloat16, bool and integers, exact and rounded once, ties to even (bool: 0 and 1 as integers).
//
// A plain loop with the certificates of mean-float32. The fold in binary64 was exact when the bits that its terms span and
// those of W fit in 53; then S / W in binary64 rounds to the dtype as if once. For floats that fail it, the certainty of
// the rounding within the error bound; else mean-exact.

import { DTYPE_BFLOAT16 } from './abi';
import { elementSize, exactMean, floatPrecision, isSigned, loadBits, storeBits } from './mean-exact';
import { PLAN_BITS, PLAN_K, PLAN_W, PLAN_WEIGHTS, power } from './mean-plan';

/** The error of the fold and the division for each of K + 3, relative to max|x|: 2^-53 and one per cent. */
const RELATIVE: f64 = 1.1102230246251565e-16 * 1.01;

/** 2^112, from the exponents of float16 to those of float32. */
const REBIAS: f64 = 5.192296858534828e33;

/**
 * Folds n elements; blocks and out have any alignment. Answers false when a NaN or infinity was seen: elements that have
 * one are undefined then.
 */
export function meanSmall(dtype: u32, plan: usize, inputs: usize, n: u32, out: usize): bool {
  return floatPrecision(dtype) === 0
    ? meanIntegers(dtype, plan, inputs, n, out)
    : meanHalves(dtype, plan, inputs, n, out);
}

function meanIntegers(dtype: u32, plan: usize, inputs: usize, n: u32, out: usize): bool {
  const size = elementSize(dtype);
  const signed = isSigned(dtype);
  const extend = signed ? 64 - 8 * size : 0;
  const k = load<u32>(plan, PLAN_K);
  const total = load<f64>(plan, PLAN_W);
  // With magnitudes below 2^room, |S| < 2^52 is exact, and if S is not m·W for a half-integer m, they differ by 1/2 or
  // more: by a unit in the last place of S, which the division keeps apart.
  const room = 52 - load<i32>(plan, PLAN_BITS);
  for (let at: usize = 0, end = <usize>n * size; at < end; at += size) {
    let sum = 0.0;
    let all: u64 = 0;
    for (let j: u32 = 0; j < k; j++) {
      const bits = loadBits(<usize>load<u32>(inputs + ((<usize>j) << 2)) + at, size);
      const x = <i64>(bits << extend) >> extend;
      all |= signed ? <u64>(x ^ (x >> 63)) : bits; // |x|, or one less
      sum += load<f64>(plan + ((<usize>j) << 3), PLAN_WEIGHTS) * <f64>x;
    }
    const isExact = <i32>(64 - clz(all)) < room;
    if (isExact) storeBits(out + at, size, <u64>(<i64>nearest(sum / total)));
    else storeBits(out + at, size, exactMean(dtype, plan, inputs, at));
  }
  return true;
}

function meanHalves(dtype: u32, plan: usize, inputs: usize, n: u32, out: usize): bool {
  const isBrain = dtype === DTYPE_BFLOAT16;
  const precision = <i32>floatPrecision(dtype);
  const infinity: u32 = isBrain ? 0x7f80 : 0x7c00;
  const k = load<u32>(plan, PLAN_K);
  const total = load<f64>(plan, PLAN_W);
  const limit = 52 - precision - load<i32>(plan, PLAN_BITS);
  const c = <f64>(k + 3) * RELATIVE;
  let finite = true;
  for (let at: usize = 0, end = (<usize>n) << 1; at < end; at += 2) {
    let sum = -0.0;
    let largest: u32 = 0;
    let least: u32 = 0xffffffff;
    for (let j: u32 = 0; j < k; j++) {
      const bits = <u32>load<u16>(<usize>load<u32>(inputs + ((<usize>j) << 2)) + at);
      const magnitude = bits & 0x7fff;
      largest = max(largest, magnitude);
      least = min(least, magnitude - 1); // zero becomes the largest number
      sum += load<f64>(plan + ((<usize>j) << 3), PLAN_WEIGHTS) * widen(bits, isBrain);
    }
    finite = finite && largest < infinity;
    const q = sum / total;
    const sign: u32 = <u32>(reinterpret<u64>(q) >> 48) & 0x8000;
    const shift = precision - 1;
    const bits = narrow(abs(q), isBrain);
    // An exponent spread of `limit` at most; `least` is one less, which errs to the safe side.
    const isExact = largest === 0 || <i32>(largest >> shift) - <i32>(least >> shift) <= limit;
    if (!isExact) {
      const d = c * widen(largest, isBrain);
      // A q - d below zero is as open as two different ends.
      const low = abs(q) - d;
      if (!(low > 0) || narrow(low, isBrain) !== narrow(abs(q) + d, isBrain)) {
        store<u16>(out + at, <u16>exactMean(dtype, plan, inputs, at));
        continue;
      }
    }
    store<u16>(out + at, <u16>(bits | sign));
  }
  return finite;
}

/** The number with these bits; infinities and NaN of float16 become finite ones. */
function widen(bits: u32, isBrain: bool): f64 {
  if (isBrain) return <f64>reinterpret<f32>(bits << 16);
  // The exponent field keeps its value under another bias, subnormals too; the factor, 2^112, corrects it.
  const x = <f64>reinterpret<f32>(((bits & 0x8000) << 16) | ((bits & 0x7fff) << 13));
  return x * REBIAS;
}

/** Bits of x >= 0 rounded to the dtype, ties to even; x does not overflow it. */
export function narrow(x: f64, isBrain: bool): u32 {
  // The unit in the last place is 2^(e - precision + 1), but not below the smallest number.
  const e = <i32>(reinterpret<u64>(x) >> 52) - 1023;
  const unit = isBrain ? max(e - 7, -133) : max(e - 10, -24);
  // At 1.5·2^52 units binary64 has no digits behind the unit: the addition rounds.
  const magic = 1.5 * power(unit + 52);
  const rounded = x + magic - magic;
  if (isBrain) return reinterpret<u32>(<f32>rounded) >> 16;
  return reinterpret<u32>(<f32>(rounded / REBIAS)) >> 13;
}
