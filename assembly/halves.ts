// float16 and bfloat16 as binary64 and back, one number at a time.
//
// Every number of both is a binary64 number. The way back rounds once, ties to even: by way of float32 it would round twice.

import { power } from './mean-plan';

/** Canonical NaN. */
const NAN16: u32 = 0x7e00;
const NAN_BRAIN: u32 = 0x7fc0;

/** 2^112, between the exponent biases of float16 and float32. */
const REBIAS: f64 = 5.192296858534828e33;

/** Half a unit above the largest numbers: from here on the nearest is infinity. */
const OVERFLOW16: f64 = 65520;
const OVERFLOW_BRAIN: f64 = 3.39617752923046e38;

/** The float16 number with these bits. */
export function fromHalf(bits: u32): f64 {
  const magnitude = bits & 0x7fff;
  const sign = (bits ^ magnitude) << 16;
  if (magnitude >= 0x7c00) return <f64>reinterpret<f32>(0x7f800000 | (magnitude << 13) | sign);
  // The exponent field keeps its value under another bias, subnormals too; the factor corrects it.
  return <f64>reinterpret<f32>((magnitude << 13) | sign) * REBIAS;
}

/** The bfloat16 number with these bits. */
export function fromBrain(bits: u32): f64 {
  return <f64>reinterpret<f32>(bits << 16);
}

/** Bits of the float16 number nearest to x, NaN canonical; what is too large becomes infinity. */
export function toHalf(x: f64): u32 {
  const sign = <u32>(reinterpret<u64>(x) >> 48) & 0x8000;
  const a = abs(x);
  if (!(a >= 0)) return NAN16;
  if (a >= OVERFLOW16) return sign | 0x7c00;
  return sign | (reinterpret<u32>(<f32>(roundTo(a, max(exponent(a) - 10, -24)) / REBIAS)) >> 13);
}

/** Bits of the bfloat16 number nearest to x, NaN canonical; what is too large becomes infinity. */
export function toBrain(x: f64): u32 {
  const sign = <u32>(reinterpret<u64>(x) >> 48) & 0x8000;
  const a = abs(x);
  if (!(a >= 0)) return NAN_BRAIN;
  if (a >= OVERFLOW_BRAIN) return sign | 0x7f80;
  return sign | (reinterpret<u32>(<f32>roundTo(a, max(exponent(a) - 7, -133))) >> 16);
}

function exponent(a: f64): i32 {
  return <i32>(reinterpret<u64>(a) >> 52) - 1023;
}

/** a >= 0 rounded to a multiple of 2^unit: at 1.5·2^52 units binary64 has no digits behind the unit, so the sum rounds. */
function roundTo(a: f64, unit: i32): f64 {
  const magic = 1.5 * power(unit + 52);
  return a + magic - magic;
}
