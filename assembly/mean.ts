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
import { meanFloat32 } from './mean-float32';
import { meanFloat64 } from './mean-float64';
import { PLAN_K, planTails, TAIL_BYTES } from './mean-plan';

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
  if (dtype === DTYPE_FLOAT32) return fold(4, plan, inputs, n, out, propagate);
  if (dtype === DTYPE_FLOAT64) return fold(8, plan, inputs, n, out, propagate);
  if (dtype === DTYPE_COMPLEX64) return fold(4, plan, inputs, n << 1, out, propagate);
  if (dtype === DTYPE_COMPLEX128) return fold(8, plan, inputs, n << 1, out, propagate);
  return MEAN_DTYPE_UNSUPPORTED;
}

function fold(size: u32, plan: usize, inputs: usize, n: u32, out: usize, propagate: bool): i32 {
  const bytes = n * size;
  const whole = bytes - (bytes % STEP);
  let finite = step(size, plan, inputs, whole / size, out);
  if (whole < bytes) {
    // The kernels read whole steps only, so the last elements go by way of blocks of the plan, filled up with zeros.
    const k = load<u32>(plan, PLAN_K);
    const table = planTails(plan);
    for (let j: u32 = 0; j < k; j++) {
      const tail = <usize>load<u32>(table + ((<usize>j) << 2));
      memory.fill(tail, 0, TAIL_BYTES);
      memory.copy(tail, <usize>load<u32>(inputs + ((<usize>j) << 2)) + whole, bytes - whole);
    }
    finite = step(size, plan, table, STEP / size, TAIL_OUT) && finite;
    memory.copy(out + whole, TAIL_OUT, bytes - whole);
  }
  if (finite) return MEAN_OK;
  if (!propagate) return MEAN_NON_FINITE;
  for (let at: u32 = 0; at < bytes; at += size) {
    if (size === 4) propagate32(plan, inputs, at, out + at);
    else propagate64(plan, inputs, at, out + at);
  }
  return MEAN_OK;
}

function step(size: u32, plan: usize, inputs: usize, n: u32, out: usize): bool {
  return size === 4 ? meanFloat32(plan, inputs, n, out) : meanFloat64(plan, inputs, n, out);
}

// An element with NaN, or with infinities of both signs, is NaN; one with infinities of one sign is that infinity. The OR
// of what is not finite tells: of NaN a bit of the significand, of infinities the sign, and whether + and - were seen.

function propagate32(plan: usize, inputs: usize, at: usize, out: usize): void {
  const k = load<u32>(plan, PLAN_K);
  let any: u32 = 0;
  let all: u32 = -1;
  for (let j: u32 = 0; j < k; j++) {
    const bits = load<u32>(<usize>load<u32>(inputs + ((<usize>j) << 2)) + at);
    if (bits << 1 < 0xff000000) continue;
    any |= bits;
    all &= bits;
  }
  if (any !== 0) store<u32>(out, any === all && (any & 0x7fffff) === 0 ? any : 0x7fc00000);
}

function propagate64(plan: usize, inputs: usize, at: usize, out: usize): void {
  const k = load<u32>(plan, PLAN_K);
  let any: u64 = 0;
  let all: u64 = -1;
  for (let j: u32 = 0; j < k; j++) {
    const bits = load<u64>(<usize>load<u32>(inputs + ((<usize>j) << 2)) + at);
    if (bits << 1 < 0xffe0000000000000) continue;
    any |= bits;
    all &= bits;
  }
  if (any !== 0) store<u64>(out, any === all && (any & 0xfffffffffffff) === 0 ? any : 0x7ff8000000000000);
}
