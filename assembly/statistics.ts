// Least, largest, sum and counts of the numbers of a tensor, chunk by chunk, in one pass.
//
//   lane[i mod 4] += x_i for finite x_i; sum of a chunk = (lane 0 + lane 1) + (lane 2 + lane 3); chunks in their order
//
// The shape of the sum is fixed, so its bits are the same on every host. Elements are widened as for distances.

import {
  CHUNK,
  STATISTICS_FINITE,
  STATISTICS_INFINITE,
  STATISTICS_MAX,
  STATISTICS_MIN,
  STATISTICS_NAN,
  STATISTICS_SUM,
  STATISTICS_ZEROS,
} from './abi';
import { elementSize } from './mean-exact';
import { numberType, widen } from './widen';

/** The numbers of a chunk. */
const TILE: usize = memory.data(CHUNK * 8, 16);

/** Four sums, then four least and four largest numbers. */
const LANES: usize = memory.data(96, 16);
const LEAST: usize = 32;
const LARGEST: usize = 64;

/** Begins a record of statistics: STATISTICS_ binary64 numbers at `record`. */
export function startStatistics(record: usize): void {
  memory.fill(record, 0, STATISTICS_FINITE + 8);
  store<f64>(record, Infinity, STATISTICS_MIN);
  store<f64>(record, -Infinity, STATISTICS_MAX);
}

/**
 * Adds n numbers to a record: whole chunks, or the last ones of a tensor. `from` may be unaligned. A complex element is two
 * numbers. Answers false for a dtype of no numbers.
 */
export function addStatistics(dtype: u32, from: usize, n: u32, record: usize): bool {
  const type = numberType(dtype);
  const size = elementSize(type);
  if (size === 0) return false;
  for (let first: u32 = 0; first < n; first += CHUNK) {
    const count = min<u32>(CHUNK, n - first);
    widen(type, from + <usize>first * size, count, TILE);
    if (!addFinite(count, record)) addAny(count, record);
  }
  return true;
}

function bump(record: usize, field: usize, by: f64): void {
  store<f64>(record + field, load<f64>(record + field) + by);
}

/** Adds a chunk whose numbers are finite; false, and nothing done, where the sum is not. */
function addFinite(n: u32, record: usize): bool {
  const least = load<f64>(record, STATISTICS_MIN);
  const largest = load<f64>(record, STATISTICS_MAX);
  for (let lane: usize = 0; lane < 32; lane += 8) {
    store<f64>(LANES + lane, 0);
    store<f64>(LANES + lane, least, LEAST);
    store<f64>(LANES + lane, largest, LARGEST);
  }
  let zeros: u32 = 0;
  const end = TILE + ((<usize>n & ~3) << 3);
  let x = TILE;
  if (ASC_FEATURE_SIMD) {
    const zero = f64x2.splat(0);
    let s0 = zero;
    let s1 = zero;
    let min0 = f64x2.splat(least);
    let min1 = min0;
    let max0 = f64x2.splat(largest);
    let max1 = max0;
    let equal = i64x2.splat(0);
    for (; x < end; x += 32) {
      const a = v128.load(x);
      const b = v128.load(x, 16);
      s0 = f64x2.add(s0, a);
      s1 = f64x2.add(s1, b);
      min0 = f64x2.pmin(min0, a);
      min1 = f64x2.pmin(min1, b);
      max0 = f64x2.pmax(max0, a);
      max1 = f64x2.pmax(max1, b);
      equal = i64x2.add(equal, i64x2.add(f64x2.eq(a, zero), f64x2.eq(b, zero)));
    }
    v128.store(LANES, s0);
    v128.store(LANES, s1, 16);
    v128.store(LANES, min0, LEAST);
    v128.store(LANES, min1, LEAST + 16);
    v128.store(LANES, max0, LARGEST);
    v128.store(LANES, max1, LARGEST + 16);
    zeros = <u32>-(i64x2.extract_lane(equal, 0) + i64x2.extract_lane(equal, 1));
  }
  for (const last = TILE + ((<usize>n) << 3); x < last; x += 8) {
    const value = load<f64>(x);
    const lane = LANES + ((x - TILE) & 24);
    store<f64>(lane, load<f64>(lane) + value);
    if (value < load<f64>(lane, LEAST)) store<f64>(lane, value, LEAST);
    if (value > load<f64>(lane, LARGEST)) store<f64>(lane, value, LARGEST);
    if (value === 0) zeros++;
  }
  const sum = sumOfLanes();
  if (!(abs(sum) < Infinity)) return false;
  for (let lane: usize = 0; lane < 32; lane += 8) {
    keepLeast(record, load<f64>(LANES + lane, LEAST));
    keepLargest(record, load<f64>(LANES + lane, LARGEST));
  }
  bump(record, STATISTICS_SUM, sum);
  bump(record, STATISTICS_FINITE, n);
  bump(record, STATISTICS_ZEROS, zeros);
  return true;
}

/** Adds any chunk. */
function addAny(n: u32, record: usize): void {
  memory.fill(LANES, 0, 32);
  for (let i: u32 = 0; i < n; i++) {
    const value = load<f64>(TILE + ((<usize>i) << 3));
    const magnitude = abs(value);
    if (magnitude < Infinity) {
      const lane = LANES + ((<usize>i & 3) << 3);
      store<f64>(lane, load<f64>(lane) + value);
      keepLeast(record, value);
      keepLargest(record, value);
      bump(record, STATISTICS_FINITE, 1);
      if (value === 0) bump(record, STATISTICS_ZEROS, 1);
    } else {
      bump(record, magnitude === Infinity ? STATISTICS_INFINITE : STATISTICS_NAN, 1);
    }
  }
  bump(record, STATISTICS_SUM, sumOfLanes());
}

function sumOfLanes(): f64 {
  return load<f64>(LANES) + load<f64>(LANES, 8) + (load<f64>(LANES, 16) + load<f64>(LANES, 24));
}

function keepLeast(record: usize, value: f64): void {
  if (value < load<f64>(record, STATISTICS_MIN)) store<f64>(record, value, STATISTICS_MIN);
}

function keepLargest(record: usize, value: f64): void {
  if (value > load<f64>(record, STATISTICS_MAX)) store<f64>(record, value, STATISTICS_MAX);
}
