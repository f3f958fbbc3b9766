// Weighted mean of float32 blocks, exact and rounded once, ties to even.
//
//   for each element: out = (w_0·x_0 + w_1·x_1 + …) / W
//
// The fold is plain binary64 in registers. What makes it exact is what it proves along the way, per element:
//
// A. The fold was exact. Integer SIMD keeps the largest and the smallest magnitude as t = bits << 1 and t - 1. The minus
//    one turns a zero into the largest unsigned number, so zeros do not count as small. If the exponents lie within
//    L = 29 - ceil(log2 W) of each other, every product is a multiple of one quantum and no partial sum needs more than
//    53 bits: 24 of an element, L of the spread, log2 W of the weights. Then S is exact, and demote(S / W) rounds as if
//    once: a float32 midpoint m has 25 bits and m·W at most 53, so an S that is not m·W differs from it by a unit in the
//    last place of S, and S / W cannot be rounded onto m. (W <= 2^28 is necessary: with 30 bits 20 % go wrong.)
// B. The rounding was certain. Error of the fold and the division <= (K + 3)·2^-53·max|x|, weights being positive; if
//    both ends of q ± d demote to the same bits (bits, because -0 is not +0), the exact mean does too. Holds for any
//    weights: it covers the rounding of the products, of the sum, of W, of the division and of q ± d. A reciprocal of W in
//    place of the division is one rounding more: K + 4.
//
// A costs something for each input, B for each result, and B never holds for a mean halfway between two numbers, which
// about one in W is. So A comes first where inputs are few or W is small, and B alone does for most others.
//
// What neither proves goes on element by element:
//
// C. The sum was exact in two numbers. TwoSum (Knuth) gives the error of each addition, a multiple of the quantum
//    2^(emin - 23) below 2^-53·W·2^(emax + 1), so with W <= 2^28 and exponents within 82 - log2 W - log2 K of each other
//    their plain sum is exact as well.
//
// Everything else is done by mean-exact.
//
// The fold begins at -0, so a zero is -0 only if every element was -0, whatever the order. Under A divide: multiplying by
// the reciprocal would round twice.

import { DTYPE_FLOAT32 } from './abi';
import { exactMean } from './mean-exact';
import { PLAN_K, PLAN_LIMIT_PAIR, PLAN_LIMIT32, PLAN_W, PLAN_WEIGHTS } from './mean-plan';

/** Elements of a step. Two registers of sums, one of maxima and one of minima per four; sixteen would spill. */
const STEP: u32 = 8;

/** The error of certificate B for each of K + 3, relative to max|x|: 2^-53 and one per cent. */
const RELATIVE: f64 = 1.1102230246251565e-16 * 1.01;

/** Certificate B comes first from so many inputs on, and from such a W on: fewer than one step in thirty has a tie then. */
const CERTAIN_INPUTS: u32 = 8;
const CERTAIN_TOTAL: f64 = 256;

/** 2^-50, four to eight units in the last place of a binary64 number near one. */
const EIGHT_ULPS: f64 = 8.881784197001252e-16;

/**
 * Folds n elements, a multiple of 8; blocks and out have any alignment. Answers false when a NaN or infinity was seen:
 * elements that have one are undefined then.
 */
export function meanFloat32(plan: usize, inputs: usize, n: u32, out: usize): bool {
  if (!ASC_FEATURE_SIMD) return foldOneByOne(plan, inputs, n, out);
  const isCertain = load<u32>(plan, PLAN_K) >= CERTAIN_INPUTS && load<f64>(plan, PLAN_W) >= CERTAIN_TOTAL;
  // Where the limit is 0, A never holds.
  if (isCertain || load<u32>(plan, PLAN_LIMIT32) === 0) return foldCertain(plan, inputs, n, out);
  return foldExact(plan, inputs, n, out);
}

/** The same without vectors: the certificates are those of the text, the result is the exact one, so the bits are equal. */
function foldOneByOne(plan: usize, inputs: usize, n: u32, out: usize): bool {
  const k = <usize>load<u32>(plan, PLAN_K);
  const total = load<f64>(plan, PLAN_W);
  const limit = load<u32>(plan, PLAN_LIMIT32);
  const pair = load<u32>(plan, PLAN_LIMIT_PAIR);
  const c = <f64>(k + 3) * RELATIVE;
  let seen: u32 = 0;
  for (let at: usize = 0, end = (<usize>n) << 2; at < end; at += 4) {
    let a = -0.0;
    let mx: u32 = 0;
    let mn: u32 = 0xffffffff;
    for (let j: usize = 0; j < k; j++) {
      const x = load<f32>(<usize>load<u32>(inputs + (j << 2)) + at);
      const t = reinterpret<u32>(x) << 1;
      a += load<f64>(plan + (j << 3), PLAN_WEIGHTS) * <f64>x;
      mx = max(mx, t);
      mn = min(mn, t - 1);
    }
    const q = a / total;
    store<f32>(out + at, <f32>q);
    seen = max(seen, mx);
    if (mx - mn < limit || mx === 0) continue;
    const d = c * <f64>reinterpret<f32>(mx >> 1);
    if (reinterpret<u32>(<f32>(q - d)) === reinterpret<u32>(<f32>(q + d))) continue;
    const bits =
      mx - mn < pair ? meanOfPair(plan, inputs, at) : <u32>exactMean(DTYPE_FLOAT32, plan, inputs, at);
    store<u32>(out + at, bits);
  }
  return seen < 0xff000000;
}

/** Certificate A, and B for what it leaves open. */
function foldExact(plan: usize, inputs: usize, n: u32, out: usize): bool {
  const k = load<u32>(plan, PLAN_K);
  const total = f64x2.splat(load<f64>(plan, PLAN_W));
  const limit = i32x4.splat(load<u32>(plan, PLAN_LIMIT32));
  const weights = plan + PLAN_WEIGHTS;
  const weightsEnd = weights + ((<usize>k) << 3);
  const end = (<usize>n) << 2;
  let seen = i32x4.splat(0);
  for (let at: usize = 0; at < end; at += STEP << 2) {
    let a0 = f64x2.splat(-0.0);
    let a1 = a0;
    let a2 = a0;
    let a3 = a0;
    let mx0 = i32x4.splat(0);
    let mx1 = mx0;
    let mn0 = i32x4.splat(-1);
    let mn1 = mn0;
    let input = inputs;
    for (let w = weights; w < weightsEnd; w += 8) {
      const p = <usize>load<u32>(input) + at;
      input += 4;
      const wj = v128.load64_splat(w);
      const x0 = v128.load(p);
      const x1 = v128.load(p, 16);
      a0 = f64x2.add(a0, f64x2.mul(wj, f64x2.promote_low_f32x4(v128.load64_zero(p))));
      a1 = f64x2.add(a1, f64x2.mul(wj, f64x2.promote_low_f32x4(v128.load64_zero(p, 8))));
      a2 = f64x2.add(a2, f64x2.mul(wj, f64x2.promote_low_f32x4(v128.load64_zero(p, 16))));
      a3 = f64x2.add(a3, f64x2.mul(wj, f64x2.promote_low_f32x4(v128.load64_zero(p, 24))));
      const t0 = i32x4.shl(x0, 1);
      const t1 = i32x4.shl(x1, 1);
      mx0 = i32x4.max_u(mx0, t0);
      mx1 = i32x4.max_u(mx1, t1);
      mn0 = i32x4.min_u(mn0, i32x4.sub(t0, i32x4.splat(1)));
      mn1 = i32x4.min_u(mn1, i32x4.sub(t1, i32x4.splat(1)));
    }
    v128.store(out, demote(f64x2.div(a0, total), f64x2.div(a1, total)));
    v128.store(out, demote(f64x2.div(a2, total), f64x2.div(a3, total)), 16);
    seen = i32x4.max_u(seen, i32x4.max_u(mx0, mx1));
    const sure0 = i32x4.lt_u(i32x4.sub(mx0, mn0), limit);
    const sure1 = i32x4.lt_u(i32x4.sub(mx1, mn1), limit);
    if (!i32x4.all_true(v128.and(sure0, sure1))) {
      settle(plan, inputs, at, out, a0, a1);
      settle(plan, inputs, at + 16, out + 16, a2, a3);
    }
    out += STEP << 2;
  }
  return !v128.any_true(i32x4.ge_u(seen, i32x4.splat(0xff000000)));
}

/** Certificate B without a division, and all of them for what it leaves open. */
function foldCertain(plan: usize, inputs: usize, n: u32, out: usize): bool {
  const k = load<u32>(plan, PLAN_K);
  const total = load<f64>(plan, PLAN_W);
  const reciprocal = f64x2.splat(1 / total);
  const c = f64x2.splat(<f64>(k + 4) * RELATIVE);
  const weights = plan + PLAN_WEIGHTS;
  const weightsEnd = weights + ((<usize>k) << 3);
  const end = (<usize>n) << 2;
  let seen = i32x4.splat(0);
  for (let at: usize = 0; at < end; at += STEP << 2) {
    let a0 = f64x2.splat(-0.0);
    let a1 = a0;
    let a2 = a0;
    let a3 = a0;
    let mx0 = i32x4.splat(0);
    let mx1 = mx0;
    let input = inputs;
    for (let w = weights; w < weightsEnd; w += 8) {
      const p = <usize>load<u32>(input) + at;
      input += 4;
      const wj = v128.load64_splat(w);
      a0 = f64x2.add(a0, f64x2.mul(wj, f64x2.promote_low_f32x4(v128.load64_zero(p))));
      a1 = f64x2.add(a1, f64x2.mul(wj, f64x2.promote_low_f32x4(v128.load64_zero(p, 8))));
      a2 = f64x2.add(a2, f64x2.mul(wj, f64x2.promote_low_f32x4(v128.load64_zero(p, 16))));
      a3 = f64x2.add(a3, f64x2.mul(wj, f64x2.promote_low_f32x4(v128.load64_zero(p, 24))));
      mx0 = i32x4.max_u(mx0, i32x4.shl(v128.load(p), 1));
      mx1 = i32x4.max_u(mx1, i32x4.shl(v128.load(p, 16), 1));
    }
    seen = i32x4.max_u(seen, i32x4.max_u(mx0, mx1));
    mx0 = i32x4.shr_u(mx0, 1);
    mx1 = i32x4.shr_u(mx1, 1);
    const d0 = f64x2.mul(c, f64x2.promote_low_f32x4(mx0));
    const d1 = f64x2.mul(c, f64x2.promote_low_f32x4(i64x2.shuffle(mx0, mx0, 1, 1)));
    const d2 = f64x2.mul(c, f64x2.promote_low_f32x4(mx1));
    const d3 = f64x2.mul(c, f64x2.promote_low_f32x4(i64x2.shuffle(mx1, mx1, 1, 1)));
    const q0 = f64x2.mul(a0, reciprocal);
    const q1 = f64x2.mul(a1, reciprocal);
    const q2 = f64x2.mul(a2, reciprocal);
    const q3 = f64x2.mul(a3, reciprocal);
    const below0 = demote(f64x2.sub(q0, d0), f64x2.sub(q1, d1));
    const below1 = demote(f64x2.sub(q2, d2), f64x2.sub(q3, d3));
    v128.store(out, below0);
    v128.store(out, below1, 16);
    const sure0 = i32x4.eq(below0, demote(f64x2.add(q0, d0), f64x2.add(q1, d1)));
    const sure1 = i32x4.eq(below1, demote(f64x2.add(q2, d2), f64x2.add(q3, d3)));
    if (!i32x4.all_true(v128.and(sure0, sure1))) {
      settle(plan, inputs, at, out, a0, a1);
      settle(plan, inputs, at + 16, out + 16, a2, a3);
    }
    out += STEP << 2;
  }
  return !v128.any_true(i32x4.ge_u(seen, i32x4.splat(0xff000000)));
}

function demote(low: v128, high: v128): v128 {
  return i64x2.shuffle(f32x4.demote_f64x2_zero(low), f32x4.demote_f64x2_zero(high), 0, 2);
}

/** Four elements with sums a once more, by all certificates. */
function settle(plan: usize, inputs: usize, at: usize, out: usize, aLow: v128, aHigh: v128): void {
  let mx = i32x4.splat(0);
  let mn = i32x4.splat(-1);
  for (let j: usize = 0, k = <usize>load<u32>(plan, PLAN_K); j < k; j++) {
    const t = i32x4.shl(v128.load(<usize>load<u32>(inputs + (j << 2)) + at), 1);
    mx = i32x4.max_u(mx, t);
    mn = i32x4.min_u(mn, i32x4.sub(t, i32x4.splat(1)));
  }
  const total = v128.load64_splat(plan, PLAN_W);
  const qLow = f64x2.div(aLow, total);
  const qHigh = f64x2.div(aHigh, total);
  v128.store(out, demote(qLow, qHigh));
  const c = f64x2.splat(<f64>(load<u32>(plan, PLAN_K) + 3) * RELATIVE);
  const x = i32x4.shr_u(mx, 1);
  const dLow = f64x2.mul(c, f64x2.promote_low_f32x4(x));
  const dHigh = f64x2.mul(c, f64x2.promote_low_f32x4(i64x2.shuffle(x, x, 1, 1)));
  const below = demote(f64x2.sub(qLow, dLow), f64x2.sub(qHigh, dHigh));
  const above = demote(f64x2.add(qLow, dLow), f64x2.add(qHigh, dHigh));
  const spread = i32x4.sub(mx, mn);
  const sure = i32x4.lt_u(spread, v128.load32_splat(plan, PLAN_LIMIT32));
  // An element whose inputs are all zero has d = 0 and ends of both signs; its quotient is right.
  const certain = v128.or(v128.or(sure, i32x4.eq(below, above)), i32x4.eq(mx, i32x4.splat(0)));
  const pairs = i32x4.bitmask(i32x4.lt_u(spread, v128.load32_splat(plan, PLAN_LIMIT_PAIR)));
  let open = ~i32x4.bitmask(certain) & 15;
  while (open !== 0) {
    const lane = ctz(open);
    const from = at + ((<usize>lane) << 2);
    store<u32>(
      out + ((<usize>lane) << 2),
      (pairs >> lane) & 1
        ? meanOfPair(plan, inputs, from)
        : <u32>exactMean(DTYPE_FLOAT32, plan, inputs, from),
    );
    open &= open - 1;
  }
}

/** The bits of one element under certificate C. */
function meanOfPair(plan: usize, inputs: usize, at: usize): u32 {
  let s = -0.0;
  let e = 0.0;
  for (let j: usize = 0, k = <usize>load<u32>(plan, PLAN_K); j < k; j++) {
    const p =
      load<f64>(plan + (j << 3), PLAN_WEIGHTS) * <f64>load<f32>(<usize>load<u32>(inputs + (j << 2)) + at);
    const next = s + p;
    const part = next - s;
    e += s - (next - part) + (p - part);
    s = next;
  }
  const h = s + e;
  const part = h - s;
  const l = s - (h - part) + (e - part); // S = h + l, exactly
  const total = load<f64>(plan, PLAN_W);
  const q = h / total;
  // S / W is within two units in the last place of q. Both ends alike, or the midpoint between them decides.
  const a = <f32>(q * (1.0 - EIGHT_ULPS));
  const b = <f32>(q * (1.0 + EIGHT_ULPS));
  if (a === b) return reinterpret<u32>(b);
  const midpoint = (<f64>a + <f64>b) * 0.5;
  // Exact: 25 and 28 bits; then a difference of two numbers so close; then one rounding, which keeps the sign.
  const beside = h - midpoint * total + l;
  if (beside === 0) return reinterpret<u32>(reinterpret<u32>(a) & 1 ? b : a);
  return reinterpret<u32>(beside > 0 ? max(a, b) : min(a, b));
}
