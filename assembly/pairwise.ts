// Squared distances of all pairs of K inputs.
//
//   out[pair of a, b] = Σ_i (x_a,i - x_b,i)^2     for each chunk of CHUNK elements, in the fixed shape of lanes
//
// Pairs stand in the order (0,1) (0,2) … (0,K-1) (1,2) …. Inputs are taken in groups of 16 and groups against groups: of
// two groups a tile of each input is widened to binary64, 32 KiB in all, and while it lies in the nearest cache, two
// inputs are measured against two others at a time, with eight registers of lanes. So a number is widened once for up to
// sixteen pairs and loaded once for two, and the room does not depend on K: only `out` does, K(K - 1)/2 sums a chunk.
//
// Not by way of the Gram matrix (x·x + y·y - 2 x·y), which a matrix product would give faster: models of one round are
// close to one another, and what makes them differ would cancel.

import { CHUNK } from './abi';
import { addSquares, LANES_BYTES, sumLanes } from './lanes';
import { elementSize } from './mean-exact';
import { numberType, widen } from './widen';

/** Numbers of a tile of one input. */
const TILE: u32 = 128;
const TILE_BYTES: usize = 8 * <usize>TILE;

/** Inputs of a group. */
const GROUP: u32 = 16;

/** Tiles of two groups. */
const TILES: usize = memory.data(2 * <i32>GROUP * 8 * <i32>TILE, 16);
const OTHER_TILES: usize = TILES + <usize>GROUP * TILE_BYTES;

/** Lanes of each pair of two groups, a row for each input of the first. */
const ROW_BYTES: usize = <usize>GROUP * LANES_BYTES;
const LANES: usize = memory.data(<i32>GROUP * <i32>GROUP * <i32>LANES_BYTES, 16);

/**
 * Measures all pairs. `inputs` is the address of k addresses (u32) of blocks of n elements, with any alignment, that begin
 * at the border of a chunk; `out` takes k(k - 1)/2 sums (f64) for each chunk, chunk by chunk, and overlaps no block; k is
 * below 2^16. Answers false for an unknown dtype.
 */
export function pairwiseDistances(dtype: u32, inputs: usize, k: u32, n: u32, out: usize): bool {
  const type = numberType(dtype);
  const size = elementSize(type);
  if (size === 0) return false;
  const parts: u32 = type === dtype ? 1 : 2;
  for (let first: u32 = 0; first < n; first += CHUNK) {
    const count = min<u32>(CHUNK, n - first) * parts;
    const at = <usize>first * parts * size;
    for (let a: u32 = 0; a < k; a += GROUP) {
      for (let b = a; b < k; b += GROUP) measureGroups(type, inputs, k, a, b, at, count, out);
    }
    out += (<usize>pairsBefore(k, k)) << 3;
  }
  return true;
}

/** Pairs whose first input is one of the first a. */
function pairsBefore(a: u32, k: u32): u32 {
  return (a * (2 * k - a - 1)) >> 1;
}

/** Pairs of the inputs from a on and the inputs from b on, or of the former among themselves when a = b. */
function measureGroups(
  type: u32,
  inputs: usize,
  k: u32,
  a: u32,
  b: u32,
  at: usize,
  count: u32,
  out: usize,
): void {
  const size = elementSize(type);
  const rows = min<u32>(GROUP, k - a);
  const columns = min<u32>(GROUP, k - b);
  const beside = a === b ? TILES : OTHER_TILES;
  memory.fill(LANES, 0, <usize>GROUP * ROW_BYTES);
  for (let i: u32 = 0; i < count; i += TILE) {
    const m = min<u32>(TILE, count - i);
    const from = at + <usize>i * size;
    widenGroup(type, inputs + ((<usize>a) << 2), rows, from, m, TILES);
    if (a !== b) widenGroup(type, inputs + ((<usize>b) << 2), columns, from, m, beside);
    addTile(rows, columns, beside, (m + 3) & ~3);
  }
  for (let i: u32 = 0; i < rows; i++) {
    const row = out + ((<usize>pairsBefore(a + i, k)) << 3);
    for (let j: u32 = a === b ? i + 1 : 0; j < columns; j++) {
      const position = b + j - (a + i) - 1;
      store<f64>(row + ((<usize>position) << 3), sumLanes(lanesOf(i, j)));
    }
  }
}

function widenGroup(type: u32, inputs: usize, count: u32, from: usize, m: u32, to: usize): void {
  for (let j: u32 = 0; j < count; j++) {
    widen(type, <usize>load<u32>(inputs + ((<usize>j) << 2)) + from, m, to + <usize>j * TILE_BYTES);
  }
}

function lanesOf(i: u32, j: u32): usize {
  return LANES + <usize>i * ROW_BYTES + <usize>j * LANES_BYTES;
}

/** Adds a tile of m numbers of every pair, two inputs against two as far as they go. */
function addTile(rows: u32, columns: u32, beside: usize, m: u32): void {
  const isOneGroup = beside === TILES;
  for (let i: u32 = 0; i < rows; i += 2) {
    const a = TILES + <usize>i * TILE_BYTES;
    const isLast = i + 1 === rows;
    let j: u32 = 0;
    if (isOneGroup) {
      if (!isLast) addSquares(a, a + TILE_BYTES, m, lanesOf(i, i + 1));
      j = i + 2;
    }
    for (; j < columns; j++) {
      const b = beside + <usize>j * TILE_BYTES;
      if (isLast) {
        addSquares(a, b, m, lanesOf(i, j));
      } else if (ASC_FEATURE_SIMD && j + 1 < columns) {
        addFour(a, b, m, lanesOf(i, j));
        j++;
      } else {
        addSquares(a, b, m, lanesOf(i, j));
        addSquares(a + TILE_BYTES, b, m, lanesOf(i + 1, j));
      }
    }
  }
}

/** The same as addSquares for the tiles at a and behind it against those at b and behind it. */
function addFour(a: usize, b: usize, n: u32, lanes: usize): void {
  let s0 = v128.load(lanes);
  let s1 = v128.load(lanes, 16);
  let t0 = v128.load(lanes, 32);
  let t1 = v128.load(lanes, 48);
  let u0 = v128.load(lanes + ROW_BYTES);
  let u1 = v128.load(lanes + ROW_BYTES, 16);
  let v0 = v128.load(lanes + ROW_BYTES, 32);
  let v1 = v128.load(lanes + ROW_BYTES, 48);
  for (const end = a + ((<usize>n) << 3); a < end; a += 32) {
    const x = v128.load(a);
    const y = v128.load(a, TILE_BYTES);
    const p = v128.load(b);
    const q = v128.load(b, TILE_BYTES);
    let d = f64x2.sub(x, p);
    s0 = f64x2.add(s0, f64x2.mul(d, d));
    d = f64x2.sub(x, q);
    t0 = f64x2.add(t0, f64x2.mul(d, d));
    d = f64x2.sub(y, p);
    u0 = f64x2.add(u0, f64x2.mul(d, d));
    d = f64x2.sub(y, q);
    v0 = f64x2.add(v0, f64x2.mul(d, d));
    const x1 = v128.load(a, 16);
    const y1 = v128.load(a, TILE_BYTES + 16);
    const p1 = v128.load(b, 16);
    const q1 = v128.load(b, TILE_BYTES + 16);
    d = f64x2.sub(x1, p1);
    s1 = f64x2.add(s1, f64x2.mul(d, d));
    d = f64x2.sub(x1, q1);
    t1 = f64x2.add(t1, f64x2.mul(d, d));
    d = f64x2.sub(y1, p1);
    u1 = f64x2.add(u1, f64x2.mul(d, d));
    d = f64x2.sub(y1, q1);
    v1 = f64x2.add(v1, f64x2.mul(d, d));
    b += 32;
  }
  v128.store(lanes, s0);
  v128.store(lanes, s1, 16);
  v128.store(lanes, t0, 32);
  v128.store(lanes, t1, 48);
  v128.store(lanes + ROW_BYTES, u0);
  v128.store(lanes + ROW_BYTES, u1, 16);
  v128.store(lanes + ROW_BYTES, v0, 32);
  v128.store(lanes + ROW_BYTES, v1, 48);
}
