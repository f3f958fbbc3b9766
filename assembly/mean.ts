// The weighted mean of K blocks.

import {
  DTYPE_COMPLEX64,
  DTYPE_COMPLEX128,
  DTYPE_FLOAT32,
  DTYPE_FLOAT64,
  MEAN_DTYPE_UNSUPPORTED,
  MEAN_NON_FINITE,
  MEAN_OK,
} from './abi';
import { findNonFinite } from './elements';
import { PLAN_K, PLAN_W, PLAN_WEIGHTS } from './mean-plan';

export function mean(dtype: u32, plan: usize, inputs: usize, n: u32, out: usize, propagate: bool): i32 {
  if (dtype === DTYPE_COMPLEX64) return mean(DTYPE_FLOAT32, plan, inputs, n << 1, out, propagate);
  if (dtype === DTYPE_COMPLEX128) return mean(DTYPE_FLOAT64, plan, inputs, n << 1, out, propagate);
  if (dtype !== DTYPE_FLOAT32 && dtype !== DTYPE_FLOAT64) return MEAN_DTYPE_UNSUPPORTED;
  const k = load<u32>(plan, PLAN_K);
  if (!propagate) {
    for (let j: u32 = 0; j < k; j++) {
      if (findNonFinite(dtype, load<u32>(inputs + ((<usize>j) << 2)), n, 0) >= 0) return MEAN_NON_FINITE;
    }
  }
  const total = load<f64>(plan, PLAN_W);
  for (let i: u32 = 0; i < n; i++) {
    let a = -0.0;
    for (let j: u32 = 0; j < k; j++) {
      const p = <usize>load<u32>(inputs + ((<usize>j) << 2));
      const w = load<f64>(plan + ((<usize>j) << 3), PLAN_WEIGHTS);
      a +=
        w *
        (dtype === DTYPE_FLOAT32 ? <f64>load<f32>(p + ((<usize>i) << 2)) : load<f64>(p + ((<usize>i) << 3)));
    }
    const q = a / total;
    if (dtype === DTYPE_FLOAT32) {
      if (isNaN(q)) store<u32>(out + ((<usize>i) << 2), 0x7fc00000);
      else store<f32>(out + ((<usize>i) << 2), <f32>q);
    } else if (isNaN(q)) store<u64>(out + ((<usize>i) << 3), 0x7ff8000000000000);
    else store<f64>(out + ((<usize>i) << 3), q);
  }
  return MEAN_OK;
}
