// Exact sums of K inputs: Σ w_j·x_j for each element, as the nearest binary64 and what that leaves over (partial-block).
//
// An input is the elements of a leaf with its weighting, or a partial sum with the weight 1 (added) or -1 (taken out). So
// one kernel makes partial sums, merges them, and mixes both. What comes out depends on the exact sums alone, not on how
// they were put together: a tree of branches gives the bytes of one flat branch.
//
// As in mean-float32, a fold in binary64 proves along the way that it was exact:
//
// A. Leaves only, weightings and elements of few bits. With the exponents of the elements of one place within `limit` =
//    53 - (bits of an element) - ceil(log2 of the sum of the weightings in units of their lowest bit) of each other, every
//    product and every partial sum is a multiple of one quantum and has at most 53 bits.
// B. The sum in two numbers was exact. Products are split so that each part is exact: a weighting into 26 + 27 bits, an
//    element of more than 26 bits into 26 + 26 with a sign (Veltkamp). TwoSum (Knuth) adds them to s, and its errors, by
//    another TwoSum, to e. If no error of the second one was other than zero, S = s + e.
//
// C. Partial sums alone, and no residues of the element: where no TwoSum has an error, S = s.
//
// Everything else is added in integers (partial-exact).

import {
  DTYPE_INT64,
  DTYPE_UINT64,
  PARTIAL_BLOCK,
  PARTIAL_INPUT_BYTES,
  PARTIAL_IS_SUM,
  PARTIAL_LEAVES,
  PARTIAL_MISMATCH,
  PARTIAL_NON_FINITE,
  PARTIAL_RANGE,
  PARTIAL_VALUES,
  PARTIAL_WEIGHT,
} from './abi';
import {
  addResidue,
  arrayOf,
  closeResidues,
  indexOf,
  KIND_LOW,
  KIND_PART,
  KIND_ZEROS,
  kindOf,
  LOW_SCALE,
  listedFrom,
  listLength,
  openResidues,
  placesOf,
  valuesOf,
} from './partial-block';
import { addSpanned, firstPart, openSpan, openSum, spanProduct, takeParts } from './partial-exact';
import { widen } from './widen';

// What the fold keeps in an input's record.
/** u32: the next part of the list, and the one behind those of the element at hand. */
const NEXT: usize = 28;
const AFTER: usize = 32;

/** Keeps 26 bits of a significand, its hidden one counted. */
const HIGH26: u64 = ~0x7ffffff;

/** 2^27 + 1. */
const SPLITTER: f64 = 134217729.0;

/** Bits of magnitude << 1 of infinity. */
const INFINITE: u64 = 0xffe0000000000000;

const MINUS_ZERO: u64 = 0x8000000000000000;

// Elements of more than 26 bits within these bounds have products of parts that neither overflow nor underflow.
const LEAST: f64 = 1.90109156629516e-211; // 2^-700
const MOST: f64 = 8.452712498170644e270; // 2^900

/**
 * Elements of a dtype (not complex) as binary64 terms, exactly: n numbers at `to`; of a 64-bit integer its upper half there
 * and its lower half in n numbers more behind them, both of the same weighting.
 */
export function partialTerms(dtype: u32, from: usize, n: u32, to: usize): void {
  if (dtype !== DTYPE_INT64 && dtype !== DTYPE_UINT64) {
    widen(dtype, from, n, to);
    return;
  }
  const low = to + ((<usize>n) << 3);
  for (let at: usize = 0, end = (<usize>n) << 3; at < end; at += 8) {
    const upper = load<u32>(from + at, 4);
    const x = dtype === DTYPE_INT64 ? <f64>(<i32>upper) : <f64>upper;
    store<f64>(to + at, x * 4294967296.0);
    store<f64>(low + at, <f64>load<u32>(from + at));
  }
}

// The sum of the element at hand: s + e if lost is zero.
let s: f64 = 0;
let e: f64 = 0;
let lost: u64 = 0;

/** Position of the element that the last refusal is about. */
let place: u32 = 0;

/** The element that partialFold or partialFinish refused. */
export function partialPlace(): u32 {
  return place;
}

export function setPlace(i: u32): void {
  place = i;
}

/**
 * Sums n elements, one chunk at most. `inputs` is the address of k records (PARTIAL_), `bits` those of the significand of an
 * element of a leaf, `limit` that of certificate A (0 for none), `leaves` how many the result has. The nearest binary64
 * numbers go to `out`, the residues to `block` (PARTIAL_RESIDUE_BYTES); all are 8-byte aligned and do not overlap.
 *
 * Answers the bytes of the block, 0 for none, or the negative of a PARTIAL_ status. NaN or infinity is refused; with
 * `propagate` it goes into the sum as IEEE 754 has it, NaN in its canonical form, but never where something is taken out.
 */
export function partialFold(
  inputs: usize,
  k: u32,
  n: u32,
  bits: u32,
  limit: u32,
  leaves: f64,
  out: usize,
  block: usize,
  propagate: bool,
): i32 {
  openResidues(block, n);
  let isPlain = limit !== 0;
  let isOfSums = true;
  let isPaired = true;
  for (let j: u32 = 0; j < k; j++) {
    const input = inputs + <usize>j * PARTIAL_INPUT_BYTES;
    store<u32>(input, 0, NEXT);
    store<u32>(input, 0, AFTER);
    const isSum = load<u32>(input, PARTIAL_IS_SUM) !== 0;
    const residues = <usize>load<u32>(input, PARTIAL_BLOCK);
    isPlain = isPlain && !isSum;
    isOfSums = isOfSums && isSum && (residues === 0 || arrayOf(residues) === 0);
    isPaired = isPaired && (isSum || bits <= 26);
  }
  let i: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    let listed = nextListed(inputs, k, n);
    for (; i + 4 <= n; i += 4) {
      if (listed >= i + 4) {
        if (isPlain && foldFour(inputs, k, i, limit, out)) continue;
        if (isOfSums && addFour(inputs, k, i, out)) continue;
      }
      for (let at = i; at < i + 4; at += 2) {
        if (isPaired && listed >= at + 2 && foldTwo(inputs, k, at, out)) continue;
        let status = foldElement(inputs, k, at, n, bits, leaves, out, propagate);
        if (status === 0) status = foldElement(inputs, k, at + 1, n, bits, leaves, out, propagate);
        if (status !== 0) return -status;
        listed = nextListed(inputs, k, n);
      }
    }
  }
  for (; i < n; i++) {
    const status = foldElement(inputs, k, i, n, bits, leaves, out, propagate);
    if (status !== 0) return -status;
  }
  return closeResidues(n);
}

/** Certificate A for four elements; false when one of them fails it, is not finite, or has a -0. */
function foldFour(inputs: usize, k: u32, i: u32, limit: u32, out: usize): bool {
  const at = (<usize>i) << 3;
  let a0 = f64x2.splat(-0.0);
  let a1 = a0;
  let mx = i32x4.splat(0);
  let mn = i32x4.splat(-1);
  let least = i32x4.splat(0);
  const end = inputs + <usize>k * PARTIAL_INPUT_BYTES;
  for (let input = inputs; input < end; input += PARTIAL_INPUT_BYTES) {
    const p = <usize>load<u32>(input, PARTIAL_VALUES) + at;
    const w = v128.load64_splat(input, PARTIAL_WEIGHT);
    const x0 = v128.load(p);
    const x1 = v128.load(p, 16);
    a0 = f64x2.add(a0, f64x2.mul(w, x0));
    a1 = f64x2.add(a1, f64x2.mul(w, x1));
    // Upper halves of four elements; as in mean-float64 they suffice. The smallest signed one is that of -0.
    const x = i32x4.shuffle(x0, x1, 1, 3, 5, 7);
    const low = i32x4.shuffle(x0, x1, 0, 2, 4, 6);
    least = i32x4.min_s(least, x);
    const t = i32x4.shl(x, 1);
    mx = i32x4.max_u(mx, t);
    // Zero becomes the largest number; one less for others errs to the safe side.
    const isZero = i32x4.eq(v128.or(t, low), i32x4.splat(0));
    mn = i32x4.min_u(mn, v128.or(t, isZero));
  }
  v128.store(out + at, a0);
  v128.store(out + at, a1, 16);
  const sure = i32x4.le_s(i32x4.sub(i32x4.shr_u(mx, 21), i32x4.shr_u(mn, 21)), i32x4.splat(limit));
  const usual = v128.and(i32x4.lt_u(mx, i32x4.splat(0xffe00000)), i32x4.ne(least, i32x4.splat(0x80000000)));
  return i32x4.all_true(v128.and(sure, usual));
}

/** Certificate C for four elements; false when one of them fails it, is not finite, or has a -0. */
function addFour(inputs: usize, k: u32, i: u32, out: usize): bool {
  const at = (<usize>i) << 3;
  const minusZero = i64x2.splat(MINUS_ZERO);
  let s0 = f64x2.splat(0.0);
  let s1 = s0;
  let odd = i64x2.splat(0); // an error, NaN where something is not finite, or -0
  const end = inputs + <usize>k * PARTIAL_INPUT_BYTES;
  for (let input = inputs; input < end; input += PARTIAL_INPUT_BYTES) {
    const p = <usize>load<u32>(input, PARTIAL_VALUES) + at;
    const w = v128.load64_splat(input, PARTIAL_WEIGHT);
    const v0 = v128.load(p);
    const v1 = v128.load(p, 16);
    odd = v128.or(odd, v128.or(i64x2.eq(v0, minusZero), i64x2.eq(v1, minusZero)));
    const x0 = f64x2.mul(w, v0);
    const x1 = f64x2.mul(w, v1);
    const next0 = f64x2.add(s0, x0);
    const next1 = f64x2.add(s1, x1);
    const part0 = f64x2.sub(next0, s0);
    const part1 = f64x2.sub(next1, s1);
    const error0 = f64x2.add(f64x2.sub(s0, f64x2.sub(next0, part0)), f64x2.sub(x0, part0));
    const error1 = f64x2.add(f64x2.sub(s1, f64x2.sub(next1, part1)), f64x2.sub(x1, part1));
    // NaN is not equal to itself, nor to zero.
    odd = v128.or(odd, v128.or(f64x2.ne(error0, f64x2.splat(0.0)), f64x2.ne(error1, f64x2.splat(0.0))));
    s0 = next0;
    s1 = next1;
  }
  if (v128.any_true(odd)) return false;
  // A zero is +0: s begins with one, and stays that whatever zero is added to it.
  v128.store(out + at, s0);
  v128.store(out + at, s1, 16);
  return true;
}

/**
 * Certificate B for two elements, of leaves with up to 26 bits and of sums without residues but those of arrays; false when one
 * of them fails it, is not finite, or has a -0.
 */
function foldTwo(inputs: usize, k: u32, i: u32, out: usize): bool {
  const at = (<usize>i) << 3;
  const zero = f64x2.splat(0.0);
  const minusZero = i64x2.splat(MINUS_ZERO);
  let s = zero;
  let e = zero;
  let odd = i64x2.splat(0); // an error of e, NaN where something is not finite, or -0
  const end = inputs + <usize>k * PARTIAL_INPUT_BYTES;
  for (let input = inputs; input < end; input += PARTIAL_INPUT_BYTES) {
    const values = v128.load(<usize>load<u32>(input, PARTIAL_VALUES) + at);
    odd = v128.or(odd, i64x2.eq(values, minusZero));
    const w = load<f64>(input, PARTIAL_WEIGHT);
    let x = values;
    let more = zero;
    let hasMore = false;
    if (load<u32>(input, PARTIAL_IS_SUM) !== 0) {
      x = f64x2.mul(f64x2.splat(w), values);
      const block = <usize>load<u32>(input, PARTIAL_BLOCK);
      hasMore = block !== 0 && arrayOf(block) !== 0;
      if (hasMore) more = f64x2.mul(f64x2.splat(w), v128.load(arrayOf(block) + at));
    } else {
      const wh = reinterpret<f64>(reinterpret<u64>(w) & HIGH26);
      x = f64x2.mul(f64x2.splat(wh), values);
      hasMore = w !== wh;
      if (hasMore) more = f64x2.mul(f64x2.splat(w - wh), values);
    }
    for (;;) {
      const next = f64x2.add(s, x);
      const part = f64x2.sub(next, s);
      const error = f64x2.add(f64x2.sub(s, f64x2.sub(next, part)), f64x2.sub(x, part));
      s = next;
      const low = f64x2.add(e, error);
      const lowPart = f64x2.sub(low, e);
      const lost = f64x2.add(f64x2.sub(e, f64x2.sub(low, lowPart)), f64x2.sub(error, lowPart));
      odd = v128.or(odd, f64x2.ne(lost, zero));
      e = low;
      if (!hasMore) break;
      hasMore = false;
      x = more;
    }
  }
  const sum = f64x2.add(s, e);
  const part = f64x2.sub(sum, s);
  const rest = f64x2.add(f64x2.sub(s, f64x2.sub(sum, part)), f64x2.sub(e, part));
  // NaN is not equal to itself: a sum beyond binary64.
  if (v128.any_true(v128.or(odd, f64x2.ne(rest, rest)))) return false;
  v128.store(out + at, sum);
  const r0 = f64x2.extract_lane(rest, 0);
  const r1 = f64x2.extract_lane(rest, 1);
  if (r0 !== 0) addResidue(i, KIND_PART, r0);
  if (r1 !== 0) addResidue(i + 1, KIND_PART, r1);
  return true;
}

/** The next element that a list of residues has something of, n when there is none. */
function nextListed(inputs: usize, k: u32, n: u32): u32 {
  let least = n;
  const end = inputs + <usize>k * PARTIAL_INPUT_BYTES;
  for (let input = inputs; input < end; input += PARTIAL_INPUT_BYTES) {
    const block = <usize>load<u32>(input, PARTIAL_BLOCK);
    if (block !== 0) least = min(least, listedFrom(block, load<u32>(input, NEXT), n));
  }
  return least;
}

/** Adds to s + e. */
function addTerm(x: f64): void {
  const next = s + x;
  const part = next - s;
  const error = s - (next - part) + (x - part);
  s = next;
  const low = e + error;
  const lowPart = low - e;
  lost |= reinterpret<u64>(e - (low - lowPart) + (error - lowPart)) << 1;
  e = low;
}

/** Adds w·x in exact parts. */
function addWeighted(w: f64, x: f64, bits: u32): void {
  const wh = reinterpret<f64>(reinterpret<u64>(w) & HIGH26);
  const wl = w - wh;
  if (bits <= 26) {
    addTerm(wh * x);
    if (wl !== 0) addTerm(wl * x);
    return;
  }
  const magnitude = abs(x);
  if (!(magnitude >= LEAST && magnitude < MOST)) {
    lost = 1;
    return;
  }
  const c = x * SPLITTER;
  const xh = c - (c - x);
  const xl = x - xh;
  addTerm(wh * xh);
  addTerm(wh * xl);
  if (wl === 0) return;
  addTerm(wl * xh);
  addTerm(wl * xl);
}

/** One element; answers a status. */
function foldElement(
  inputs: usize,
  k: u32,
  i: u32,
  n: u32,
  bits: u32,
  leaves: f64,
  out: usize,
  propagate: bool,
): i32 {
  place = i;
  s = 0;
  e = 0;
  lost = 0;
  let zeros = 0.0; // leaves that have -0
  let any: u64 = 0; // of NaN and infinities
  let all: u64 = -1;
  const end = inputs + <usize>k * PARTIAL_INPUT_BYTES;
  for (let input = inputs; input < end; input += PARTIAL_INPUT_BYTES) {
    const x = load<f64>(<usize>load<u32>(input, PARTIAL_VALUES) + ((<usize>i) << 3));
    const w = load<f64>(input, PARTIAL_WEIGHT);
    const pattern = reinterpret<u64>(x);
    if (pattern << 1 >= INFINITE) {
      if (!propagate || w < 0) return PARTIAL_NON_FINITE;
      any |= pattern;
      all &= pattern;
    }
    if (load<u32>(input, PARTIAL_IS_SUM) === 0) {
      if (x !== 0) addWeighted(w, x, bits);
    } else {
      if (x !== 0) addTerm(w * x);
      if (addParts(input, i, n, w)) {
        zeros += w * counted;
        continue;
      }
    }
    if (pattern === MINUS_ZERO) zeros += load<f64>(input, PARTIAL_LEAVES);
  }
  const to = out + ((<usize>i) << 3);
  let status = 0;
  if (any !== 0) {
    const isInfinity = any === all && (any & 0xfffffffffffff) === 0;
    store<u64>(to, isInfinity ? any : 0x7ff8000000000000);
  } else {
    if (zeros < 0 || zeros > leaves) return PARTIAL_MISMATCH;
    const sum = s + e;
    if (lost === 0 && Number.isFinite(sum)) {
      const part = sum - s;
      const rest = s - (sum - part) + (e - part);
      store<f64>(to, sum + 0.0); // a zero is +0
      if (rest !== 0) addResidue(i, KIND_PART, rest);
    } else {
      status = addExactly(inputs, end, i, n, to);
      if (status !== 0) return status;
    }
    if (zeros > 0 && zeros < leaves) addResidue(i, KIND_ZEROS, zeros);
    else if (zeros > 0) {
      if (load<f64>(to) !== 0) return PARTIAL_MISMATCH;
      store<u64>(to, MINUS_ZERO);
    }
  }
  for (let input = inputs; input < end; input += PARTIAL_INPUT_BYTES) {
    store<u32>(input, load<u32>(input, AFTER), NEXT);
  }
  return status;
}

/** Leaves that have -0, of the partial sum whose parts were added last. */
let counted: f64 = 0;

/** Adds the residues of an element; answers whether it has any. Low parts make the sum one for integers. */
function addParts(input: usize, i: u32, n: u32, w: f64): bool {
  const block = <usize>load<u32>(input, PARTIAL_BLOCK);
  counted = 0;
  if (block === 0) return false;
  let has = false;
  const array = arrayOf(block);
  if (array !== 0) {
    const x = load<f64>(array + ((<usize>i) << 3));
    has = x !== 0;
    if (has) addTerm(w * x);
  }
  const length = listLength(block);
  const values = valuesOf(block, n);
  const places = placesOf(block, n);
  let next = load<u32>(input, NEXT);
  for (; next < length; next++) {
    const p = load<u16>(places + ((<usize>next) << 1));
    if (indexOf(p) !== i) break;
    const x = load<f64>(values + ((<usize>next) << 3));
    const kind = kindOf(p);
    if (kind === KIND_PART) addTerm(w * x);
    else if (kind === KIND_LOW) lost = 1;
    else counted = x;
    has = true;
  }
  store<u32>(input, next, AFTER);
  return has;
}

/** The sum of an element in integers: first where its products lie, then their sum. */
function addExactly(inputs: usize, end: usize, i: u32, n: u32, to: usize): i32 {
  openSpan();
  for (let input = inputs; input < end; input += PARTIAL_INPUT_BYTES) visit(input, i, n, false);
  if (!openSum(0, 0)) return PARTIAL_RANGE;
  for (let input = inputs; input < end; input += PARTIAL_INPUT_BYTES) visit(input, i, n, true);
  if (!takeParts(i)) return PARTIAL_RANGE;
  store<f64>(to, firstPart);
  return 0;
}

/** Hands the products of an input to partial-exact. */
function visit(input: usize, i: u32, n: u32, adds: bool): void {
  const w = load<f64>(input, PARTIAL_WEIGHT);
  product(load<f64>(<usize>load<u32>(input, PARTIAL_VALUES) + ((<usize>i) << 3)), w, 0, adds);
  const block = <usize>load<u32>(input, PARTIAL_BLOCK);
  if (block === 0) return;
  visitParts(block, load<u32>(input, NEXT), load<u32>(input, AFTER), i, n, w, 0, adds);
}

/** The same with the residues of an element, of the list those from `next` to `after`. */
export function visitParts(
  block: usize,
  next: u32,
  after: u32,
  i: u32,
  n: u32,
  w: f64,
  below: i32,
  adds: bool,
): void {
  const array = arrayOf(block);
  if (array !== 0) product(load<f64>(array + ((<usize>i) << 3)), w, 0, adds, below);
  const values = valuesOf(block, n);
  const places = placesOf(block, n);
  for (; next < after; next++) {
    const kind = kindOf(load<u16>(places + ((<usize>next) << 1)));
    if (kind === KIND_ZEROS) continue;
    const x = load<f64>(values + ((<usize>next) << 3));
    product(x, w, kind === KIND_LOW ? -LOW_SCALE : 0, adds, below);
  }
}

export function product(x: f64, w: f64, shift: i32, adds: bool, below: i32 = 0): void {
  if (x === 0) return;
  if (adds) addSpanned(x, w, shift, below);
  else spanProduct(x, w, shift);
}
