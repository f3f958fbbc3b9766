// The mathematically exact weighted mean on BigInt, rounded once: what the kernels are held to. Slow and plain.

/** What a result may be: significand bits with the hidden one, and the exponent of the smallest positive number. */
export interface FloatFormat {
  readonly precision: number;
  readonly smallest: number;
}

export const FORMATS = {
  float16: { precision: 11, smallest: -24 },
  bfloat16: { precision: 8, smallest: -133 },
  float32: { precision: 24, smallest: -149 },
  float64: { precision: 53, smallest: -1074 },
} as const satisfies Record<string, FloatFormat>;

const scratch = new DataView(new ArrayBuffer(8));

/** A finite number as significand and exponent: x = significand · 2^exponent, zero as 0 · 2^0. */
export function takeApart(x: number): { significand: bigint; exponent: number } {
  if (x === 0) return { significand: 0n, exponent: 0 };
  scratch.setFloat64(0, x);
  const bits = scratch.getBigUint64(0);
  const field = Number((bits >> 52n) & 0x7ffn);
  const fraction = bits & 0xfffffffffffffn;
  const magnitude = field === 0 ? fraction : fraction | (1n << 52n);
  return { significand: x < 0 ? -magnitude : magnitude, exponent: Math.max(field, 1) - 1075 };
}

/** Weightings as integers, all scaled by one power of two, with their sum. */
export interface IntegerWeights {
  readonly weights: readonly bigint[];
  readonly total: bigint;
}

export function integerWeights(weightings: readonly number[]): IntegerWeights {
  const parts = weightings.map(takeApart);
  const lowest = Math.min(...parts.map((part) => part.exponent));
  const weights = parts.map((part) => part.significand << BigInt(part.exponent - lowest));
  return { weights, total: weights.reduce((a, b) => a + b, 0n) };
}

/** Number of binary digits of n > 0. */
function bitLength(n: bigint): number {
  const hex = n.toString(16);
  return 4 * hex.length - Math.clz32(Number.parseInt(hex[0]!, 16)) + 28;
}

/** numerator / denominator rounded to an integer, ties to even; both positive. */
function roundedQuotient(numerator: bigint, denominator: bigint): bigint {
  const quotient = numerator / denominator;
  const twice = 2n * (numerator - quotient * denominator);
  const isUp = twice > denominator || (twice === denominator && (quotient & 1n) === 1n);
  return isUp ? quotient + 1n : quotient;
}

/** numerator / denominator · 2^exponent rounded to the format; the numerator is not zero, the denominator positive. */
export function roundRational(
  numerator: bigint,
  denominator: bigint,
  exponent: number,
  format: FloatFormat,
): number {
  const magnitude = numerator < 0n ? -numerator : numerator;
  // The quotient lies within 2^(digits - 1) and 2^(digits + 1).
  const digits = bitLength(magnitude) - bitLength(denominator);
  const isHigh =
    digits >= 0 ? magnitude >= denominator << BigInt(digits) : magnitude << BigInt(-digits) >= denominator;
  const leading = isHigh ? digits : digits - 1;
  const unit = Math.max(leading - format.precision + 1, format.smallest - exponent);
  const q =
    unit >= 0
      ? roundedQuotient(magnitude, denominator << BigInt(unit))
      : roundedQuotient(magnitude << BigInt(-unit), denominator);
  // The value is a number of the format, so both steps are exact: the first one stays far from the subnormals.
  const e = unit + exponent;
  const value = e < -1000 ? Number(q) * 2 ** -900 * 2 ** (e + 900) : Number(q) * 2 ** e;
  return numerator < 0n ? -value : value;
}

/** The exact mean of finite numbers in one format, rounded once to it. */
export function exactMean(xs: readonly number[], weights: IntegerWeights, format: FloatFormat): number {
  const parts = xs.map(takeApart);
  let base = 2000;
  for (const part of parts) if (part.significand !== 0n) base = Math.min(base, part.exponent);
  if (base === 2000) return xs.every((x) => Object.is(x, -0)) ? -0 : 0;
  let sum = 0n;
  for (const [j, part] of parts.entries()) {
    if (part.significand !== 0n)
      sum += weights.weights[j]! * (part.significand << BigInt(part.exponent - base));
  }
  return sum === 0n ? 0 : roundRational(sum, weights.total, base, format);
}
