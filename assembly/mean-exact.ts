// One element of a weighted mean with integers of any width: S / W rounded once, ties to even, for any finite inputs
// and any plan. The kernels send here what their certificates leave open; small dtypes come here altogether.
//
//   S = Σ m_j·2^shift_j · x_j     every x_j is an integer times 2^base, base the lowest exponent among them
//   result = Q·2^e                 Q = S / (W·2^k) rounded, k chosen so that Q has the digits that the dtype has room for
//
// S stands in an accumulator of 32-bit limbs, each in 64 bits, so that thousands of products can be added before a carry
// is propagated. Q is found by a few steps of long division with binary64 estimates of its digits; a remainder near one
// half is then compared exactly. Nothing here depends on the order of the inputs.

import {
  DTYPE_BFLOAT16,
  DTYPE_BOOL,
  DTYPE_FLOAT16,
  DTYPE_FLOAT32,
  DTYPE_FLOAT64,
  DTYPE_INT8,
  DTYPE_INT16,
  DTYPE_INT32,
  DTYPE_INT64,
  DTYPE_UINT8,
  DTYPE_UINT16,
  DTYPE_UINT32,
  DTYPE_UINT64,
} from './abi';
import {
  PLAN_K,
  PLAN_LIMB_COUNT,
  PLAN_LIMBS,
  PLAN_W_INTEGER,
  PLAN_WIDE,
  planMantissas,
  planShifts,
  power,
} from './mean-plan';

const MASK: u64 = 0xffffffff;

/** 2^32. */
const LIMB: f64 = 4294967296.0;

// The widest case, binary64 with a wide plan: 8 limbs below S (a quotient can be 2^-169 and needs 53 bits), 2046 bits of
// exponents, 53 of an element, 192 of W, then room that a product with leading zero limbs touches. Partial sums (partial-
// exact) want more below and above: 2273 bits of exponents, 116 of fractions of weightings, 60 of another scale.
const LIMBS: i32 = 104;

// Two limbs below the first are always zero: `ratio` reads the three highest ones.
const STORE: usize = memory.data(8 * (LIMBS + 2), 16);
const ACC: usize = STORE + 16;

// The value in ACC is -1 or 1 (negative or not) times limbs [0, count); top is its highest limb that is not zero, or -1.
let count: i32 = 0;
let top: i32 = 0;
let negative: bool = false;

// The dtype at hand. Floats: `precision` bits of significand with the hidden one. Integers: precision 0.
let size: u32 = 0;
let precision: u32 = 0;
let signed: bool = false;

// The element read last is -1 or 1 times magnitude times 2^exponent, in units of the smallest number of the dtype.
let magnitude: u64 = 0;
let exponent: i32 = 0;
let minus: bool = false;

/** Bytes of an element, 0 for dtypes without a mean. Complex elements go by component. */
export function elementSize(dtype: u32): u32 {
  switch (dtype) {
    case DTYPE_BOOL:
    case DTYPE_INT8:
    case DTYPE_UINT8:
      return 1;
    case DTYPE_INT16:
    case DTYPE_UINT16:
    case DTYPE_FLOAT16:
    case DTYPE_BFLOAT16:
      return 2;
    case DTYPE_INT32:
    case DTYPE_UINT32:
    case DTYPE_FLOAT32:
      return 4;
    case DTYPE_INT64:
    case DTYPE_UINT64:
    case DTYPE_FLOAT64:
      return 8;
  }
  return 0;
}

/** Bits of a float's significand with the hidden one, 0 for integers. */
export function floatPrecision(dtype: u32): u32 {
  switch (dtype) {
    case DTYPE_FLOAT16:
      return 11;
    case DTYPE_BFLOAT16:
      return 8;
    case DTYPE_FLOAT32:
      return 24;
    case DTYPE_FLOAT64:
      return 53;
  }
  return 0;
}

/** Whether the dtype is an integer with a sign. */
export function isSigned(dtype: u32): bool {
  return dtype === DTYPE_INT8 || dtype === DTYPE_INT16 || dtype === DTYPE_INT32 || dtype === DTYPE_INT64;
}

/** The bits of an element of `bytes` bytes. */
export function loadBits(p: usize, bytes: u32): u64 {
  if (bytes === 4) return load<u32>(p);
  if (bytes === 8) return load<u64>(p);
  return bytes === 2 ? load<u16>(p) : load<u8>(p);
}

/** Stores the lower bits as an element of `bytes` bytes. */
export function storeBits(p: usize, bytes: u32, bits: u64): void {
  if (bytes === 4) store<u32>(p, <u32>bits);
  else if (bytes === 8) store<u64>(p, bits);
  else if (bytes === 2) store<u16>(p, <u16>bits);
  else store<u8>(p, <u8>bits);
}

/** The bits of the mean of the elements `at` bytes behind the addresses in `inputs`. */
export function exactMean(dtype: u32, plan: usize, inputs: usize, at: usize): u64 {
  openDType(dtype);
  const k = load<u32>(plan, PLAN_K);
  const sign = (<u64>1) << (8 * size - 1);
  let base = i32.MAX_VALUE;
  let highest: i32 = 0;
  let isMinusZero = precision !== 0;
  for (let j: u32 = 0; j < k; j++) {
    read(<usize>load<u32>(inputs + ((<usize>j) << 2)) + at);
    isMinusZero = isMinusZero && minus;
    if (magnitude === 0) continue;
    base = min(base, exponent);
    highest = max(highest, exponent);
  }
  if (base === i32.MAX_VALUE) return isMinusZero ? sign : 0;

  // Bits below S.
  const below = load<u32>(plan, PLAN_WIDE) ? 256 : 128;
  openLimbs(((below + highest - base + 64) >> 5) + <i32>load<u32>(plan, PLAN_LIMB_COUNT) + 2);
  const mantissas = planMantissas(plan);
  const shifts = planShifts(plan);
  for (let j: u32 = 0; j < k; j++) {
    read(<usize>load<u32>(inputs + ((<usize>j) << 2)) + at);
    if (magnitude === 0) continue;
    const shift = <i32>load<u32>(shifts + ((<usize>j) << 2));
    addProduct(magnitude, load<u64>(mantissas + ((<usize>j) << 3)), below + exponent - base + shift, minus);
  }
  normalize(below >> 5);
  return top < 0 ? 0 : roundQuotient(plan, below, base);
}

/** Prepares for a quotient in the dtype, which is not complex. */
export function openDType(dtype: u32): void {
  size = elementSize(dtype);
  precision = floatPrecision(dtype);
  signed = isSigned(dtype);
}

/** Begins a sum of `limbs` limbs. */
export function openLimbs(limbs: i32): void {
  count = limbs;
  negative = false;
  const end = ACC + ((<usize>(count + 5)) << 3);
  // Quicker than memory.fill for so few.
  if (ASC_FEATURE_SIMD) for (let p = ACC; p < end; p += 16) v128.store(p, i64x2.splat(0));
  else for (let p = ACC; p < end; p += 8) store<u64>(p, 0);
}

/** The bits of the sum / W in the dtype; the sum is normalized and not zero, and its bit `below` means 2^base of the smallest numbers. */
export function roundQuotient(plan: usize, below: i32, base: i32): u64 {
  const isNegative = negative;
  negative = false;
  if (precision === 0) {
    const q = divide(plan, below - base);
    return isNegative ? 0 - q : q;
  }
  // The quotient's last digit: `precision` bits from its first one, but not below the dtype's smallest number.
  const last = max(leading(plan) - <i32>precision + 1, below - base);
  const q = divide(plan, last);
  // A biased exponent of 0 and of 1 have the same unit, and a Q of `precision` bits carries into the exponent by itself.
  const bits = ((<u64>(last - below + base)) << (precision - 1)) + q;
  return isNegative ? bits | ((<u64>1) << (8 * size - 1)) : bits;
}

/** Position of the highest digit of the normalized sum, -1 for zero. */
export function highestDigit(): i32 {
  return top < 0 ? -1 : 32 * top + 63 - <i32>clz(load<u64>(ACC + ((<usize>top) << 3)));
}

/** Whether the normalized sum is below zero. */
export function isSumNegative(): bool {
  return negative;
}

/** A digit in base 2^32 of the magnitude of the normalized sum. */
export function limb(i: i32): u64 {
  return load<u64>(ACC + ((<usize>i) << 3));
}

/** Reads one element into magnitude, exponent and minus. */
function read(p: usize): void {
  let bits = loadBits(p, size);
  if (precision === 0) {
    exponent = 0;
    minus = signed && ((bits >> (8 * size - 1)) & 1) !== 0;
    // The sign extended from `size` bytes to eight.
    if (minus) bits = (0 - bits) & (<u64>-1 >> (64 - 8 * size));
    magnitude = bits;
    return;
  }
  minus = bits >> (8 * size - 1) !== 0;
  const hidden = (<u64>1) << (precision - 1);
  magnitude = bits & (hidden - 1);
  exponent = <i32>(bits >> (precision - 1)) & ((1 << (8 * size - precision)) - 1);
  if (exponent !== 0) {
    magnitude |= hidden;
    exponent--;
  }
}

/** Limbs += or -= x·y·2^position, without carries. */
export function addProduct(x: u64, y: u64, position: i32, subtract: bool): void {
  const p = ACC + ((<usize>(position >> 5)) << 3);
  const s = <u64>(position & 31);
  const low = (x & MASK) << s;
  const high = ((x >> 32) << s) + (low >> 32);
  const x0 = low & MASK;
  const x1 = high & MASK;
  const x2 = high >> 32;
  const y0 = y & MASK;
  const y1 = y >> 32;
  let a = x0 * y0;
  let b = x1 * y0;
  let c = x2 * y0;
  let c0 = a & MASK;
  let c1 = (a >> 32) + (b & MASK);
  let c2 = (b >> 32) + (c & MASK);
  let c3 = c >> 32;
  a = x0 * y1;
  b = x1 * y1;
  c = x2 * y1;
  c1 += a & MASK;
  c2 += (a >> 32) + (b & MASK);
  c3 += (b >> 32) + (c & MASK);
  let c4 = c >> 32;
  if (subtract) {
    c0 = 0 - c0;
    c1 = 0 - c1;
    c2 = 0 - c2;
    c3 = 0 - c3;
    c4 = 0 - c4;
  }
  store<u64>(p, load<u64>(p) + c0);
  store<u64>(p, load<u64>(p, 8) + c1, 8);
  store<u64>(p, load<u64>(p, 16) + c2, 16);
  store<u64>(p, load<u64>(p, 24) + c3, 24);
  store<u64>(p, load<u64>(p, 32) + c4, 32);
}

/** Value += or -= x·W·2^position, with carries. */
function addMultiple(plan: usize, x: u64, position: i32, subtract: bool): void {
  const limbs = <i32>load<u32>(plan, PLAN_LIMB_COUNT);
  for (let i = 0; i < limbs; i += 2) {
    addProduct(x, load<u64>(plan + ((<usize>i) << 2), PLAN_LIMBS), position + 32 * i, subtract !== negative);
  }
  normalize(position >> 5);
}

/** Propagates the carries: limbs become digits, the sign goes to `negative`. Limbs below `low` are digits already. */
export function normalize(low: i32): void {
  const end = ACC + ((<usize>count) << 3);
  let carry: i64 = 0;
  for (let p = ACC + ((<usize>low) << 3); p < end; p += 8) {
    carry += load<i64>(p);
    store<u64>(p, <u64>carry & MASK);
    carry >>= 32;
  }
  if (carry < 0) {
    negative = !negative;
    carry = 1;
    for (let p = ACC; p < end; p += 8) {
      carry += <i64>(load<u64>(p) ^ MASK);
      store<u64>(p, <u64>carry & MASK);
      carry >>= 32;
    }
  }
  top = count - 1;
  while (top >= 0 && load<u64>(ACC + ((<usize>top) << 3)) === 0) top--;
}

/** About the three highest limbs, whose lowest has the position 32·(top - 2); at least 2^64. Off by less than 2^-51. */
function head(): f64 {
  const p = ACC + ((<usize>top) << 3) - 16; // two zero limbs stand below the first
  return (<f64>load<u64>(p, 16) * LIMB + <f64>load<u64>(p, 8)) * LIMB + <f64>load<u64>(p);
}

/** Position of the leading digit of value / W, exactly. Value is positive and stays as it is. */
function leading(plan: usize): i32 {
  const bits = reinterpret<u64>(head() / load<f64>(plan, PLAN_W_INTEGER));
  const position = <i32>(bits >> 52) - 1023 + 32 * (top - 2);
  // Within 2^-40 of a power of two the estimate may stand on its wrong side: compare with that power.
  const near = (bits + 4096) & 0xfffffffffffff;
  if (near >= 8192) return position;
  const nearest = near < 4096 ? position + 1 : position;
  addMultiple(plan, 1, nearest, true);
  const isBelow = negative;
  addMultiple(plan, 1, nearest, false);
  return isBelow ? nearest - 1 : nearest;
}

/** About |value| / (W·2^position), 0 when that is far below one. */
function ratio(plan: usize, position: i32): f64 {
  const scale = 32 * (top - 2) - position;
  if (top < 0 || scale < -300) return 0;
  return (head() / load<f64>(plan, PLAN_W_INTEGER)) * power(scale);
}

/** Value / (W·2^position) rounded to the nearest integer, ties to even. Value is positive and is lost. */
function divide(plan: usize, position: i32): u64 {
  let q: u64 = 0;
  let r = ratio(plan, position);
  // The estimate is off by less than 2^-49 of itself: away from a half, few digits are certain at once.
  if (r < 4294967296.0 && abs(r - floor(r) - 0.5) > 0.0001) return <u64>(r + 0.5);
  while (r >= 0.75) {
    // Each round leaves at most 2^-50 of the remainder (and half a unit): three rounds for 64 bits.
    const digit = r < 9e18 ? <u64>(r + 0.5) : (<u64>1) << 62;
    const subtract = !negative;
    addMultiple(plan, digit, position, subtract);
    q = subtract ? q + digit : q - digit;
    r = ratio(plan, position);
  }
  if (r < 0.4375) return q;
  // The remainder is near one half of a unit: compare exactly.
  const wasNegative = negative;
  addMultiple(plan, 1, position - 1, !negative);
  const isBeyond = top >= 0 && negative === wasNegative;
  const isTie = top < 0;
  if (isBeyond || (isTie && (q & 1) !== 0)) return wasNegative ? q - 1 : q + 1;
  return q;
}
