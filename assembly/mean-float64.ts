// Weighted mean of float64 blocks, exact and rounded once, ties to even.
//
//   for each element: out = (w_0·x_0 + w_1·x_1 + …) / W
//
// Products need up to 106 bits, so the sum stands in two numbers, s + e. Elements and weights are split by a mask,
// x = xh + xl with 27 + 26 bits, w = wh + wl with 26 + 27. wh·xh is exact in 53 bits and is added to s by TwoSum (Knuth),
// whose error, again exact, goes to e; so do the small products wh·xl + wl·x, in plain arithmetic. Then
//
//   h + l = s + e by TwoSum, q = h / W, r = h - q·W + l, out = q + r / W.
//
// Integer SIMD keeps the largest and the smallest magnitude of an element as in mean-float32, by their upper 32 bits.
//
// A. Nothing was rounded. With W <= 2^25 (so wl = 0) and exponents within L = 26 - ceil(log2 W) of each other, every term
//    of e is a multiple of the quantum g = 2^(emin - 52) and below W·2^(emax - 26)·(1 + K·2^-26) in sum, that is at most
//    2^53·g: e is exact. h - q·W is a remainder of a division, exact, and r, a multiple of min(g, ulp(q)) below
//    1.5·W·ulp(q), is exact too. r / W is rounded, but it lies on the same side of a boundary c·2^j (c = 1, 3: where q + y
//    changes its rounding) as before: c·W·2^j is a binary64 number, so an r that differs from it does so by at least
//    2^-53 of it, more than half of what separates binary64 numbers there. So the last addition rounds the exact mean.
// B. The rounding was certain. Everything that may have been rounded above, with fractional weights and the rest of W
//    that PLAN_W does not hold, amounts to at most d = (K + 16)·2^-77·max|x| in the result; if q + (r/W - d) and
//    q + (r/W + d) have the same bits, the exact mean rounds to them too. The sum of all terms of e is below
//    W·max|x|·2^-24, each of 4 + K roundings costs 2^-53 of it; q·W costs three roundings of that size.
//
// Both need max|x| within [2^-700, 2^900): nothing overflows, and with A's spread or B's certainty nothing that matters
// underflows. What neither proves goes to mean-exact, element by element.

import { DTYPE_FLOAT64 } from './abi';
import { exactMean } from './mean-exact';
import { PLAN_K, PLAN_LIMIT64, PLAN_W, PLAN_W_REST, PLAN_WEIGHTS } from './mean-plan';

/** Elements of a step: one register. The weights are split again for each, but two registers were slower. */
const STEP: u32 = 2;

/** The error of certificate B for each of K + 16, relative to max|x|: 2^-77 and more than one per cent. */
const RELATIVE: f64 = 6.69e-24;

/** Keeps 27 bits of a significand, its hidden one counted. */
const HIGH27: i64 = ~0x3ffffff;
/** Keeps 26 bits. */
const HIGH26: i64 = ~0x7ffffff;

// Upper halves of bits << 1 of 2^-700 and 2^900.
const SMALLEST: u32 = (1023 - 700) << 21;
const LARGEST: u32 = (1023 + 900) << 21;

/**
 * Folds n elements, a multiple of 2; blocks and out have any alignment. Answers false when a NaN or infinity was seen:
 * elements that have one are undefined then.
 */
export function meanFloat64(plan: usize, inputs: usize, n: u32, out: usize): bool {
  if (ASC_FEATURE_SIMD) return foldVectors(plan, inputs, n, out);
  else return foldOneByOne(plan, inputs, n, out);
}

/** The same without vectors: the certificates are those of the text, the result is the exact one, so the bits are equal. */
function foldOneByOne(plan: usize, inputs: usize, n: u32, out: usize): bool {
  const k = <usize>load<u32>(plan, PLAN_K);
  const total = load<f64>(plan, PLAN_W);
  const totalHigh = keep(total, HIGH26);
  const totalLow = total - totalHigh;
  const totalRest = load<f64>(plan, PLAN_W_REST);
  const limit = load<u32>(plan, PLAN_LIMIT64);
  const c = <f64>(k + 16) * RELATIVE;
  let seen: u64 = 0;
  for (let at: usize = 0, end = (<usize>n) << 3; at < end; at += 8) {
    let s = -0.0;
    let e = s;
    let mx: u64 = 0;
    let mn: u64 = -1;
    for (let j: usize = 0; j < k; j++) {
      const w = load<f64>(plan + (j << 3), PLAN_WEIGHTS);
      const wh = keep(w, HIGH26);
      const x = load<f64>(<usize>load<u32>(inputs + (j << 2)) + at);
      const xh = keep(x, HIGH27);
      const small = w * (x - xh) + (w - wh) * xh;
      const high = wh * xh;
      const next = s + high;
      const part = next - s;
      e += s - (next - part) + (high - part) + small;
      s = next;
      const t = reinterpret<u64>(x) << 1;
      mx = max(mx, t);
      mn = min(mn, t - 1);
    }
    seen = max(seen, mx);
    if (mx === 0) {
      store<f64>(out + at, s);
      continue;
    }
    const h = s + e;
    const part = h - s;
    const q = h / total;
    const qh = keep(q, HIGH27);
    const l = s - (h - part) + (e - part) - q * totalRest;
    const r = h - qh * totalHigh - (qh * totalLow + (q - qh) * total) + l;
    const y = r / total;
    const upper = <u32>(mx >> 32);
    if (upper - SMALLEST < LARGEST - SMALLEST) {
      const d = c * reinterpret<f64>((mx | 0xffffffff) >> 1);
      const low = reinterpret<u64>(q + (y - d));
      if (upper - <u32>(mn >> 32) < limit || low === reinterpret<u64>(q + (y + d))) {
        store<f64>(out + at, q + y);
        continue;
      }
    }
    store<u64>(out + at, exactMean(DTYPE_FLOAT64, plan, inputs, at));
  }
  return seen < 0xffe0000000000000;
}

/** What is left of x under a mask of its bits. */
function keep(x: f64, mask: i64): f64 {
  return reinterpret<f64>(reinterpret<i64>(x) & mask);
}

function foldVectors(plan: usize, inputs: usize, n: u32, out: usize): bool {
  const k = load<u32>(plan, PLAN_K);
  const weights = plan + PLAN_WEIGHTS;
  const weightsEnd = weights + ((<usize>k) << 3);
  const end = (<usize>n) << 3;
  const total = v128.load64_splat(plan, PLAN_W);
  const totalHigh = v128.and(total, i64x2.splat(HIGH26));
  const totalLow = f64x2.sub(total, totalHigh);
  const totalRest = v128.load64_splat(plan, PLAN_W_REST);
  const limit = v128.load32_splat(plan, PLAN_LIMIT64);
  let seen = i32x4.splat(0);
  for (let at: usize = 0; at < end; at += STEP << 3) {
    let s = f64x2.splat(-0.0);
    let e = s;
    let mx = i32x4.splat(0);
    let mn = i32x4.splat(-1);
    let input = inputs;
    for (let w = weights; w < weightsEnd; w += 8) {
      const p = <usize>load<u32>(input) + at;
      input += 4;
      const wj = v128.load64_splat(w);
      const wh = v128.and(wj, i64x2.splat(HIGH26));
      const wl = f64x2.sub(wj, wh);
      const x = v128.load(p);
      const xh = v128.and(x, i64x2.splat(HIGH27));
      const small = f64x2.add(f64x2.mul(wj, f64x2.sub(x, xh)), f64x2.mul(wl, xh));
      const high = f64x2.mul(wh, xh);
      const next = f64x2.add(s, high);
      const part = f64x2.sub(next, s);
      const error = f64x2.add(f64x2.sub(s, f64x2.sub(next, part)), f64x2.sub(high, part));
      s = next;
      e = f64x2.add(e, f64x2.add(error, small));
      const t = i64x2.shl(x, 1);
      mx = i32x4.max_u(mx, t);
      mn = i32x4.min_u(mn, i64x2.sub(t, i64x2.splat(1)));
    }
    const h = f64x2.add(s, e);
    const part = f64x2.sub(h, s);
    let l = f64x2.add(f64x2.sub(s, f64x2.sub(h, part)), f64x2.sub(e, part));
    const q = f64x2.div(h, total);
    l = f64x2.sub(l, f64x2.mul(q, totalRest));
    const qh = v128.and(q, i64x2.splat(HIGH27));
    const cross = f64x2.add(f64x2.mul(qh, totalLow), f64x2.mul(f64x2.sub(q, qh), total));
    const r = f64x2.add(f64x2.sub(f64x2.sub(h, f64x2.mul(qh, totalHigh)), cross), l);
    const y = f64x2.div(r, total);
    v128.store(out, f64x2.add(q, y));
    // Upper halves only, copied over the lower ones.
    const high = i32x4.shuffle(mx, mx, 1, 1, 3, 3);
    const spread = i32x4.sub(high, i32x4.shuffle(mn, mn, 1, 1, 3, 3));
    const inRange = i32x4.lt_u(i32x4.sub(high, i32x4.splat(SMALLEST)), i32x4.splat(LARGEST - SMALLEST));
    const sure = v128.and(inRange, i32x4.lt_u(spread, limit));
    if (!i32x4.all_true(sure)) settle(plan, inputs, at, out, s, q, y, mx, mn, inRange, sure);
    seen = i32x4.max_u(seen, mx);
    out += STEP << 3;
  }
  const nonFinite = i32x4.ge_u(seen, i32x4.splat(0xffe00000));
  return !v128.any_true(v128.and(nonFinite, i64x2.splat(0xffffffff00000000)));
}

/** Certificate B for two elements with quotients q + y; what it leaves open, and A did, is done again. */
function settle(
  plan: usize,
  inputs: usize,
  at: usize,
  out: usize,
  s: v128,
  q: v128,
  y: v128,
  mx: v128,
  mn: v128,
  inRange: v128,
  sure: v128,
): void {
  // An upper bound of max|x|, whose lower half is not known.
  const bound = i64x2.shr_u(v128.or(mx, i64x2.splat(0xffffffff)), 1);
  const c = f64x2.splat(<f64>(load<u32>(plan, PLAN_K) + 16) * RELATIVE);
  const d = f64x2.mul(c, bound);
  const certain = i64x2.eq(f64x2.add(q, f64x2.sub(y, d)), f64x2.add(q, f64x2.add(y, d)));
  // All inputs zero: every t - 1 was all ones. Then s is the sum with the right sign.
  const isZero = i64x2.eq(mn, i64x2.splat(-1));
  v128.store(out, v128.bitselect(s, f64x2.add(q, y), isZero));
  let open = ~i64x2.bitmask(v128.or(v128.or(sure, isZero), v128.and(inRange, certain))) & 3;
  while (open !== 0) {
    const lane = (<usize>ctz(open)) << 3;
    store<u64>(out + lane, exactMean(DTYPE_FLOAT64, plan, inputs, at + lane));
    open &= open - 1;
  }
}
