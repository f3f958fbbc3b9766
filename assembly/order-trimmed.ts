// The trimmed mean of K blocks and the median, which is the mean that is trimmed most.
//
//   for each element: sort x_0 … x_(K-1), leave out `cut` at each end, out = the mean of the rest
//
// With cut = (K - 1) >> 1 one value is left or, for an even K, two. A tile of all inputs is brought into the first cache
// as keys (order-keys), a network brings what is to be left into the middle rows (order-network), and the exact mean of
// equal weights (mean) makes one of them: mathematically exact, rounded once, ties to even. So the bits depend on nothing
// but the values: neither on the order of the inputs nor on the cut into blocks.

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
import { meanPlan, meanPlanBytes } from './mean-plan';
import { mapKeys, openKeys, ROW_UNIT, rowBytes, spreadNaN } from './order-keys';
import { exchange, networkBytes, selectingNetwork } from './order-network';

// Offsets in a plan, which is 16-byte aligned.
const TRIM_K: usize = 0; // u32: inputs
const TRIM_CUT: usize = 4; // u32: how many are left out at each end
const TRIM_STRIDE: usize = 8; // u32: bytes of a row
const TRIM_COUNT: usize = 12; // u32: comparators
const TRIM_NETWORK: usize = 16; // u32: address of the comparators
const TRIM_ROWS: usize = 20; // u32: address of k rows, behind which stands a row for a result
const TRIM_TABLE: usize = 24; // u32: address of the table of the rows that are left
const TRIM_MEAN: usize = 28; // u32: address of their plan
const TRIM_HEADER: usize = 32;

/** Bytes of a plan for k inputs, at least one. */
export function trimmedPlanBytes(k: u32): usize {
  const rows = (<usize>k + 1) * rowBytes(k);
  return TRIM_HEADER + align(meanPlanBytes(k)) + rows + align((<usize>k) << 2) + networkBytes(k);
}

/** Prepares a plan that leaves out `cut` of k inputs at each end; 2·cut < k <= ORDER_MAX_INPUTS. */
export function trimmedPlan(k: u32, cut: u32, plan: usize): void {
  const left = k - 2 * cut;
  const stride = rowBytes(k);
  const weights = plan + TRIM_HEADER;
  const rows = weights + align(meanPlanBytes(k));
  const table = rows + (<usize>k + 1) * stride;
  const network = table + align((<usize>k) << 2);
  store<u32>(plan, k, TRIM_K);
  store<u32>(plan, cut, TRIM_CUT);
  store<u32>(plan, <u32>stride, TRIM_STRIDE);
  store<u32>(plan, <u32>network, TRIM_NETWORK);
  store<u32>(plan, <u32>rows, TRIM_ROWS);
  store<u32>(plan, <u32>table, TRIM_TABLE);
  store<u32>(plan, <u32>weights, TRIM_MEAN);
  // The rows serve as room until there are keys.
  store<u32>(plan, selectingNetwork(network, k, cut, k - cut, rows), TRIM_COUNT);
  for (let i: usize = 0; i < left; i++) store<f64>(rows + (i << 3), 1);
  meanPlan(rows, left, weights);
  for (let i: usize = 0; i < left; i++) store<u32>(table + (i << 2), <u32>(rows + (<usize>cut + i) * stride));
}

function align(bytes: usize): usize {
  return (bytes + 15) & ~15;
}

/**
 * Combines n elements. `inputs` is the address of k addresses (u32) of blocks of n elements; blocks and `out` have any
 * alignment, and `out` overlaps no block. Answers a MEAN_ status.
 *
 * NaN or infinity in any input is MEAN_NON_FINITE, with `out` undefined. With `propagate`, NaN in any input makes the
 * element NaN in its canonical form, and infinities are values like others: a rest with both of them is NaN.
 */
export function trimmed(dtype: u32, plan: usize, inputs: usize, n: u32, out: usize, propagate: bool): i32 {
  if (dtype === DTYPE_COMPLEX64) return trimmed(DTYPE_FLOAT32, plan, inputs, n << 1, out, propagate);
  if (dtype === DTYPE_COMPLEX128) return trimmed(DTYPE_FLOAT64, plan, inputs, n << 1, out, propagate);
  openKeys(dtype);
  switch (elementSize(dtype)) {
    case 1:
      return trimTiles<i8>(dtype, plan, inputs, n, out, propagate);
    case 2:
      return trimTiles<i16>(dtype, plan, inputs, n, out, propagate);
    case 4:
      return trimTiles<i32>(dtype, plan, inputs, n, out, propagate);
    case 8:
      return trimTiles<i64>(dtype, plan, inputs, n, out, propagate);
  }
  return MEAN_DTYPE_UNSUPPORTED;
}

function trimTiles<T>(dtype: u32, plan: usize, inputs: usize, n: u32, out: usize, propagate: bool): i32 {
  const k = <usize>load<u32>(plan, TRIM_K);
  const stride = <usize>load<u32>(plan, TRIM_STRIDE);
  const rows = <usize>load<u32>(plan, TRIM_ROWS);
  const table = <usize>load<u32>(plan, TRIM_TABLE);
  const left = k - 2 * <usize>load<u32>(plan, TRIM_CUT);
  const end = <usize>n * sizeof<T>();
  for (let at: usize = 0; at < end; at += stride) {
    const bytes = min(stride, end - at);
    const width = (bytes + ROW_UNIT - 1) & ~(ROW_UNIT - 1);
    let finite = true;
    for (let j: usize = 0; j < k; j++) {
      let from = <usize>load<u32>(inputs + (j << 2)) + at;
      const row = rows + j * stride;
      if (bytes < width) {
        memory.fill(row + bytes, 0, width - bytes);
        memory.copy(row, from, bytes);
        from = row;
      }
      if (!mapKeys<T>(from, row, width)) finite = false;
    }
    if (!finite && !propagate) return MEAN_NON_FINITE;
    exchange<T>(load<u32>(plan, TRIM_NETWORK), load<u32>(plan, TRIM_COUNT), rows, stride, width);
    const to = bytes < width ? rows + k * stride : out + at;
    if (left === 1) {
      mapKeys<T>(load<u32>(table), to, width);
    } else {
      for (let j: usize = 0; j < left; j++) {
        const row = <usize>load<u32>(table + (j << 2));
        mapKeys<T>(row, row, width);
      }
      mean(dtype, load<u32>(plan, TRIM_MEAN), table, <u32>(width / sizeof<T>()), to, true);
    }
    if (bytes < width) memory.copy(out + at, to, bytes);
    if (!finite) spreadNaN(dtype, <u32>k, inputs, at, bytes, out + at);
  }
  return MEAN_OK;
}
