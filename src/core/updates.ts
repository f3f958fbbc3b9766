import { DTYPE_BFLOAT16, DTYPE_FLOAT16, TOP_FINE_BITS } from '../../assembly/abi.ts';
import type { Core } from './core.ts';
import type { StrategyExports } from './exports.ts';

/**
 * Adds the elements at `x` to those at `a`, or takes them away, each rounded once; integers and bool stay.
 *
 * @param dtype code of the element type
 * @returns false when a result is NaN (canonical then) or infinite
 */
export function addInto(
  core: Core<StrategyExports>,
  dtype: number,
  a: number,
  x: number,
  count: number,
  subtract = false,
): boolean {
  return core.exports.addTo(dtype, a, x, count, subtract) !== 0;
}

/** Two bytes for a float32. */
export type HalfType = 'float16' | 'bfloat16';

const HALF_CODES = { float16: DTYPE_FLOAT16, bfloat16: DTYPE_BFLOAT16 } as const;

/**
 * Rounds `count` float32 to two bytes each, half to even; what is too large becomes infinity.
 *
 * @returns false when a result is NaN or infinite
 */
export function narrowInto(
  core: Core<StrategyExports>,
  type: HalfType,
  x: number,
  count: number,
  out: number,
): boolean {
  return core.exports.narrow(HALF_CODES[type], x, count, out) !== 0;
}

/** Gives `count` numbers of two bytes as float32, exactly. */
export function widenInto(
  core: Core<StrategyExports>,
  type: HalfType,
  x: number,
  count: number,
  out: number,
): void {
  core.exports.widenHalves(HALF_CODES[type], x, count, out);
}

const UPPER_BINS = 1 << 16;
const LOWER_BINS = 1 << TOP_FINE_BITS;

/** Bytes of the arena that `TopSearch` takes. */
export const TOP_ARENA_BYTES = 4 * UPPER_BINS + 32;

/**
 * The search for the k of n float32 that are largest in magnitude, exactly: ties go to the smaller index. The elements are
 * shown three times, block by block in their order: `countUpper`, `countLower`, `take`.
 */
export class TopSearch {
  readonly #core: Core<StrategyExports>;
  readonly #bins: number;
  readonly #ties: number;
  /** How many are still wanted of the bin that was chosen last. */
  #wanted: number;
  #upper = -1;
  #threshold = -1;

  /**
   * @param k at least 1 and at most the number of elements
   * @param room address of TOP_ARENA_BYTES
   */
  constructor(core: Core<StrategyExports>, k: number, room = core.take(TOP_ARENA_BYTES)) {
    this.#core = core;
    this.#bins = room;
    this.#ties = room + 4 * UPPER_BINS;
    this.#wanted = k;
    core.bytes(this.#bins, 4 * UPPER_BINS).fill(0);
  }

  /** Returns false for NaN or infinity: there is no order among the elements then. */
  countUpper(x: number, count: number): boolean {
    return this.#core.exports.countUpper(x, count, this.#bins) !== 0;
  }

  countLower(x: number, count: number): void {
    if (this.#upper < 0) {
      this.#upper = this.#choose(UPPER_BINS);
      this.#core.bytes(this.#bins, 4 * LOWER_BINS).fill(0);
    }
    this.#core.exports.countLower(x, count, this.#upper, this.#bins);
  }

  /**
   * Puts what is taken of a block at `indices` (uint32) and `values`, and zeros in its place.
   *
   * @param first index of the block's first element
   * @returns how many were taken
   */
  take(x: number, count: number, first: number, indices: number, values: number): number {
    if (this.#threshold < 0) {
      this.#threshold = this.#upper * LOWER_BINS + this.#choose(LOWER_BINS);
      this.#core.view(this.#ties, 4).setUint32(0, this.#wanted, true);
    }
    return this.#core.exports.takeTop(x, count, this.#threshold, this.#ties, first, indices, values);
  }

  /** The bin that holds the last one wanted; what is above it is wanted no more. */
  #choose(bins: number): number {
    const view = this.#core.view(this.#bins, 4 * bins);
    for (let bin = bins - 1; bin > 0; bin--) {
      const here = view.getUint32(4 * bin, true);
      if (here >= this.#wanted) return bin;
      this.#wanted -= here;
    }
    return 0;
  }
}

/**
 * Of `count` elements from the one at `start` of a tensor on writes those at k indices, and leaves the others as they are.
 * Indices beyond are passed over.
 */
export function placeTopInto(
  core: Core<StrategyExports>,
  indices: number,
  values: number,
  k: number,
  start: number,
  count: number,
  out: number,
): void {
  core.exports.placeTop(indices, values, k, start, count, out);
}
