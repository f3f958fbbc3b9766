/** Exact partial sums of a chunk at a time: put together from leaves and other partial sums, and finished into a mean. */
import {
  DTYPE_BFLOAT16,
  DTYPE_COMPLEX64,
  DTYPE_COMPLEX128,
  DTYPE_FLOAT16,
  DTYPE_FLOAT32,
  DTYPE_FLOAT64,
  DTYPE_INT64,
  DTYPE_UINT64,
  DTYPE_VOID16,
  PARTIAL_BLOCK,
  PARTIAL_CHUNK,
  PARTIAL_INPUT_BYTES,
  PARTIAL_IS_SUM,
  PARTIAL_LEAVES,
  PARTIAL_MISMATCH,
  PARTIAL_NON_FINITE,
  PARTIAL_RANGE,
  PARTIAL_RESIDUE_BYTES,
  PARTIAL_SCALE,
  PARTIAL_TOTAL_BYTES,
  PARTIAL_VALUES,
  PARTIAL_WEIGHT,
} from '../../assembly/abi.ts';
import { AggregationError } from '../errors.ts';
import type { Core } from './core.ts';
import type { StrategyExports } from './exports.ts';

/** What a chunk of sums of this dtype is made of. */
export interface PartialKind {
  /** Dtype code of a number: of a complex element one of its components. */
  readonly dtype: number;
  /** Numbers of an element: 2 of complex ones. */
  readonly numbers: number;
  /** Terms of a number: 2 of 64-bit integers, which binary64 does not hold. */
  readonly terms: number;
  /** Bits of the significand of a term. */
  readonly bits: number;
  /** Sums stand multiplied by this, a power of two. */
  readonly scale: number;
}

/** @throws AggregationError `aggregate-dtype-unsupported` */
export function partialKind(dtype: number): PartialKind {
  switch (dtype) {
    case DTYPE_COMPLEX64:
      return { ...partialKind(DTYPE_FLOAT32), numbers: 2 };
    case DTYPE_COMPLEX128:
      return { ...partialKind(DTYPE_FLOAT64), numbers: 2 };
    case DTYPE_VOID16:
      throw new AggregationError('aggregate-dtype-unsupported', 'there are no sums of this dtype');
    default:
      return {
        dtype,
        numbers: 1,
        terms: dtype === DTYPE_INT64 || dtype === DTYPE_UINT64 ? 2 : 1,
        bits: BITS.get(dtype) ?? 32,
        scale: dtype === DTYPE_FLOAT64 ? 2 ** -PARTIAL_SCALE : 1,
      };
  }
}

const BITS: ReadonlyMap<number, number> = new Map([
  [DTYPE_FLOAT16, 11],
  [DTYPE_BFLOAT16, 8],
  [DTYPE_FLOAT32, 24],
  [DTYPE_FLOAT64, 53],
]);

/** The exact sum of weightings in units of 2^-116. */
export function totalOf(weightings: readonly number[]): bigint {
  return weightings.reduce((sum, weighting) => sum + unitsOf(weighting), 0n);
}

/** A weighting (zero, or within 2^-64 and 2^53) in units of 2^-116. */
function unitsOf(weighting: number): bigint {
  // Two exact steps: a weighting times 2^53 may have a fraction, times 2^116 it has none.
  return BigInt(weighting * 2 ** 116);
}

/**
 * The greatest difference of exponents with which a plain fold is exact (certificate A of assembly/partial.ts), 0 for none.
 */
export function exactSpread(kind: PartialKind, weightings: readonly number[]): number {
  let units = totalOf(weightings);
  if (units === 0n) return 0;
  const lowest = weightings.reduce((all, weighting) => all | unitsOf(weighting), 0n);
  units /= lowest & -lowest;
  return Math.max(0, 53 - kind.bits - units.toString(2).length);
}

/** One input of a fold. */
export interface PartialTerm {
  /** A leaf's weighting (times the scale of the kind), or 1 or -1 of a partial sum. */
  readonly weight: number;
  /** Its leaves; negative when they are taken out. The second term of a 64-bit integer has none. */
  readonly leaves: number;
  /** Address of its numbers. */
  readonly values: number;
  /** Address of its residues, 0 for none. */
  readonly block: number;
  readonly isSum: boolean;
}

/** Room for folds of up to k terms in the arena of one core. */
export interface PartialRoom {
  readonly inputs: number;
  /** Address of the sums of a chunk. */
  readonly sums: number;
  /** Address of their residues. */
  readonly block: number;
}

/** Bytes of the arena that `takePartialRoom` takes. */
export function partialArenaBytes(k: number): number {
  return k * PARTIAL_INPUT_BYTES + 8 * PARTIAL_CHUNK + PARTIAL_RESIDUE_BYTES + 48;
}

export function takePartialRoom(core: Core<StrategyExports>, k: number): PartialRoom {
  return {
    inputs: core.take(k * PARTIAL_INPUT_BYTES),
    sums: core.take(8 * PARTIAL_CHUNK),
    block: core.take(PARTIAL_RESIDUE_BYTES),
  };
}

/** What could not be summed or divided: the number of the chunk, and why. */
export interface PartialRefusal {
  readonly code: 'non-finite' | 'partial-range' | 'partial-mismatch' | 'partial-residue';
  readonly index: number;
}

/**
 * Sums the terms of one chunk of n numbers into the room.
 *
 * @param leaves of the result
 * @param propagate let NaN and infinity go into the sum as IEEE 754 has it; never where something is taken out
 * @returns bytes of the residues, 0 for none
 */
export function foldPartial(
  core: Core<StrategyExports>,
  room: PartialRoom,
  kind: PartialKind,
  terms: readonly PartialTerm[],
  n: number,
  spread: number,
  leaves: number,
  propagate: boolean,
): number | PartialRefusal {
  const view = core.view(room.inputs, terms.length * PARTIAL_INPUT_BYTES);
  for (const [j, term] of terms.entries()) {
    const at = j * PARTIAL_INPUT_BYTES;
    view.setFloat64(at + PARTIAL_WEIGHT, term.weight, true);
    view.setFloat64(at + PARTIAL_LEAVES, term.leaves, true);
    view.setUint32(at + PARTIAL_VALUES, term.values, true);
    view.setUint32(at + PARTIAL_BLOCK, term.block, true);
    view.setUint32(at + PARTIAL_IS_SUM, term.isSum ? 1 : 0, true);
  }
  const { inputs, sums, block } = room;
  const answer = core.exports.partialFold(
    inputs,
    terms.length,
    n,
    kind.bits,
    spread,
    leaves,
    sums,
    block,
    propagate,
  );
  return answer < 0 ? refusal(core, -answer) : answer;
}

/**
 * Prepares the exact total of the weightings, in units of 2^-116, for `finishPartial`.
 *
 * @returns its address, PARTIAL_TOTAL_BYTES of the arena
 */
export function prepareTotal(core: Core<StrategyExports>, total: bigint): number {
  const address = core.take(PARTIAL_TOTAL_BYTES);
  const view = core.view(address, PARTIAL_TOTAL_BYTES);
  for (let i = 0; i < 6; i++) {
    view.setUint32(4 * i, Number((total >> BigInt(32 * i)) & 0xffffffffn), true);
  }
  core.exports.partialTotal(address);
  return address;
}

/** Divides n sums of one chunk by the prepared total into elements at `out`; undefined when all went well. */
export function finishPartial(
  core: Core<StrategyExports>,
  total: number,
  kind: PartialKind,
  sums: number,
  block: number,
  n: number,
  out: number,
  propagate: boolean,
): PartialRefusal | undefined {
  const answer = core.exports.partialFinish(kind.dtype, total, sums, block, n, out, propagate);
  return answer < 0 ? refusal(core, -answer) : undefined;
}

function refusal(core: Core<StrategyExports>, status: number): PartialRefusal {
  return { code: CODES.get(status) ?? 'partial-residue', index: core.exports.partialPlace() };
}

const CODES: ReadonlyMap<number, PartialRefusal['code']> = new Map([
  [PARTIAL_NON_FINITE, 'non-finite'],
  [PARTIAL_RANGE, 'partial-range'],
  [PARTIAL_MISMATCH, 'partial-mismatch'],
]);
