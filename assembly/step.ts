// A step of the global model x towards the average a of what the leaves sent, element by element. With the state m, v,
// and o = 1, or 0 where the leaves sent differences to x:
//
//   d  = s·(a - o·x)
//
//   rate        x' = x + d
//   momentum    m' = β1·m + d                                                x' = x + η·m'
//   adagrad     m' = β1·m + (1 - β1)·d    v' = v + d²                        x' = x + η·m' / (√v' + τ)
//   adam        m' as above               v' = β2·v + (1 - β2)·d²            x' as above
//   yogi        m' as above               v' = v - (1 - β2)·d²·sign(v - d²)  x' as above
//
// All arithmetic is IEEE binary64, each operation rounded by itself, in the order (η·m') / ((√v') + τ). x', m' and v' are
// rounded once, to what they are stored as; x' comes from m' and v' before they are rounded. So the bits are the same on
// every host, and whatever the cut into blocks. x and a are of one dtype; m and v are binary64 for float64 and float32 for
// every other, because squares of differences do not fit into 16 bits.
//
// All blocks may be unaligned and do not overlap; a becomes x', m and v become m' and v'.

import {
  DTYPE_BFLOAT16,
  DTYPE_COMPLEX64,
  DTYPE_COMPLEX128,
  DTYPE_FLOAT16,
  DTYPE_FLOAT32,
  DTYPE_FLOAT64,
  STEP_ADAGRAD,
  STEP_ADAM,
  STEP_BETA1,
  STEP_BETA2,
  STEP_LEARNING_RATE,
  STEP_MOMENTUM,
  STEP_ORIGIN,
  STEP_RATE,
  STEP_REST1,
  STEP_REST2,
  STEP_SCALE,
  STEP_TAU,
} from './abi';
import { fromBrain, fromHalf, toBrain, toHalf } from './halves';

/** Element types of the kernel below; those of two bytes differ by name only. */
type Half = u16;
type Brain = i16;

/**
 * Takes a step of n elements. `parameters` is a record of binary64 numbers, STEP_. Slots that a rule does not have are not
 * touched. Integers and bool stay at the average.
 *
 * Answers false when a result is NaN or infinite: when an operand was, or one is too large for its dtype. The results are
 * those of IEEE 754 then, NaN in its canonical form.
 */
export function step(
  rule: u32,
  dtype: u32,
  parameters: usize,
  a: usize,
  x: usize,
  m: usize,
  v: usize,
  n: u32,
): bool {
  if (dtype === DTYPE_FLOAT32) return stepBlock<f32, f32>(rule, parameters, a, x, m, v, n);
  if (dtype === DTYPE_FLOAT64) return stepBlock<f64, f64>(rule, parameters, a, x, m, v, n);
  if (dtype === DTYPE_FLOAT16) return stepBlock<Half, f32>(rule, parameters, a, x, m, v, n);
  if (dtype === DTYPE_BFLOAT16) return stepBlock<Brain, f32>(rule, parameters, a, x, m, v, n);
  if (dtype === DTYPE_COMPLEX64) return step(rule, DTYPE_FLOAT32, parameters, a, x, m, v, n << 1);
  if (dtype === DTYPE_COMPLEX128) return step(rule, DTYPE_FLOAT64, parameters, a, x, m, v, n << 1);
  return true;
}

/** Elements of type T, state of type S. */
function stepBlock<T, S>(rule: u32, parameters: usize, a: usize, x: usize, m: usize, v: usize, n: u32): bool {
  const scale = load<f64>(parameters, STEP_SCALE);
  const origin = load<f64>(parameters, STEP_ORIGIN);
  const rate = load<f64>(parameters, STEP_LEARNING_RATE);
  const beta1 = load<f64>(parameters, STEP_BETA1);
  const rest1 = load<f64>(parameters, STEP_REST1);
  const beta2 = load<f64>(parameters, STEP_BETA2);
  const rest2 = load<f64>(parameters, STEP_REST2);
  const tau = load<f64>(parameters, STEP_TAU);
  let i: u32 = 0;
  let seen = false;
  if (ASC_FEATURE_SIMD) {
    if (isFloat<T>()) {
      // r - r is +0 for every number and NaN for what is none.
      let rests = f64x2.splat(0);
      for (; n - i >= 2; i += 2) {
        const p = a + offset<T>(i);
        const before = loadPair<T>(x + offset<T>(i));
        const from = f64x2.mul(f64x2.splat(origin), before);
        const d = f64x2.mul(f64x2.splat(scale), f64x2.sub(loadPair<T>(p), from));
        let far = d;
        if (rule !== STEP_RATE) {
          const pm = m + offset<S>(i);
          const decayed = f64x2.mul(f64x2.splat(beta1), loadPair<S>(pm));
          const isPlain = rule === STEP_MOMENTUM;
          const first = f64x2.add(decayed, isPlain ? d : f64x2.mul(f64x2.splat(rest1), d));
          rests = v128.or(rests, storePair<S>(pm, first));
          far = f64x2.mul(f64x2.splat(rate), first);
          if (!isPlain) {
            const pv = v + offset<S>(i);
            const second = secondPair(rule, loadPair<S>(pv), f64x2.mul(d, d), beta2, rest2);
            rests = v128.or(rests, storePair<S>(pv, second));
            far = f64x2.div(far, f64x2.add(f64x2.sqrt(second), f64x2.splat(tau)));
          }
        }
        rests = v128.or(rests, storePair<T>(p, f64x2.add(before, far)));
      }
      seen = v128.any_true(rests);
    }
  }
  for (; i < n; i++) {
    const p = a + offset<T>(i);
    const before = loadNumber<T>(x + offset<T>(i));
    const d = scale * (loadNumber<T>(p) - origin * before);
    let far = d;
    if (rule !== STEP_RATE) {
      const pm = m + offset<S>(i);
      const isPlain = rule === STEP_MOMENTUM;
      const first = beta1 * loadNumber<S>(pm) + (isPlain ? d : rest1 * d);
      if (!storeNumber<S>(pm, first)) seen = true;
      far = rate * first;
      if (!isPlain) {
        const pv = v + offset<S>(i);
        const second = secondMoment(rule, loadNumber<S>(pv), d * d, beta2, rest2);
        if (!storeNumber<S>(pv, second)) seen = true;
        far = far / (sqrt(second) + tau);
      }
    }
    if (!storeNumber<T>(p, before + far)) seen = true;
  }
  if (!seen) return true;
  makeCanonical<T>(a, n);
  if (rule !== STEP_RATE) makeCanonical<S>(m, n);
  if (rule !== STEP_RATE && rule !== STEP_MOMENTUM) makeCanonical<S>(v, n);
  return false;
}

function secondMoment(rule: u32, v: f64, square: f64, beta2: f64, rest2: f64): f64 {
  if (rule === STEP_ADAGRAD) return v + square;
  if (rule === STEP_ADAM) return beta2 * v + rest2 * square;
  const part = rest2 * square;
  return v + (v < square ? part : v > square ? -part : 0.0);
}

function secondPair(rule: u32, v: v128, square: v128, beta2: f64, rest2: f64): v128 {
  if (rule === STEP_ADAGRAD) return f64x2.add(v, square);
  const part = f64x2.mul(f64x2.splat(rest2), square);
  if (rule === STEP_ADAM) return f64x2.add(f64x2.mul(f64x2.splat(beta2), v), part);
  const up = v128.and(part, f64x2.lt(v, square));
  const down = v128.and(f64x2.neg(part), f64x2.gt(v, square));
  return f64x2.add(v, v128.or(up, down));
}

export function offset<T>(i: u32): usize {
  return <usize>i * sizeof<T>();
}

function loadPair<T>(p: usize): v128 {
  return sizeof<T>() === 8 ? v128.load(p) : f64x2.promote_low_f32x4(v128.load64_zero(p));
}

/** Stores a pair and answers zeros where it is finite. */
function storePair<T>(p: usize, x: v128): v128 {
  if (sizeof<T>() === 8) {
    v128.store(p, x);
    return f64x2.sub(x, x);
  }
  const rounded = f32x4.demote_f64x2_zero(x);
  v128.store64_lane(p, rounded, 0);
  return f32x4.sub(rounded, rounded);
}

export function loadNumber<T>(p: usize): f64 {
  if (isFloat<T>()) return <f64>load<T>(p);
  return isSigned<T>() ? fromBrain(load<u16>(p)) : fromHalf(load<u16>(p));
}

/** Stores a number and answers whether what is stored is finite. */
export function storeNumber<T>(p: usize, x: f64): bool {
  if (isFloat<T>()) {
    const rounded = <T>x;
    store<T>(p, rounded);
    return rounded - rounded === 0;
  }
  const bits = isSigned<T>() ? toBrain(x) : toHalf(x);
  store<u16>(p, <u16>bits);
  const infinity: u32 = isSigned<T>() ? 0x7f80 : 0x7c00;
  return (bits & infinity) !== infinity;
}

/** Makes every NaN the canonical one; those of two bytes are already. */
export function makeCanonical<T>(p: usize, n: u32): void {
  for (let i: u32 = 0; i < n; i++, p += sizeof<T>()) {
    if (abs(loadNumber<T>(p)) >= 0) continue;
    if (sizeof<T>() === 8) store<u64>(p, 0x7ff8000000000000);
    else if (sizeof<T>() === 4) store<u32>(p, 0x7fc00000);
  }
}

/**
 * The gradient of FedProx's term: g += μ·(x - x_global), in binary64 and rounded once to the dtype, for n elements of a
 * float or complex dtype. Answers false when a result is NaN or infinite, as `step` does.
 */
export function proximal(dtype: u32, mu: f64, g: usize, x: usize, global: usize, n: u32): bool {
  if (dtype === DTYPE_FLOAT32) return proximalBlock<f32>(mu, g, x, global, n);
  if (dtype === DTYPE_FLOAT64) return proximalBlock<f64>(mu, g, x, global, n);
  if (dtype === DTYPE_FLOAT16) return proximalBlock<Half>(mu, g, x, global, n);
  if (dtype === DTYPE_BFLOAT16) return proximalBlock<Brain>(mu, g, x, global, n);
  if (dtype === DTYPE_COMPLEX64) return proximalBlock<f32>(mu, g, x, global, n << 1);
  if (dtype === DTYPE_COMPLEX128) return proximalBlock<f64>(mu, g, x, global, n << 1);
  return true;
}

function proximalBlock<T>(mu: f64, g: usize, x: usize, global: usize, n: u32): bool {
  let i: u32 = 0;
  let seen = false;
  if (ASC_FEATURE_SIMD) {
    if (isFloat<T>()) {
      let rests = f64x2.splat(0);
      for (; n - i >= 2; i += 2) {
        const at = offset<T>(i);
        const pull = f64x2.mul(f64x2.splat(mu), f64x2.sub(loadPair<T>(x + at), loadPair<T>(global + at)));
        rests = v128.or(rests, storePair<T>(g + at, f64x2.add(loadPair<T>(g + at), pull)));
      }
      seen = v128.any_true(rests);
    }
  }
  for (; i < n; i++) {
    const at = offset<T>(i);
    const pull = mu * (loadNumber<T>(x + at) - loadNumber<T>(global + at));
    if (!storeNumber<T>(g + at, loadNumber<T>(g + at) + pull)) seen = true;
  }
  if (seen) makeCanonical<T>(g, n);
  return !seen;
}
