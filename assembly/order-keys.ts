// Elements as integers that order as the elements do: what the sorting networks compare.
//
//   key = x ^ (x < 0 ? flipNegative : 0) ^ flipAll        x the bits of the element as a signed integer
//
// Floats are sign and magnitude: the magnitude of negative ones is turned over. That is the total order of IEEE 754,
// -NaN < -infinity < … < -0 < +0 < … < infinity < NaN. Unsigned integers have their highest bit turned over; signed ones
// are their own keys. The mapping undoes itself, because it never changes whether x < 0 when flipNegative is in use.

import { elementSize, floatPrecision, isSigned, loadBits, storeBits } from './mean-exact';

/** Rows of keys are multiples of this: four vectors, a line of the cache. */
export const ROW_UNIT: usize = 64;

/** All rows of keys together, as long as that leaves a unit for each: well within the first cache, beside the inputs. */
const ROWS: usize = 16384;

// The dtype at hand.
let flipNegative: u64 = 0;
let flipAll: u64 = 0;
let exponentMask: u64 = 0;
/** What the exponent of NaN and infinity is. An integer never has it. */
let exponentWanted: u64 = 1;

/** Bytes of a row of keys, a power of two, when there are k rows. */
export function rowBytes(k: u32): usize {
  let bytes: usize = 1024;
  while (bytes > ROW_UNIT && bytes * k > ROWS) bytes >>= 1;
  return bytes;
}

/** Prepares `mapKeys` and its relatives for a dtype. */
export function openKeys(dtype: u32): void {
  const sign = (<u64>1) << (8 * elementSize(dtype) - 1);
  const precision = floatPrecision(dtype);
  flipNegative = precision === 0 ? 0 : sign - 1;
  flipAll = precision === 0 && !isSigned(dtype) ? sign : 0;
  exponentMask = precision === 0 ? 0 : sign - ((<u64>1) << (precision - 1));
  exponentWanted = precision === 0 ? 1 : exponentMask;
}

/**
 * Maps elements to keys or back, T the signed integer of their size. `bytes` is a multiple of ROW_UNIT; `from` and `to`
 * have any alignment and may be the same. Answers false when NaN or infinity was among the elements (of keys: no answer).
 */
export function mapKeys<T>(from: usize, to: usize, bytes: usize): bool {
  const end = from + bytes;
  if (ASC_FEATURE_SIMD) {
    const negative = v128.splat<T>(<T>flipNegative);
    const all = v128.splat<T>(<T>flipAll);
    const mask = v128.splat<T>(<T>exponentMask);
    const wanted = v128.splat<T>(<T>exponentWanted);
    let seen = v128.xor(all, all);
    for (; from < end; from += 32) {
      const x = v128.load(from);
      const y = v128.load(from, 16);
      seen = v128.or(seen, v128.eq<T>(v128.and(x, mask), wanted));
      seen = v128.or(seen, v128.eq<T>(v128.and(y, mask), wanted));
      const flipX = v128.and(v128.shr<T>(x, 8 * sizeof<T>() - 1), negative);
      const flipY = v128.and(v128.shr<T>(y, 8 * sizeof<T>() - 1), negative);
      v128.store(to, v128.xor(v128.xor(x, flipX), all));
      v128.store(to, v128.xor(v128.xor(y, flipY), all), 16);
      to += 32;
    }
    return !v128.any_true(seen);
  } else {
    let finite = true;
    for (; from < end; from += sizeof<T>()) {
      const x = load<T>(from);
      if ((<u64>x & exponentMask) === exponentWanted) finite = false;
      store<T>(to, <T>(<u64>x ^ (<i64>x < 0 ? flipNegative : 0) ^ flipAll));
      to += sizeof<T>();
    }
    return finite;
  }
}

/** Maps n elements of 1 or 2 bytes to keys of 4 bytes. Answers false when NaN or infinity was among them. */
export function widenKeys(from: usize, to: usize, n: u32, size: u32): bool {
  const extend = 64 - 8 * size;
  const signed = flipAll === 0;
  let finite = true;
  for (let i: u32 = 0; i < n; i++) {
    const bits = loadBits(from, size);
    const x = signed ? <i64>(bits << extend) >> extend : <i64>bits;
    if ((bits & exponentMask) === exponentWanted) finite = false;
    store<i32>(to, <i32>(x < 0 ? x ^ flipNegative : x));
    from += size;
    to += 4;
  }
  return finite;
}

/** The way back; `from` and `to` may be the same. */
export function narrowKeys(from: usize, to: usize, n: u32, size: u32): void {
  for (let i: u32 = 0; i < n; i++) {
    const key = load<i32>(from);
    storeBits(to, size, <u64>(key < 0 ? key ^ <i32>flipNegative : key));
    from += 4;
    to += size;
  }
}

/** Writes a canonical NaN to every element of `out` for which an input has a NaN; `at` and `bytes` as in the inputs. */
export function spreadNaN(dtype: u32, k: u32, inputs: usize, at: usize, bytes: usize, out: usize): void {
  const size = elementSize(dtype);
  const quiet = exponentMask | ((<u64>1) << (floatPrecision(dtype) - 2));
  for (const end = at + bytes; at < end; at += size) {
    for (let j: u32 = 0; j < k; j++) {
      const bits = loadBits(<usize>load<u32>(inputs + ((<usize>j) << 2)) + at, size);
      if ((bits & flipNegative) <= exponentMask) continue;
      storeBits(out, size, quiet);
      break;
    }
    out += size;
  }
}
