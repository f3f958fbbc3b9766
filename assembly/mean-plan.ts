// The plan of a weighted mean: the weightings w, made exact integers once per aggregation.
//
// A mean does not change when all weightings are scaled by one factor. So the plan scales them by a power of two until
// they are integers and divides those by their greatest common divisor: equal weightings become 1, 1, 1 …, also equal
// fractional ones. When the integers and their sum W fit in 53 bits the plan is *narrow*: each is a binary64 number
// and the certificates of the kernels hold. Otherwise it is *wide*: the kernels fold with the weightings as they came,
// and the exact path takes them as m·2^shift, with W in up to six limbs.
//
// Ranges that make everything fit: a weighting in [2^-64, 2^53] is a multiple of 2^-116, and the total is at most
// 2^53 - 1, so 169 bits hold every weighting and W exactly.

import {
  MEAN_NO_INPUT,
  MEAN_OK,
  MEAN_WEIGHTING_INFINITE,
  MEAN_WEIGHTING_NAN,
  MEAN_WEIGHTING_NEGATIVE,
  MEAN_WEIGHTING_RANGE,
  MEAN_WEIGHTING_TOTAL,
} from './abi';

// Offsets in a plan, which is 16-byte aligned.
export const PLAN_K: usize = 0; // u32: inputs
export const PLAN_WIDE: usize = 4; // u32: 1 when wide
export const PLAN_LIMIT32: usize = 8; // u32: certificate A of float32 (mean-float32), 0 = never
export const PLAN_LIMIT64: usize = 12; // u32: certificate A of float64 (mean-float64), 0 = never
const PLAN_TOTAL: usize = 16; // f64: nearest binary64 of the sum of the weightings as they came
export const PLAN_W: usize = 24; // f64: nearest binary64 of the sum of the weights of PLAN_WEIGHTS
export const PLAN_W_REST: usize = 32; // f64: that sum - PLAN_W, 0 when narrow
export const PLAN_W_INTEGER: usize = 40; // f64: nearest binary64 of the integer W of PLAN_LIMBS
export const PLAN_LIMBS: usize = 48; // u32[6]: W, least significant limb first
export const PLAN_LIMB_COUNT: usize = 72; // u32: limbs up to the highest one that is not zero
export const PLAN_BITS: usize = 76; // i32: ceil(log2 W), 64 when wide
export const PLAN_LIMIT_PAIR: usize = 80; // u32: certificate C of float32 (mean-float32), 0 = never
export const PLAN_WEIGHTS: usize = 96; // f64[k]: what the kernels multiply with
// Behind the weights: u64[k] m, u32[k] shift, u32[k] addresses of the tail blocks, then the tail blocks.

/** Bytes of a tail block: what one step of a kernel reads of one input at most. */
export const TAIL_BYTES: usize = 32;

/** Lowest bit of any weighting is 2^-116. */
const UNIT: i32 = -116;

/** Where the array m of a plan begins. */
export function planMantissas(plan: usize): usize {
  return plan + PLAN_WEIGHTS + ((<usize>load<u32>(plan, PLAN_K)) << 3);
}

/** Where the array shift of a plan begins. */
export function planShifts(plan: usize): usize {
  return plan + PLAN_WEIGHTS + ((<usize>load<u32>(plan, PLAN_K)) << 4);
}

/** Where the table of tail blocks of a plan begins. The blocks follow it. */
export function planTails(plan: usize): usize {
  return planShifts(plan) + ((<usize>load<u32>(plan, PLAN_K)) << 2);
}

/** Bytes of a plan for k inputs. */
export function meanPlanBytes(k: u32): usize {
  return PLAN_WEIGHTS + <usize>k * (8 + 8 + 4 + 4 + TAIL_BYTES);
}

/** Nearest binary64 of the exact sum of the weightings as they came. */
export function meanTotal(plan: usize): f64 {
  return load<f64>(plan, PLAN_TOTAL);
}

/**
 * Prepares the weightings w (binary64, k of them) as a plan.
 *
 * Answers a MEAN_ status. When one weighting is to blame, its position stands in the first word of the plan.
 * w is 8-byte aligned, plan 16-byte aligned with meanPlanBytes(k) bytes; they do not overlap.
 */
export function meanPlan(w: usize, k: u32, plan: usize): i32 {
  if (k === 0) return MEAN_NO_INPUT;
  const status = checkWeightings(w, k, plan);
  if (status !== MEAN_OK) return status;
  store<u32>(plan, k, PLAN_K);

  // The exact sum in units of 2^-116, and the lowest bit that any weighting has.
  const limbs = plan + PLAN_LIMBS;
  memory.fill(limbs, 0, 24);
  let lowest: i32 = 64;
  for (let i: u32 = 0; i < k; i++) {
    const x = load<f64>(w + ((<usize>i) << 3));
    const e = exponent(x);
    lowest = min(lowest, e + <i32>ctz(mantissa(x)));
    addShifted(limbs, mantissa(x), e - UNIT);
  }
  if (isAboveLimit(limbs)) return MEAN_WEIGHTING_TOTAL;
  shiftRight(limbs, lowest - UNIT);
  const integer = nearest(limbs);
  const total = integer * power(lowest);
  store<f64>(plan, total, PLAN_TOTAL);
  storeTails(plan, k);

  if (narrow(w, k, plan, lowest)) return MEAN_OK;

  // Wide: m·2^shift in units of the lowest bit.
  const m = planMantissas(plan);
  const shifts = planShifts(plan);
  for (let i: u32 = 0; i < k; i++) {
    const x = load<f64>(w + ((<usize>i) << 3));
    const zeros = <i32>ctz(mantissa(x));
    store<f64>(plan + ((<usize>i) << 3), x, PLAN_WEIGHTS);
    store<u64>(m + ((<usize>i) << 3), mantissa(x) >> zeros);
    store<u32>(shifts + ((<usize>i) << 2), exponent(x) + zeros - lowest);
  }
  store<u32>(plan, 1, PLAN_WIDE);
  store<f64>(plan, total, PLAN_W);
  store<f64>(plan, integer, PLAN_W_INTEGER);
  store<u32>(plan, 0, PLAN_LIMIT32);
  store<u32>(plan, 0, PLAN_LIMIT64);
  store<i32>(plan, 64, PLAN_BITS);
  store<u32>(plan, 0, PLAN_LIMIT_PAIR);
  countLimbs(plan);
  store<f64>(plan, rest(w, k, total), PLAN_W_REST);
  return MEAN_OK;
}

function checkWeightings(w: usize, k: u32, plan: usize): i32 {
  for (let i: u32 = 0; i < k; i++) {
    const x = load<f64>(w + ((<usize>i) << 3));
    let status = MEAN_OK;
    if (reinterpret<u64>(x) << 1 > 0xffe0000000000000) status = MEAN_WEIGHTING_NAN;
    else if (abs(x) === Infinity) status = MEAN_WEIGHTING_INFINITE;
    else if (x < 0) status = MEAN_WEIGHTING_NEGATIVE;
    else if (x < power(-64) || x > power(53)) status = MEAN_WEIGHTING_RANGE;
    if (status !== MEAN_OK) {
      store<u32>(plan, i);
      return status;
    }
  }
  return MEAN_OK;
}

/** Completes a narrow plan; false when the integers are too wide. */
function narrow(w: usize, k: u32, plan: usize, lowest: i32): bool {
  const m = planMantissas(plan);
  const shifts = planShifts(plan);
  let divisor: u64 = 0;
  for (let i: u32 = 0; i < k; i++) {
    const x = load<f64>(w + ((<usize>i) << 3));
    const zeros = ctz(mantissa(x));
    const odd = mantissa(x) >> zeros;
    const shift = exponent(x) + <i32>zeros - lowest;
    if (shift + 64 - <i32>clz(odd) > 53) return false;
    const integer = odd << shift;
    store<u64>(m + ((<usize>i) << 3), integer);
    let a = integer;
    while (divisor !== 0) {
      const remainder = a % divisor;
      a = divisor;
      divisor = remainder;
    }
    divisor = a;
  }
  let sum: u64 = 0;
  for (let i: u32 = 0; i < k; i++) {
    const integer = load<u64>(m + ((<usize>i) << 3)) / divisor;
    sum += integer;
    if (sum > 1 << 53) return false;
    store<u64>(m + ((<usize>i) << 3), integer);
    store<u32>(shifts + ((<usize>i) << 2), 0);
    store<f64>(plan + ((<usize>i) << 3), <f64>integer, PLAN_WEIGHTS);
  }
  const bits = 64 - <i32>clz(sum - 1); // ceil(log2 W), 0 for W = 1
  store<u32>(plan, 0, PLAN_WIDE);
  store<u32>(plan, bits <= 28 ? (29 - bits) << 24 : 0, PLAN_LIMIT32);
  store<u32>(plan, bits <= 25 && k <= 65536 ? (26 - bits) << 21 : 0, PLAN_LIMIT64);
  store<i32>(plan, bits, PLAN_BITS);
  // 81 less the bits of K, ceil(log2 K) or one more; positive for any K.
  store<u32>(plan, bits <= 28 ? (81 - bits - (32 - <i32>clz(k))) << 24 : 0, PLAN_LIMIT_PAIR);
  store<f64>(plan, <f64>sum, PLAN_W);
  store<f64>(plan, 0, PLAN_W_REST);
  store<f64>(plan, <f64>sum, PLAN_W_INTEGER);
  memory.fill(plan + PLAN_LIMBS, 0, 24);
  store<u64>(plan, sum, PLAN_LIMBS);
  countLimbs(plan);
  return true;
}

function storeTails(plan: usize, k: u32): void {
  const table = planTails(plan);
  const blocks = table + ((<usize>k) << 2);
  for (let i: u32 = 0; i < k; i++) store<u32>(table + ((<usize>i) << 2), <u32>blocks + i * <u32>TAIL_BYTES);
}

export function countLimbs(plan: usize): void {
  let count = 6;
  while (load<u32>(plan + PLAN_LIMBS + ((<usize>(count - 1)) << 2)) === 0) count--;
  store<u32>(plan, count, PLAN_LIMB_COUNT);
}

// A weighting is normal, so x = mantissa·2^exponent with 53 bits.

function mantissa(x: f64): u64 {
  return (reinterpret<u64>(x) & 0xfffffffffffff) | 0x10000000000000;
}

function exponent(x: f64): i32 {
  return <i32>(reinterpret<u64>(x) >> 52) - 1075;
}

/** 2^e for a normal result. */
export function power(e: i32): f64 {
  return reinterpret<f64>((<u64>(e + 1023)) << 52);
}

/** limbs += x·2^shift; the sum fits. */
function addShifted(limbs: usize, x: u64, shift: i32): void {
  let p = limbs + ((<usize>(shift >> 5)) << 2);
  const s = <u64>(shift & 31);
  let carry: u64 = 0;
  let low = (x & 0xffffffff) << s;
  let high = (x >> 32) << s;
  high += low >> 32;
  low &= 0xffffffff;
  const end = limbs + 24;
  for (; p < end; p += 4) {
    carry += <u64>load<u32>(p) + low;
    store<u32>(p, <u32>carry);
    carry >>= 32;
    low = high & 0xffffffff;
    high >>= 32;
  }
}

/** Whether limbs, in units of 2^-116, are above 2^53 - 1, which is bits 116 to 168 set. */
function isAboveLimit(limbs: usize): bool {
  const high = (load<u64>(limbs, 12) >> 20) | ((<u64>load<u32>(limbs, 20)) << 44);
  if (high !== (1 << 53) - 1) return high >= 1 << 53;
  return (load<u64>(limbs) | load<u32>(limbs, 8) | (load<u32>(limbs, 12) & 0xfffff)) !== 0;
}

/** limbs >>= shift; no bit that is set gets lost. */
export function shiftRight(limbs: usize, shift: i32): void {
  const skip = (<usize>(shift >> 5)) << 2;
  for (let at: usize = 0; at < 24; at += 4) {
    const from = at + skip;
    const low = from < 24 ? <u64>load<u32>(limbs + from) : 0;
    const high = from < 20 ? <u64>load<u32>(limbs + from, 4) : 0;
    store<u32>(limbs + at, <u32>((low | (high << 32)) >> (shift & 31)));
  }
}

/** Nearest binary64 of limbs, ties to even. */
export function nearest(limbs: usize): f64 {
  let top: i32 = 5;
  while (top > 1 && load<u32>(limbs + ((<usize>top) << 2)) === 0) top--;
  // The three highest limbs as 64 bits that begin with a 1 (unless all is in 64 bits), the rest as a sticky bit.
  let high = load<u64>(limbs + ((<usize>(top - 1)) << 2));
  if (top === 1) return <f64>high;
  const next = load<u32>(limbs + ((<usize>(top - 2)) << 2));
  const shift = clz(high);
  let sticky = ((<u64>next) << shift) & 0xffffffff;
  high = (high << shift) | (((<u64>next) << shift) >> 32);
  for (let i = top - 3; i >= 0; i--) sticky |= load<u32>(limbs + ((<usize>i) << 2));
  if (sticky !== 0) high |= 1;
  return <f64>high * power(32 * (top - 1) - <i32>shift);
}

/** The sum of the weightings - total, with an error below k²·2^-106·total, which is far below what mean-float64 allows. */
function rest(w: usize, k: u32, total: f64): f64 {
  let sum = 0.0;
  let errors = 0.0;
  for (let i: u32 = 0; i < k; i++) {
    const x = load<f64>(w + ((<usize>i) << 3));
    const next = sum + x;
    const part = next - sum;
    errors += sum - (next - part) + (x - part); // TwoSum (Knuth): exact
    sum = next;
  }
  return sum - total + errors;
}
