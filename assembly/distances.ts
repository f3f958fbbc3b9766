// Squared distances of K inputs to one centre: zero, the global model, or the inputs' own weighted mean.
//
//   out[j] = Σ_i (x_j,i - z_i)^2     for each chunk of CHUNK elements (the last one of a tensor has fewer), see lanes
//
// Binary64 throughout, after exact widening (int64 and uint64 are rounded). Distances are measured as differences, never
// as x·x - 2 x·z + z·z: models of one round are close to one another, and that form would cancel.

import { CHUNK } from './abi';
import { addSquares, LANES_BYTES, sumLanes } from './lanes';
import { elementSize } from './mean-exact';
import { numberType, widen } from './widen';

/** Numbers widened at a time: they stay in the nearest cache. */
const TILE: u32 = 512;

const NUMBERS: usize = memory.data(<i32>TILE * 8, 16);
const LANES: usize = memory.data(<i32>LANES_BYTES, 16);

/** A chunk of complex elements has twice as many numbers. */
const CENTRE: usize = memory.data(CHUNK * 2 * 8, 16);

/**
 * Squared norms. `inputs` is the address of k addresses (u32) of blocks of n elements, with any alignment, that begin at
 * the border of a chunk; `out` takes k sums (f64) for each chunk, chunk by chunk. Answers false for an unknown dtype.
 */
export function squaredNorms(dtype: u32, inputs: usize, k: u32, n: u32, out: usize): bool {
  return distances(dtype, inputs, k, n, 0, 0, out);
}

/** Squared norms of the differences to a block of n elements of the global model; else as above. */
export function squaredDifferences(
  dtype: u32,
  inputs: usize,
  k: u32,
  n: u32,
  model: usize,
  out: usize,
): bool {
  return distances(dtype, inputs, k, n, model, 0, out);
}

/**
 * Squared distances to z = (v_0·x_0 + v_1·x_1 + …) / (v_0 + v_1 + …), in binary64 and that order. `weightings` are k
 * numbers (f64, 8-byte aligned), not all zero; an input of weighting 0 has no part in z. Else as above.
 */
export function squaredToCentre(
  dtype: u32,
  inputs: usize,
  k: u32,
  n: u32,
  weightings: usize,
  out: usize,
): bool {
  return distances(dtype, inputs, k, n, 0, weightings, out);
}

function distances(
  dtype: u32,
  inputs: usize,
  k: u32,
  n: u32,
  model: usize,
  weightings: usize,
  out: usize,
): bool {
  const type = numberType(dtype);
  const size = elementSize(type);
  if (size === 0) return false;
  const parts: u32 = type === dtype ? 1 : 2;
  memory.fill(CENTRE, 0, CHUNK * 2 * 8);
  for (let first: u32 = 0; first < n; first += CHUNK) {
    const count = min<u32>(CHUNK, n - first) * parts;
    const at = <usize>first * parts * size;
    if (model !== 0) widen(type, model + at, count, CENTRE);
    else if (weightings !== 0) findCentre(type, inputs, k, at, count, weightings);
    for (let j: u32 = 0; j < k; j++) {
      const x = <usize>load<u32>(inputs + ((<usize>j) << 2)) + at;
      memory.fill(LANES, 0, LANES_BYTES);
      for (let i: u32 = 0; i < count; i += TILE) {
        const m = min<u32>(TILE, count - i);
        widen(type, x + <usize>i * size, m, NUMBERS);
        addSquares(NUMBERS, CENTRE + ((<usize>i) << 3), (m + 3) & ~3, LANES);
      }
      store<f64>(out, sumLanes(LANES));
      out += 8;
    }
  }
  return true;
}

/** Writes the weighted mean of the blocks to CENTRE, and zeros up to a multiple of four. */
function findCentre(type: u32, inputs: usize, k: u32, at: usize, count: u32, weightings: usize): void {
  const size = elementSize(type);
  const padded = (count + 3) & ~3;
  let total = 0.0;
  memory.fill(CENTRE, 0, (<usize>padded) << 3);
  for (let j: u32 = 0; j < k; j++) {
    const v = load<f64>(weightings + ((<usize>j) << 3));
    if (v === 0) continue;
    total += v;
    const x = <usize>load<u32>(inputs + ((<usize>j) << 2)) + at;
    for (let i: u32 = 0; i < count; i += TILE) {
      const m = min<u32>(TILE, count - i);
      widen(type, x + <usize>i * size, m, NUMBERS);
      addScaled(NUMBERS, v, (m + 3) & ~3, CENTRE + ((<usize>i) << 3));
    }
  }
  divide(CENTRE, total, padded);
}

/** z += v·x for n numbers, a multiple of four. */
function addScaled(x: usize, v: f64, n: u32, z: usize): void {
  const end = x + ((<usize>n) << 3);
  if (ASC_FEATURE_SIMD) {
    const factor = f64x2.splat(v);
    for (; x < end; x += 32) {
      v128.store(z, f64x2.add(v128.load(z), f64x2.mul(factor, v128.load(x))));
      v128.store(z, f64x2.add(v128.load(z, 16), f64x2.mul(factor, v128.load(x, 16))), 16);
      z += 32;
    }
    return;
  }
  for (; x < end; x += 8) {
    store<f64>(z, load<f64>(z) + v * load<f64>(x));
    z += 8;
  }
}

/** z /= total for n numbers, a multiple of four. */
function divide(z: usize, total: f64, n: u32): void {
  const end = z + ((<usize>n) << 3);
  if (ASC_FEATURE_SIMD) {
    const divisor = f64x2.splat(total);
    for (; z < end; z += 16) v128.store(z, f64x2.div(v128.load(z), divisor));
    return;
  }
  for (; z < end; z += 8) store<f64>(z, load<f64>(z) / total);
}
