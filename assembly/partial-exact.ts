// Exact sums of products of binary64 numbers, in integers, and their parts.
//
// The accumulator is that of mean-exact, its digits counted from the lowest bit of any product. Twice through the products:
// `spanProduct` finds out where they lie, `addSpanned` adds them.

import { addProduct, highestDigit, isSumNegative, limb, normalize, openLimbs } from './mean-exact';
import { power } from './mean-plan';
import { addResidue, KIND_LOW, KIND_PART, LOW_SCALE } from './partial-block';

/** Lowest bit of a sum: 2^-1074 of an element, 2^-116 of a weighting, 2^-60 of the scale. */
const LOWEST: i32 = -1250;

/** The smallest binary64 number is 2^-1074. */
const SMALLEST: i32 = -1074;

let lowest: i32 = 0;
let highest: i32 = 0;

// A number that was taken apart: its odd significand and exponent.
let odd: u64 = 0;
let power2: i32 = 0;

/** Takes a finite number apart that is not zero. */
function takeApart(x: f64): void {
  const bits = reinterpret<u64>(x);
  const field = <i32>((bits >> 52) & 0x7ff);
  let m = bits & 0xfffffffffffff;
  if (field !== 0) m |= 0x10000000000000;
  const zeros = ctz(m);
  odd = m >> zeros;
  power2 = max(field, 1) - 1075 + <i32>zeros;
}

/** Begins the first pass. */
export function openSpan(): void {
  lowest = i32.MAX_VALUE;
  highest = i32.MIN_VALUE;
}

/** Takes x·w·2^shift into account; neither is zero. */
export function spanProduct(x: f64, w: f64, shift: i32): void {
  takeApart(x);
  const e = power2 + shift;
  takeApart(w);
  lowest = min(lowest, e + power2);
  highest = max(highest, e + power2);
}

/** The exponent of the lowest bit. */
export function spanLowest(): i32 {
  return lowest;
}

/**
 * Begins the second pass with `below` zero bits under the lowest one, and `spare` limbs above the highest. False when bits
 * are lower than those of any sum of elements.
 */
export function openSum(below: i32, spare: i32): bool {
  if (lowest < LOWEST) return false;
  // A product has 106 bits at most, and there are fewer than 2^32.
  openLimbs(((below + highest - lowest + 106 + 32) >> 5) + 2 + spare);
  return true;
}

/** Adds x·w·2^shift. */
export function addSpanned(x: f64, w: f64, shift: i32, below: i32): void {
  takeApart(x);
  const m = odd;
  const e = power2 + shift;
  takeApart(w);
  addProduct(m, odd, below + e + power2 - lowest, x < 0 !== w < 0);
}

/** Its first part is here once `takeParts` has answered true. */
export let firstPart: f64 = 0;

/**
 * Takes the sum (opened with below = 0) apart. The first part goes to `firstPart`, the others become residues of the
 * element. False when the sum is too large for binary64.
 */
export function takeParts(index: u32): bool {
  normalize(0);
  firstPart = 0;
  let unit = lowest;
  let kind = KIND_PART;
  let isFirst = true;
  for (let leading = highestDigit(); leading >= 0; leading = highestDigit()) {
    if (leading + unit > 1023) return false;
    // Position of the part's last digit.
    const last = max(max(leading - 52, SMALLEST - unit), 0);
    const q = rounded(last, leading);
    if (q === 0) {
      // What is left is below half of the smallest number. Only once: LOWEST is not so low.
      kind = KIND_LOW;
      unit += LOW_SCALE;
      isFirst = false;
      continue;
    }
    const magnitude = scaled(q, last + unit);
    if (!Number.isFinite(magnitude)) return false;
    const part = isSumNegative() ? -magnitude : magnitude;
    if (isFirst) firstPart = part;
    else addResidue(index, kind, part);
    isFirst = false;
    addProduct(q, 1, last, true);
    normalize(last >> 5);
  }
  return true;
}

/** The sum / 2^position rounded to an integer, ties to even; at most 2^53. */
function rounded(position: i32, leading: i32): u64 {
  let q: u64 = position > leading ? 0 : digits(position);
  if (position === 0 || position > leading + 1) return q;
  const half = position - 1;
  if (((limb(half >> 5) >> (half & 31)) & 1) === 0) return q;
  let rest = limb(half >> 5) & (((<u64>1) << (half & 31)) - 1);
  for (let i = (half >> 5) - 1; i >= 0; i--) rest |= limb(i);
  if (rest !== 0 || (q & 1) !== 0) q++;
  return q;
}

/** 64 binary digits from a position on, fewer at the end. */
function digits(position: i32): u64 {
  const i = position >> 5;
  const s = <u64>(position & 31);
  const low = (limb(i) | (limb(i + 1) << 32)) >> s;
  return s === 0 ? low : low | (limb(i + 2) << (64 - s));
}

/** q·2^e, which is a binary64 number or too large. */
function scaled(q: u64, e: i32): f64 {
  if (e < -1000) return <f64>q * power(e + 600) * power(-600);
  if (e > 900) return <f64>q * power(e - 300) * power(300);
  return <f64>q * power(e);
}
