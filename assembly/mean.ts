// The weighted mean of K blocks: Σ w_j·x_j / Σ w_j for each element, mathematically exact and rounded once to the dtype,
// ties to even. Its bits depend neither on the order of the inputs nor on how elements are cut into blocks.

import {
  DTYPE_COMPLEX64,
  DTYPE_COMPLEX128,
  DTYPE_FLOAT32,
  DTYPE_FLOAT64,
  MEAN_DTYPE_UNSUPPORTED,
  MEAN_NON_FINITE,
  MEAN_OK,
} from './abi';
import { elementSize, floatPrecision, loadBits, storeBits } from './mean-exact';
import { meanFloat32 } from './mean-float32';
import { meanFloat64 } from './mean-float64';
import { PLAN_K, planTails, TAIL_BYTES } from './mean-plan';
import { meanSmall } from './mean-small';

/** Elements of a step of the kernels fill this many bytes of each input. */
const STEP: u32 = <u32>TAIL_BYTES;

const TAIL_OUT: usize = memory.data(STEP, 16);

/**
 * Folds n elements. `inputs` is the address of k addresses (u32) of blocks of n elements, in the order of the plan's
 * weightings; blocks and `out` have any alignment, and `out` overlaps no block. Answers a MEAN_ status.
 *
 * NaN or infinity in an input is MEAN_NON_FINITE, with `out` undefined; with `propagate` it goes into the result as
 * IEEE 754 has it, NaN in its canonical form.
 */
export function mean(dtype: u32, plan: usize, inputs: usize, n: u32, out: usize, propagate: bool): i32 {
  if (dtype === DTYPE_COMPLEX64) return mean(DTYPE_FLOAT32, plan, inputs, n << 1, out, propagate);
  if (dtype === DTYPE_COMPLEX128) return mean(DTYPE_FLOAT64, plan, inputs, n << 1, out, propagate);
  const size = elementSize(dtype);
  if (size === 0) return MEAN_DTYPE_UNSUPPORTED;
  const isWide = dtype === DTYPE_FLOAT32 || dtype === DTYPE_FLOAT64;
  const finite = isWide ? foldInSteps(size, plan, inputs, n, out) : meanSmall(dtype, plan, inputs, n, out);
  if (finite) return MEAN_OK;
  if (!propagate) return MEAN_NON_FINITE;
  propagateNonFinite(dtype, plan, inputs, n, out);
  return MEAN_OK;
}

function foldInSteps(size: u32, plan: usize, inputs: usize, n: u32, out: usize): bool {
  const bytes = n * size;
  const whole = bytes - (bytes % STEP);
  const finite = step(size, plan, inputs, whole / size, out);
  if (whole === bytes) return finite;
  // The kernels read whole steps only, so the last elements go by way of blocks of the plan, filled up with zeros.
  const k = load<u32>(plan, PLAN_K);
  const table = planTails(plan);
  for (let j: u32 = 0; j < k; j++) {
    const tail = <usize>load<u32>(table + ((<usize>j) << 2));
    memory.fill(tail, 0, TAIL_BYTES);
    memory.copy(tail, <usize>load<u32>(inputs + ((<usize>j) << 2)) + whole, bytes - whole);
  }
  const tailIsFinite = step(size, plan, table, STEP / size, TAIL_OUT);
  memory.copy(out + whole, TAIL_OUT, bytes - whole);
  return finite && tailIsFinite;
}

function step(size: u32, plan: usize, inputs: usize, n: u32, out: usize): bool {
  return size === 4 ? meanFloat32(plan, inputs, n, out) : meanFloat64(plan, inputs, n, out);
}

/**
 * Writes the elements that have a NaN or infinity: NaN if there is a NaN or infinities of both signs, else the infinity.
 * The OR and the AND of what is not finite tell: they differ when signs do, and NaN has a bit of the significand.
 */
function propagateNonFinite(dtype: u32, plan: usize, inputs: usize, n: u32, out: usize): void {
  const k = load<u32>(plan, PLAN_K);
  const size = elementSize(dtype);
  const precision = floatPrecision(dtype);
  const hidden = (<u64>1) << (precision - 1);
  const infinity = ((<u64>1) << (8 * size - 1)) - hidden;
  for (let at: usize = 0, end = <usize>n * size; at < end; at += size) {
    let any: u64 = 0;
    let all: u64 = -1;
    for (let j: u32 = 0; j < k; j++) {
      const bits = loadBits(<usize>load<u32>(inputs + ((<usize>j) << 2)) + at, size);
      if ((bits & infinity) !== infinity) continue;
      any |= bits;
      all &= bits;
    }
    if (any === 0) continue;
    const isInfinity = any === all && (any & (hidden - 1)) === 0;
    storeBits(out + at, size, isInfinity ? any : infinity | (hidden >> 1));
  }
}
