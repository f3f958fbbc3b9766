// The mean of a partial sum: S / W for each element, rounded once to the dtype, ties to even.
//
//   q = hi / W, which is S / W but for a few units in the last place
//
// What makes the rounding of q right:
//
// A. No residue, and W a number of few bits (28 for float32, as in mean-float32). For float64, W in 53 bits: hi / W is
//    then one division of IEEE 754.
// B. The rounding is certain: q - d and q + d round alike, d = 2^-50·q. A sum is within 2^-52 of hi, W within 2^-53 of its
//    binary64 number.
// C. For float64 with residues, q is corrected by the remainder r = hi - q·W + r_1 as in mean-float64, which leaves an error
//    below 2^-74·q, and the rounding is certain within that.
//
// Everything else is divided in integers (mean-exact).

import {
  DTYPE_BFLOAT16,
  DTYPE_BOOL,
  DTYPE_FLOAT16,
  DTYPE_FLOAT32,
  DTYPE_FLOAT64,
  PARTIAL_NON_FINITE,
  PARTIAL_RANGE,
  PARTIAL_RESIDUE,
  PARTIAL_SCALE,
} from './abi';
import {
  elementSize,
  floatPrecision,
  highestDigit,
  isSigned,
  isSumNegative,
  normalize,
  openDType,
  roundQuotient,
  storeBits,
} from './mean-exact';
import {
  countLimbs,
  nearest as nearestOf,
  PLAN_LIMB_COUNT,
  PLAN_LIMBS,
  PLAN_W,
  PLAN_W_INTEGER,
  power,
  shiftRight,
} from './mean-plan';
import { narrow } from './mean-small';
import { product, setPlace, visitParts } from './partial';
import {
  arrayOf,
  indexOf,
  KIND_LOW,
  KIND_PART,
  KIND_ZEROS,
  kindOf,
  listedFrom,
  listLength,
  placesOf,
  valuesOf,
} from './partial-block';
import { openSpan, openSum, spanLowest } from './partial-exact';

// A prepared total has the fields of a plan (mean-plan) that a quotient needs, and behind them:
/** i32: the exponent of the unit of PLAN_LIMBS. */
const TOTAL_UNIT: usize = 96;
/** i32: bits of the integer W. */
const TOTAL_BITS: usize = 100;

/** Bits below a sum: a quotient can be 2^-169 of it, and needs 53. */
const BELOW: i32 = 256;

const INFINITE: u64 = 0xffe0000000000000;
const MINUS_ZERO: u64 = 0x8000000000000000;
const HIGH27: u64 = ~0x3ffffff;
const HIGH26: u64 = ~0x7ffffff;

/** 2^-50. */
const UNSURE: f64 = 8.881784197001252e-16;
/** 2^-74. */
const UNSURE_CORRECTED: f64 = 5.293955920339377e-23;
/** 2^-51, which a residue is below beside its sum. */
const RESIDUE: f64 = 4.440892098500626e-16;

// What certificate C leaves alone, so that nothing in it underflows or overflows.
const LEAST: f64 = 1.90109156629516e-211; // 2^-700
const MOST: f64 = 8.452712498170644e270; // 2^900

/**
 * Prepares W for partialFinish. `total` has PARTIAL_TOTAL_BYTES, 16-byte aligned; its first 24 bytes hold W as six u32, least
 * significant first, in units of 2^-116; it is not zero.
 */
export function partialTotal(total: usize): void {
  const limbs = total + PLAN_LIMBS;
  memory.copy(limbs, total, 24);
  let zeros: i32 = 0;
  while (((load<u32>(limbs + ((<usize>(zeros >> 5)) << 2)) >> (zeros & 31)) & 1) === 0) zeros++;
  shiftRight(limbs, zeros);
  countLimbs(total);
  const count = <i32>load<u32>(total, PLAN_LIMB_COUNT);
  store<i32>(total, zeros - 116, TOTAL_UNIT);
  store<i32>(total, 32 * count - <i32>clz(load<u32>(limbs + ((<usize>(count - 1)) << 2))), TOTAL_BITS);
  const integer = nearestOf(limbs);
  store<f64>(total, integer, PLAN_W_INTEGER);
  store<f64>(total, integer * power(zeros - 116), PLAN_W);
}

// The element at hand.
let first: f64 = 0; // r_1
let hasMore: bool = false; // further parts
let next: u32 = 0;
let after: u32 = 0;

/**
 * Divides n sums, one chunk at most, into elements of the dtype (not complex) at `out`. `sums` is 8-byte aligned, `block` 0
 * or the address of the residues. Answers 0 or the negative of a PARTIAL_ status.
 */
export function partialFinish(
  dtype: u32,
  total: usize,
  sums: usize,
  block: usize,
  n: u32,
  out: usize,
  propagate: bool,
): i32 {
  const size = elementSize(dtype);
  const precision = floatPrecision(dtype);
  next = 0;
  let i: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    if (dtype === DTYPE_FLOAT32) {
      const array: usize = block === 0 ? 0 : arrayOf(block);
      const isExact = array === 0 && load<i32>(total, TOTAL_BITS) <= 52 - <i32>precision;
      let listed = block === 0 ? n : listedFrom(block, 0, n);
      for (; i + 4 <= n; i += 4) {
        const at = (<usize>i) << 3;
        if (
          listed >= i + 4 &&
          (array === 0 || areResidues(array + at, sums + at)) &&
          divideFour(total, sums + at, isExact, out + ((<usize>i) << 2))
        )
          continue;
        const status = finishRange(dtype, size, precision, total, sums, block, i, i + 4, n, out, propagate);
        if (status !== 0) return status;
        if (block !== 0) listed = listedFrom(block, next, n);
      }
    }
  }
  return finishRange(dtype, size, precision, total, sums, block, i, n, n, out, propagate);
}

/** Elements from i up to `end`, one by one. */
function finishRange(
  dtype: u32,
  size: u32,
  precision: u32,
  total: usize,
  sums: usize,
  block: usize,
  i: u32,
  end: u32,
  n: u32,
  out: usize,
  propagate: bool,
): i32 {
  for (; i < end; i++) {
    const to = out + <usize>i * size;
    const sum = load<f64>(sums + ((<usize>i) << 3));
    setPlace(i);
    readParts(block, i, n);
    const pattern = reinterpret<u64>(sum);
    let status = 0;
    if (pattern << 1 >= INFINITE) {
      if (!propagate || precision === 0) return -PARTIAL_NON_FINITE;
      storeNonFinite(to, size, precision, pattern);
    } else if (sum === 0 && first === 0 && !hasMore) {
      storeBits(to, size, precision !== 0 ? pattern >> (64 - 8 * size) : 0);
    } else if (!isResidue(sum, block, n)) {
      return -PARTIAL_RESIDUE;
    } else if (
      !(precision === 53
        ? divideDouble(total, sum, to)
        : precision !== 0
          ? divideFloat(dtype, precision, total, sum, to)
          : divideInteger(dtype, size, total, sum, to))
    ) {
      status = divideExactly(dtype, size, precision, total, sum, block, i, n, to);
    }
    if (status !== 0) return -status;
    next = after;
  }
  return 0;
}

/** Whether four numbers of an array are small beside their sums. */
function areResidues(array: usize, sums: usize): bool {
  const share = f64x2.splat(RESIDUE);
  const limit0 = f64x2.mul(f64x2.abs(v128.load(sums)), share);
  const limit1 = f64x2.mul(f64x2.abs(v128.load(sums, 16)), share);
  const isSmall0 = f64x2.le(f64x2.abs(v128.load(array)), limit0);
  const isSmall1 = f64x2.le(f64x2.abs(v128.load(array, 16)), limit1);
  return i64x2.all_true(v128.and(isSmall0, isSmall1));
}

/** Four float32; `isExact` of sums without residues. False when a rounding is open, or a mean seems beyond the dtype or is not finite. */
function divideFour(total: usize, sums: usize, isExact: bool, to: usize): bool {
  const w = v128.load64_splat(total, PLAN_W);
  const q0 = f64x2.div(v128.load(sums), w);
  const q1 = f64x2.div(v128.load(sums, 16), w);
  const bits = demoted(q0, q1);
  const limit = i32x4.splat(0x7f800000);
  if (!i32x4.all_true(i32x4.lt_u(v128.and(bits, i32x4.splat(0x7fffffff)), limit))) return false;
  if (!isExact) {
    // Away from zero and towards it: the same rounding of both is that of what lies between.
    const unsure = f64x2.splat(UNSURE);
    const d0 = f64x2.mul(q0, unsure);
    const d1 = f64x2.mul(q1, unsure);
    const low = demoted(f64x2.sub(q0, d0), f64x2.sub(q1, d1));
    const high = demoted(f64x2.add(q0, d0), f64x2.add(q1, d1));
    if (!i32x4.all_true(i32x4.eq(low, high))) return false;
  }
  v128.store(to, bits);
  return true;
}

/** Four binary64 as float32. */
function demoted(a: v128, b: v128): v128 {
  return i64x2.shuffle(f32x4.demote_f64x2_zero(a), f32x4.demote_f64x2_zero(b), 0, 2);
}

/** Finds the residues of an element. */
function readParts(block: usize, i: u32, n: u32): void {
  first = 0;
  hasMore = false;
  after = next;
  if (block === 0) return;
  const array = arrayOf(block);
  if (array !== 0) first = load<f64>(array + ((<usize>i) << 3));
  const length = listLength(block);
  const places = placesOf(block, n);
  for (; after < length; after++) {
    const p = load<u16>(places + ((<usize>after) << 1));
    if (indexOf(p) !== i) break;
    const kind = kindOf(p);
    if (kind === KIND_ZEROS) continue;
    if (kind === KIND_PART && first === 0) first = load<f64>(valuesOf(block, n) + ((<usize>after) << 3));
    else hasMore = true;
  }
}

/** Whether all residues of the element are small beside its sum, or the sum is zero and they are below any number. */
function isResidue(sum: f64, block: usize, n: u32): bool {
  const limit = abs(sum) * RESIDUE;
  // Half of the smallest number is no number: beside such a sum nothing but low parts can stand.
  if (abs(first) > limit) return false;
  if (!hasMore) return true;
  const places = placesOf(block, n);
  const values = valuesOf(block, n);
  for (let j = next; j < after; j++) {
    const kind = kindOf(load<u16>(places + ((<usize>j) << 1)));
    const x = abs(load<f64>(values + ((<usize>j) << 3)));
    if (kind === KIND_PART && x > limit) return false;
    if (kind === KIND_LOW && x > LOW_LARGEST) return false;
  }
  return true;
}

/** 2^-562: times 2^-512 the smallest binary64 number. */
const LOW_LARGEST: f64 = 6.624337284222476e-170;

function storeNonFinite(to: usize, size: u32, precision: u32, pattern: u64): void {
  const hidden = (<u64>1) << (precision - 1);
  const infinity = ((<u64>1) << (8 * size - 1)) - hidden;
  const sign = (pattern >> 63) << (8 * size - 1);
  const isInfinity = (pattern & 0xfffffffffffff) === 0;
  storeBits(to, size, isInfinity ? sign | infinity : infinity | (hidden >> 1));
}

/** float16, bfloat16, float32; false when the rounding is open, or the mean seems beyond the dtype. */
function divideFloat(dtype: u32, precision: u32, total: usize, sum: f64, to: usize): bool {
  const q = sum / load<f64>(total, PLAN_W);
  const magnitude = abs(q);
  const d = magnitude * UNSURE;
  const isExact = first === 0 && !hasMore && load<i32>(total, TOTAL_BITS) <= 52 - <i32>precision;
  if (dtype === DTYPE_FLOAT32) {
    const bits = reinterpret<u32>(<f32>q);
    if ((bits & 0x7fffffff) >= 0x7f800000) return false;
    if (!isExact && reinterpret<u32>(<f32>(magnitude - d)) !== reinterpret<u32>(<f32>(magnitude + d)))
      return false;
    store<u32>(to, bits);
    return true;
  }
  const isBrain = dtype === DTYPE_BFLOAT16;
  // Above, `narrow` may not be asked.
  if (magnitude >= (isBrain ? 3.3e38 : 65500.0)) return false;
  const bits = narrow(magnitude, isBrain);
  if (!isExact && narrow(magnitude - d, isBrain) !== narrow(magnitude + d, isBrain)) return false;
  store<u16>(to, <u16>(bits | (q < 0 || reinterpret<u64>(q) === MINUS_ZERO ? 0x8000 : 0)));
  return true;
}

/** Integers and bool; false when the rounding is open, or the mean has more than 50 bits. */
function divideInteger(dtype: u32, size: u32, total: usize, sum: f64, to: usize): bool {
  const q = sum / load<f64>(total, PLAN_W);
  if (!(abs(q) < 1125899906842624.0)) return false;
  const r = nearest(q);
  if (abs(q - r) > 0.5 - (abs(q) + 1.0) * UNSURE) return false;
  if (!fits(dtype, size, r)) return false;
  storeBits(to, size, <u64>(<i64>r));
  return true;
}

/** Whether a whole number below 2^63 belongs to an integer dtype. */
function fits(dtype: u32, size: u32, r: f64): bool {
  if (isSigned(dtype)) return size === 8 || (r >= -power(8 * size - 1) && r < power(8 * size - 1));
  return r >= 0 && r < (dtype === DTYPE_BOOL ? 2.0 : power(8 * size));
}

/** float64, whose sums are scaled; false when the rounding is open, or the mean seems beyond binary64. */
function divideDouble(total: usize, sum: f64, to: usize): bool {
  const bits = load<i32>(total, TOTAL_BITS);
  if (bits > 53) return false;
  const w = load<f64>(total, PLAN_W) * power(-PARTIAL_SCALE);
  const q = sum / w;
  if (first === 0 && !hasMore) {
    store<f64>(to, q);
    return Number.isFinite(q);
  }
  const magnitude = abs(q);
  if (!(abs(sum) >= LEAST && abs(sum) < MOST && magnitude >= LEAST && magnitude < MOST)) return false;
  const wh = reinterpret<f64>(reinterpret<u64>(w) & HIGH26);
  const qh = reinterpret<f64>(reinterpret<u64>(q) & HIGH27);
  const r = sum - qh * wh - (qh * (w - wh) + (q - qh) * w) + first;
  const y = r / w;
  const d = magnitude * UNSURE_CORRECTED;
  const low = q + (y - d);
  if (low !== q + (y + d)) return false;
  store<f64>(to, low);
  return true;
}

/** Any element, in integers. */
function divideExactly(
  dtype: u32,
  size: u32,
  precision: u32,
  total: usize,
  sum: f64,
  block: usize,
  i: u32,
  n: u32,
  to: usize,
): i32 {
  // Beyond any mean of elements; what is below has a quotient of few limbs.
  const scale = precision === 53 ? PARTIAL_SCALE : 0;
  const q = (abs(sum) / load<f64>(total, PLAN_W)) * power(scale - 64);
  if (!(q < power(960)) || (precision === 0 && q > 1.0)) return PARTIAL_RANGE;
  openDType(dtype);
  openSpan();
  product(sum, 1.0, 0, false);
  if (block !== 0) visitParts(block, next, after, i, n, 1.0, 0, false);
  if (!openSum(BELOW, <i32>load<u32>(total, PLAN_LIMB_COUNT) + 2)) return PARTIAL_RANGE;
  product(sum, 1.0, 0, true, BELOW);
  if (block !== 0) visitParts(block, next, after, i, n, 1.0, BELOW, true);
  normalize(BELOW >> 5);
  if (highestDigit() < 0) {
    storeBits(to, size, 0);
    return 0;
  }
  const isBelow = isSumNegative();
  const unit = spanLowest() + scale - load<i32>(total, TOTAL_UNIT) - smallest(dtype);
  const bits = roundQuotient(total, BELOW, unit);
  if (!isInRange(dtype, size, precision, bits, isBelow)) return PARTIAL_RANGE;
  storeBits(to, size, bits);
  return 0;
}

/** The exponent of the smallest number of the dtype. */
function smallest(dtype: u32): i32 {
  if (dtype === DTYPE_FLOAT32) return -149;
  if (dtype === DTYPE_FLOAT64) return -1074;
  if (dtype === DTYPE_FLOAT16) return -24;
  return dtype === DTYPE_BFLOAT16 ? -133 : 0;
}

/** Whether a quotient is one of elements of the dtype, given its bits or, of an integer, its lowest 64 bits. */
function isInRange(dtype: u32, size: u32, precision: u32, bits: u64, isBelow: bool): bool {
  if (precision !== 0) {
    const magnitude = bits & (((<u64>1) << (8 * size - 1)) - 1);
    // Of a mean beyond the dtype the bits went into the sign or wider: it is as large as infinity then.
    return (
      bits >> (8 * size - 1) === <u64>isBelow &&
      magnitude < ((<u64>1) << (8 * size - 1)) - ((<u64>1) << (precision - 1))
    );
  }
  const magnitude = isBelow ? 0 - bits : bits;
  if (isSigned(dtype)) return magnitude <= ((<u64>1) << (8 * size - 1)) - (isBelow ? 0 : 1);
  if (isBelow) return bits === 0;
  return dtype === DTYPE_BOOL ? bits <= 1 : size === 8 || bits >> (8 * size) === 0;
}
