// float32 elements as int8 codes with a scale s and a zero point z for each run of `block` elements of a tensor:
//
//   lo = min(0, x…)  hi = max(0, x…)  s = float32((hi - lo) / 255)  z = clamp(round(-128 - lo / s))
//   q = clamp(round(float32(x / s)) + z)      decoded: float32(s·(q - z)), rounded once
//
// round is half to even, clamp is to [-128, 127]; lo / s and (hi - lo) / 255 are binary64. Zero is always decoded as zero. Where
// s is 0 (all zeros, or too small a range) all codes are z = 0. Blocks of memory have any alignment and do not overlap.

/**
 * Encodes n elements, the first of which begins a block: codes (int8), scales (float32) and zero points (int8), one each for
 * every begun block. Answers false when an element is NaN or infinite: codes are undefined then.
 */
export function quantise(x: usize, n: u32, block: u32, codes: usize, scales: usize, zeros: usize): bool {
  let finite = true;
  for (let i: u32 = 0; i < n; ) {
    const count = min(block, n - i);
    if (!quantiseBlock(x + ((<usize>i) << 2), count, codes + i, scales, zeros)) finite = false;
    i += count;
    scales += 4;
    zeros += 1;
  }
  return finite;
}

function quantiseBlock(x: usize, n: u32, codes: usize, scaleAt: usize, zeroAt: usize): bool {
  store<f32>(EXTENT, 0);
  store<f32>(EXTENT, 0, 4);
  if (!extend(x, n, EXTENT)) return false;
  scaleOf(EXTENT, scaleAt, zeroAt);
  quantiseBy(x, n, scaleAt, zeroAt, codes);
  return true;
}

/** Two float32, the extent of a block. */
const EXTENT: usize = memory.data(8, 4);

/**
 * Takes n elements into an extent, lo and hi as two float32 that begin at 0. Answers false when an element is NaN or infinite:
 * the extent is undefined then.
 */
export function extend(x: usize, n: u32, extent: usize): bool {
  let lo = load<f32>(extent);
  let hi = load<f32>(extent, 4);
  let finite = true;
  let i: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    // Two of each: the next comparison need not wait for the last one.
    let lows = f32x4.splat(lo);
    let lows1 = lows;
    let highs = f32x4.splat(hi);
    let highs1 = highs;
    let rests = f32x4.splat(0);
    for (; n - i >= 16; i += 16) {
      const p = x + ((<usize>i) << 2);
      const a = v128.load(p);
      const b = v128.load(p, 16);
      const c = v128.load(p, 32);
      const d = v128.load(p, 48);
      lows = f32x4.pmin(lows, f32x4.pmin(a, b));
      highs = f32x4.pmax(highs, f32x4.pmax(a, b));
      lows1 = f32x4.pmin(lows1, f32x4.pmin(c, d));
      highs1 = f32x4.pmax(highs1, f32x4.pmax(c, d));
      // a - a is +0, or NaN
      rests = v128.or(rests, v128.or(f32x4.sub(a, a), f32x4.sub(b, b)));
      rests = v128.or(rests, v128.or(f32x4.sub(c, c), f32x4.sub(d, d)));
    }
    lows = f32x4.pmin(lows, lows1);
    highs = f32x4.pmax(highs, highs1);
    for (; n - i >= 4; i += 4) {
      const v = v128.load(x + ((<usize>i) << 2));
      lows = f32x4.pmin(lows, v);
      highs = f32x4.pmax(highs, v);
      rests = v128.or(rests, f32x4.sub(v, v));
    }
    finite = !v128.any_true(rests);
    lows = f32x4.pmin(lows, i64x2.shuffle(lows, lows, 1, 0));
    lo = min(f32x4.extract_lane(lows, 0), f32x4.extract_lane(lows, 1));
    highs = f32x4.pmax(highs, i64x2.shuffle(highs, highs, 1, 0));
    hi = max(f32x4.extract_lane(highs, 0), f32x4.extract_lane(highs, 1));
  }
  for (; i < n; i++) {
    const v = load<f32>(x + ((<usize>i) << 2));
    lo = min(lo, v);
    hi = max(hi, v);
    if (!(abs(v) < Infinity)) finite = false;
  }
  store<f32>(extent, lo);
  store<f32>(extent, hi, 4);
  return finite;
}

/** Gives the scale (float32) and the zero point (int8) of an extent. */
export function scaleOf(extent: usize, scaleAt: usize, zeroAt: usize): void {
  const lo = <f64>load<f32>(extent);
  const scale = <f32>((<f64>load<f32>(extent, 4) - lo) / 255);
  store<f32>(scaleAt, scale);
  store<i8>(zeroAt, scale > 0 ? <i8>(<i32>clamp(nearest(-128 - lo / <f64>scale))) : 0);
}

/** Encodes n finite elements with one scale and one zero point. */
export function quantiseBy(x: usize, n: u32, scaleAt: usize, zeroAt: usize, codes: usize): void {
  const scale = load<f32>(scaleAt);
  const zero = <i32>load<i8>(zeroAt);
  if (scale === 0) {
    memory.fill(codes, 0, n);
    return;
  }
  let i: u32 = 0;
  if (ASC_FEATURE_SIMD) {
    const s = f32x4.splat(scale);
    // The quotients are within ±510: adding MAGIC rounds them half to even, into the low bits of the sum.
    const magic = f32x4.splat(MAGIC);
    const z = i32x4.splat(zero - <i32>reinterpret<u32>(MAGIC));
    for (; n - i >= 16; i += 16) {
      const p = x + ((<usize>i) << 2);
      const q0 = i32x4.add(f32x4.add(f32x4.div(v128.load(p), s), magic), z);
      const q1 = i32x4.add(f32x4.add(f32x4.div(v128.load(p, 16), s), magic), z);
      const q2 = i32x4.add(f32x4.add(f32x4.div(v128.load(p, 32), s), magic), z);
      const q3 = i32x4.add(f32x4.add(f32x4.div(v128.load(p, 48), s), magic), z);
      // Narrowing saturates, which is the clamp.
      const low = i16x8.narrow_i32x4_s(q0, q1);
      const high = i16x8.narrow_i32x4_s(q2, q3);
      v128.store(codes + i, i8x16.narrow_i16x8_s(low, high));
    }
  }
  for (; i < n; i++) {
    const q = nearest<f32>(load<f32>(x + ((<usize>i) << 2)) / scale);
    store<i8>(codes + i, <i8>(<i32>clamp(<f64>q + <f64>zero)));
  }
}

/** 1.5·2^23: its unit in the last place is one. */
const MAGIC: f32 = 12582912;

function clamp(x: f64): f64 {
  return min(max(x, -128.0), 127.0);
}

/**
 * Decodes n elements from the one at `start` of a tensor on. `codes`, `scales` and `zeros` are those of the whole tensor, or
 * begin with the block that `start` counts from.
 */
export function dequantise(
  codes: usize,
  scales: usize,
  zeros: usize,
  block: u32,
  start: u32,
  n: u32,
  out: usize,
): void {
  for (let i = start, end = start + n; i < end; ) {
    const b = i / block;
    const stop = min(end, (b + 1) * block);
    const scale = load<f32>(scales + ((<usize>b) << 2));
    const zero = <i32>load<i8>(zeros + b);
    if (ASC_FEATURE_SIMD) {
      const s = f32x4.splat(scale);
      const z = i16x8.splat(<i16>zero);
      for (; stop - i >= 8; i += 8) {
        const q = i16x8.sub(v128.load_ext<i8>(codes + i), z);
        v128.store(out, f32x4.mul(s, f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(q))));
        v128.store(out, f32x4.mul(s, f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(q))), 16);
        out += 32;
      }
    }
    for (; i < stop; i++) {
      store<f32>(out, scale * <f32>(<i32>load<i8>(codes + i) - zero));
      out += 4;
    }
  }
}
