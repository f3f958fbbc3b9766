// Sums of squared differences in a fixed shape, so that their bits are the same on every host and for any cut into ranges.
//
//   lane[i mod 4] += (a_i - b_i)^2, in order of i; sum = (lane 0 + lane 1) + (lane 2 + lane 3)
//
// Binary64 throughout, one rounding for each of the three operations. A sum is of one chunk (CHUNK elements of a tensor;
// of a complex one both components of each); the caller adds chunks in their order.

/** Four lanes, binary64 each. */
export const LANES_BYTES: usize = 32;

/**
 * Adds n squared differences to four lanes; n is a multiple of four. A pair of zeros leaves a lane as it is: lanes begin
 * at +0 and are never -0. All addresses are 16-byte aligned.
 */
export function addSquares(a: usize, b: usize, n: u32, lanes: usize): void {
  const end = a + ((<usize>n) << 3);
  if (ASC_FEATURE_SIMD) {
    let s0 = v128.load(lanes);
    let s1 = v128.load(lanes, 16);
    for (; a < end; a += 32) {
      const d0 = f64x2.sub(v128.load(a), v128.load(b));
      const d1 = f64x2.sub(v128.load(a, 16), v128.load(b, 16));
      s0 = f64x2.add(s0, f64x2.mul(d0, d0));
      s1 = f64x2.add(s1, f64x2.mul(d1, d1));
      b += 32;
    }
    v128.store(lanes, s0);
    v128.store(lanes, s1, 16);
    return;
  }
  for (; a < end; a += 32) {
    for (let lane: usize = 0; lane < LANES_BYTES; lane += 8) {
      const d = load<f64>(a + lane) - load<f64>(b + lane);
      store<f64>(lanes + lane, load<f64>(lanes + lane) + d * d);
    }
    b += 32;
  }
}

/** The sum of four lanes, NaN in canonical form. */
export function sumLanes(lanes: usize): f64 {
  const sum = load<f64>(lanes) + load<f64>(lanes, 8) + (load<f64>(lanes, 16) + load<f64>(lanes, 24));
  return sum >= 0 ? sum : NaN; // squares: what is not positive is NaN
}
