/**
 * Sums over K inputs that need a look at whole models: squared norms and distances.
 *
 * Every function measures `count` elements of blocks that begin at the border of a chunk (CHUNK elements) of their tensor,
 * and writes binary64 sums to `out`, chunk by chunk. A sum has one fixed shape, so its bits depend neither on the host nor
 * on how a tensor is cut: four lanes by index mod 4, (l0 + l1) + (l2 + l3), all in binary64. Elements are widened exactly,
 * but int64 and uint64 to the nearest binary64; bool counts as 0 and 1; a complex element is two numbers, so a chunk of
 * them has 8,192. NaN or infinity makes every sum that it takes part in NaN (in canonical form) or infinite.
 */
import { DTYPE_VOID16 } from '../../assembly/abi.ts';
import { InternalError } from '../errors.ts';
import type { Core } from './core.ts';
import type { StrategyExports } from './exports.ts';

/** Whether distances are there for the dtype with this code: for all numbers, and for bool as 0 and 1. */
export function supportsDistances(dtype: number): boolean {
  return dtype !== DTYPE_VOID16;
}

/**
 * Squared norms of k inputs: k sums a chunk.
 *
 * @param dtype code of the element type
 * @param table address of k addresses (uint32) of little-endian elements
 */
export function squaredNormsInto(
  core: Core<StrategyExports>,
  dtype: number,
  table: number,
  k: number,
  count: number,
  out: number,
): void {
  check(core.exports.squaredNorms(dtype, table, k, count, out), dtype);
}

/** Squared norms of the differences of k inputs to the elements at `model`: k sums a chunk. */
export function squaredDifferencesInto(
  core: Core<StrategyExports>,
  dtype: number,
  table: number,
  k: number,
  count: number,
  model: number,
  out: number,
): void {
  check(core.exports.squaredDifferences(dtype, table, k, count, model, out), dtype);
}

/**
 * Squared distances of k inputs to Σ vᵢ·xᵢ / Σ vᵢ, which is taken in binary64 in the order of the inputs: k sums a chunk.
 *
 * @param weightings address of the k weightings (binary64), not all zero, 8-byte aligned
 */
export function squaredToCentreInto(
  core: Core<StrategyExports>,
  dtype: number,
  table: number,
  k: number,
  count: number,
  weightings: number,
  out: number,
): void {
  check(core.exports.squaredToCentre(dtype, table, k, count, weightings, out), dtype);
}

/**
 * Squared distances of all pairs of k inputs, below 2^16 of them, in the order (0,1) (0,2) … (0,k-1) (1,2) …: k(k - 1)/2
 * sums a chunk, which is all the room that grows with k.
 */
export function pairwiseDistancesInto(
  core: Core<StrategyExports>,
  dtype: number,
  table: number,
  k: number,
  count: number,
  out: number,
): void {
  check(core.exports.pairwiseDistances(dtype, table, k, count, out), dtype);
}

function check(isDone: number, dtype: number): void {
  if (!isDone) throw new InternalError('internal-status', `distances are not there for the dtype ${dtype}`);
}
