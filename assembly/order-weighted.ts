// The weighted median of K blocks.
//
//   for each element: sort x_0 … x_(K-1) with their weights, C_j the sum of the weights up to x_j
//     lower = the first x_j with 2·C_j >= W, upper = the first with 2·C_j > W, out = the mean of both
//
// They differ only where the weights up to some element are exactly half of W. The plan of the mean has the weightings as
// integers, so that the comparison is exact. With equal weightings it is the median.
//
// Keys are sorted together with what belongs to them, in vectors: the weights themselves where W fits the integers of
// the keys' size, else the numbers of the inputs, whose weights are then added in 192 bits element by element.

import {
  DTYPE_COMPLEX64,
  DTYPE_COMPLEX128,
  DTYPE_FLOAT32,
  DTYPE_FLOAT64,
  MEAN_DTYPE_UNSUPPORTED,
  MEAN_NON_FINITE,
  MEAN_OK,
} from './abi';
import { mean } from './mean';
import { elementSize } from './mean-exact';
import { meanPlan, meanPlanBytes, PLAN_LIMBS, PLAN_WIDE, planMantissas, planShifts } from './mean-plan';
import { mapKeys, narrowKeys, openKeys, ROW_UNIT, rowBytes, spreadNaN, widenKeys } from './order-keys';
import { exchangePairs, networkBytes, sortingNetwork } from './order-network';

// Offsets in a plan, which is 16-byte aligned.
const WEIGHTED_K: usize = 0; // u32: inputs. With a refusal the position of a weighting
const WEIGHTED_STRIDE: usize = 4; // u32: bytes of a row
const WEIGHTED_COUNT: usize = 8; // u32: comparators
const WEIGHTED_NETWORK: usize = 12; // u32: address of the comparators
const WEIGHTED_ROWS: usize = 16; // u32: address of k rows of keys, then k of payloads, then the rows below
const WEIGHTED_PAIR: usize = 20; // u32: address of the plan of two equal weights
const WEIGHTED_TABLE: usize = 24; // u32: address of the table of two rows, lower and upper
const WEIGHTED_WEIGHTS: usize = 28; // u32: address of the weights, 192 bits each as three u64, low ones first
const WEIGHTED_LOWER: usize = 32; // u64[3]: ceil(W / 2)
const WEIGHTED_UPPER: usize = 56; // u64[3]: floor(W / 2) + 1
const WEIGHTED_FITS4: usize = 80; // u32: 1 when W < 2^31
const WEIGHTED_FITS8: usize = 84; // u32: 1 when W < 2^63
const WEIGHTED_HEADER: usize = 96;

/** Bytes of a weight. */
const WEIGHT: usize = 24;

/** Bytes of a plan for k inputs, at least one. */
export function weightedMedianPlanBytes(k: u32): usize {
  return (
    WEIGHTED_HEADER +
    2 * align(meanPlanBytes(max(2, k))) +
    (2 * <usize>k + 3) * rowBytes(2 * k) +
    16 +
    align(<usize>k * WEIGHT) +
    networkBytes(k)
  );
}

/**
 * Prepares k weightings (binary64 at w, as for `meanPlan`) as a plan; k <= ORDER_MAX_INPUTS. Answers a MEAN_ status; when
 * one weighting is to blame, its position stands in the first word of the plan.
 */
export function weightedMedianPlan(w: usize, k: u32, plan: usize): i32 {
  const given = plan + WEIGHTED_HEADER;
  const status = meanPlan(w, k, given);
  store<u32>(plan, status === MEAN_OK ? k : load<u32>(given), WEIGHTED_K);
  if (status !== MEAN_OK) return status;

  const stride = rowBytes(2 * k);
  const pair = given + align(meanPlanBytes(max(2, k)));
  const rows = pair + align(meanPlanBytes(max(2, k)));
  const table = rows + (2 * <usize>k + 3) * stride;
  const weights = table + 16;
  const network = weights + align(<usize>k * WEIGHT);
  store<u32>(plan, <u32>stride, WEIGHTED_STRIDE);
  store<u32>(plan, sortingNetwork(network, k), WEIGHTED_COUNT);
  store<u32>(plan, <u32>network, WEIGHTED_NETWORK);
  store<u32>(plan, <u32>rows, WEIGHTED_ROWS);
  store<u32>(plan, <u32>pair, WEIGHTED_PAIR);
  store<u32>(plan, <u32>table, WEIGHTED_TABLE);
  store<u32>(plan, <u32>weights, WEIGHTED_WEIGHTS);

  // Two equal weights; the rows serve as room until there are keys.
  store<f64>(rows, 1);
  store<f64>(rows, 1, 8);
  meanPlan(rows, 2, pair);
  store<u32>(table, <u32>(rows + 2 * <usize>k * stride));
  store<u32>(table, <u32>(rows + (2 * <usize>k + 1) * stride), 4);

  const mantissas = planMantissas(given);
  const shifts = planShifts(given);
  for (let j: usize = 0; j < k; j++) {
    const m = load<u64>(mantissas + (j << 3));
    const shift = load<u32>(shifts + (j << 2));
    const to = weights + j * WEIGHT;
    memory.fill(to, 0, WEIGHT);
    const word = to + ((<usize>(shift >> 6)) << 3);
    store<u64>(word, m << (shift & 63));
    // The upper part, which is zero in the last word: a weight has 169 bits at most.
    if ((shift & 63) !== 0 && word < to + 16) store<u64>(word, m >> (64 - (shift & 63)), 8);
  }
  // W as three u64, halved.
  const w0 = load<u64>(given, PLAN_LIMBS);
  const w1 = load<u64>(given, PLAN_LIMBS + 8);
  const w2 = load<u64>(given, PLAN_LIMBS + 16);
  const h0 = (w0 >> 1) | (w1 << 63);
  const h1 = (w1 >> 1) | (w2 << 63);
  storeSum(plan + WEIGHTED_LOWER, h0, h1, w2 >> 1, w0 & 1);
  storeSum(plan + WEIGHTED_UPPER, h0, h1, w2 >> 1, 1);
  const isNarrow = load<u32>(given, PLAN_WIDE) === 0;
  store<u32>(plan, isNarrow && w0 < 0x80000000 ? 1 : 0, WEIGHTED_FITS4);
  store<u32>(plan, isNarrow ? 1 : 0, WEIGHTED_FITS8);
  return MEAN_OK;
}

function align(bytes: usize): usize {
  return (bytes + 15) & ~15;
}

/** Stores the number of three u64 plus 0 or 1. */
function storeSum(to: usize, a: u64, b: u64, c: u64, add: u64): void {
  a += add;
  b += a < add ? 1 : 0;
  c += a < add && b === 0 ? 1 : 0;
  store<u64>(to, a);
  store<u64>(to, b, 8);
  store<u64>(to, c, 16);
}

/** Combines n elements; arguments, status and what NaN and infinity do as for `trimmed`. */
export function weightedMedian(
  dtype: u32,
  plan: usize,
  inputs: usize,
  n: u32,
  out: usize,
  propagate: bool,
): i32 {
  if (dtype === DTYPE_COMPLEX64) return weightedMedian(DTYPE_FLOAT32, plan, inputs, n << 1, out, propagate);
  if (dtype === DTYPE_COMPLEX128) return weightedMedian(DTYPE_FLOAT64, plan, inputs, n << 1, out, propagate);
  const size = elementSize(dtype);
  if (size === 0) return MEAN_DTYPE_UNSUPPORTED;
  openKeys(dtype);
  return size === 8
    ? medianTiles<i64>(dtype, size, plan, inputs, n, out, propagate)
    : medianTiles<i32>(dtype, size, plan, inputs, n, out, propagate);
}

/** T is the integer of the keys; elements of fewer bytes are widened to it. */
function medianTiles<T>(
  dtype: u32,
  size: u32,
  plan: usize,
  inputs: usize,
  n: u32,
  out: usize,
  propagate: bool,
): i32 {
  const k = <usize>load<u32>(plan, WEIGHTED_K);
  const stride = <usize>load<u32>(plan, WEIGHTED_STRIDE);
  const rows = <usize>load<u32>(plan, WEIGHTED_ROWS);
  const payloads = rows + k * stride;
  const lower = payloads + k * stride;
  const upper = lower + stride;
  const result = upper + stride;
  const fits = load<u32>(plan, sizeof<T>() === 8 ? WEIGHTED_FITS8 : WEIGHTED_FITS4) !== 0;
  const weights = <usize>load<u32>(plan, WEIGHTED_WEIGHTS);
  const columns = <u32>(stride / sizeof<T>());
  for (let first: u32 = 0; first < n; first += columns) {
    const count = min(columns, n - first);
    const at = <usize>first * size;
    const bytes = <usize>count * size;
    const used = <usize>count * sizeof<T>();
    const width = (used + ROW_UNIT - 1) & ~(ROW_UNIT - 1);
    let finite = true;
    for (let j: usize = 0; j < k; j++) {
      let from = <usize>load<u32>(inputs + (j << 2)) + at;
      const row = rows + j * stride;
      if (used < width) memory.fill(row, 0, width);
      if (size < 4) {
        if (!widenKeys(from, row, count, size)) finite = false;
      } else {
        if (used < width) {
          memory.copy(row, from, bytes);
          from = row;
        }
        if (!mapKeys<T>(from, row, width)) finite = false;
      }
      fillRow<T>(payloads + j * stride, width, fits ? <T>load<u64>(weights + j * WEIGHT) : <T>j);
    }
    if (!finite && !propagate) return MEAN_NON_FINITE;
    exchangePairs<T>(
      load<u32>(plan, WEIGHTED_NETWORK),
      load<u32>(plan, WEIGHTED_COUNT),
      rows,
      payloads,
      stride,
      width,
    );
    const areSame = fits
      ? pick<T>(plan, k, rows, payloads, stride, width, lower, upper)
      : pickWide<T>(plan, k, rows, payloads, stride, width, lower, upper);
    const elements = <u32>(width / sizeof<T>());
    for (let row = lower; row <= (areSame ? lower : upper); row += stride) {
      if (size < 4) narrowKeys(row, row, elements, size);
      else mapKeys<T>(row, row, width);
    }
    if (!areSame) {
      mean(dtype, load<u32>(plan, WEIGHTED_PAIR), load<u32>(plan, WEIGHTED_TABLE), elements, result, true);
    }
    memory.copy(out + at, areSame ? lower : result, bytes);
    if (!finite) spreadNaN(dtype, <u32>k, inputs, at, bytes, out + at);
  }
  return MEAN_OK;
}

function fillRow<T>(row: usize, bytes: usize, value: T): void {
  if (ASC_FEATURE_SIMD) {
    const values = v128.splat<T>(value);
    for (let at: usize = 0; at < bytes; at += 16) v128.store(row + at, values);
  } else {
    for (let at: usize = 0; at < bytes; at += sizeof<T>()) store<T>(row + at, value);
  }
}

/**
 * Lower and upper medians of sorted rows whose payloads are weights: the last key with a sum before it below a half.
 * Answers whether they are the same in all columns.
 */
function pick<T>(
  plan: usize,
  k: usize,
  rows: usize,
  payloads: usize,
  stride: usize,
  bytes: usize,
  lower: usize,
  upper: usize,
): bool {
  const a = <T>load<u64>(plan, WEIGHTED_LOWER);
  const b = <T>load<u64>(plan, WEIGHTED_UPPER);
  const all = k * stride;
  if (ASC_FEATURE_SIMD) {
    const lowerHalf = v128.splat<T>(a);
    const upperHalf = v128.splat<T>(b);
    let different = v128.splat<T>(0);
    for (let at: usize = 0; at < bytes; at += 16) {
      let sum = v128.splat<T>(0);
      let low = sum;
      let high = sum;
      for (let j: usize = at; j < all; j += stride) {
        const key = v128.load(rows + j);
        low = v128.bitselect(key, low, v128.gt<T>(lowerHalf, sum));
        high = v128.bitselect(key, high, v128.gt<T>(upperHalf, sum));
        sum = v128.add<T>(sum, v128.load(payloads + j));
      }
      v128.store(lower + at, low);
      v128.store(upper + at, high);
      different = v128.or(different, v128.xor(low, high));
    }
    return !v128.any_true(different);
  } else {
    let areSame = true;
    for (let at: usize = 0; at < bytes; at += sizeof<T>()) {
      let sum = <T>0;
      for (let j: usize = at; j < all && sum < b; j += stride) {
        const key = load<T>(rows + j);
        if (sum < a) store<T>(lower + at, key);
        store<T>(upper + at, key);
        sum = <T>(sum + load<T>(payloads + j));
      }
      areSame = areSame && load<T>(lower + at) === load<T>(upper + at);
    }
    return areSame;
  }
}

/** The same with the numbers of the inputs as payloads and sums of 192 bits. */
function pickWide<T>(
  plan: usize,
  k: usize,
  rows: usize,
  payloads: usize,
  stride: usize,
  bytes: usize,
  lower: usize,
  upper: usize,
): bool {
  const weights = <usize>load<u32>(plan, WEIGHTED_WEIGHTS);
  const all = k * stride;
  let areSame = true;
  for (let at: usize = 0; at < bytes; at += sizeof<T>()) {
    let a: u64 = 0;
    let b: u64 = 0;
    let c: u64 = 0;
    for (let j: usize = at; j < all && isBelow(a, b, c, plan + WEIGHTED_UPPER); j += stride) {
      const key = load<T>(rows + j);
      if (isBelow(a, b, c, plan + WEIGHTED_LOWER)) store<T>(lower + at, key);
      store<T>(upper + at, key);
      const w = weights + <usize>load<T>(payloads + j) * WEIGHT;
      a += load<u64>(w);
      const carry: u64 = a < load<u64>(w) ? 1 : 0;
      const next = b + load<u64>(w, 8);
      const carried = next + carry;
      c += load<u64>(w, 16) + (next < b ? 1 : 0) + (carried < next ? 1 : 0);
      b = carried;
    }
    areSame = areSame && load<T>(lower + at) === load<T>(upper + at);
  }
  return areSame;
}

/** Whether the number of three u64 is below the one that is stored. */
function isBelow(a: u64, b: u64, c: u64, than: usize): bool {
  const c1 = load<u64>(than, 16);
  if (c !== c1) return c < c1;
  const b1 = load<u64>(than, 8);
  return b !== b1 ? b < b1 : a < load<u64>(than);
}
