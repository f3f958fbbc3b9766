import {
  STATISTICS_FINITE,
  STATISTICS_INFINITE,
  STATISTICS_MAX,
  STATISTICS_MIN,
  STATISTICS_NAN,
  STATISTICS_SUM,
  STATISTICS_ZEROS,
} from '../../assembly/abi.ts';
import type { Core } from './core.ts';
import type { StrategyExports } from './exports.ts';

/** Bytes of the arena that a `Tally` takes. */
export const TALLY_ARENA_BYTES = STATISTICS_FINITE + 8 + 16;

/**
 * Least, largest, mean and counts of the numbers of a tensor. The shape of the sum is fixed (assembly/statistics.ts): its
 * bits are the same on every host, for any blocks of whole chunks.
 */
export class Tally {
  readonly #core: Core<StrategyExports>;
  readonly #record: number;

  constructor(core: Core<StrategyExports>) {
    this.#core = core;
    this.#record = core.take(STATISTICS_FINITE + 8);
    core.exports.startStatistics(this.#record);
  }

  /**
   * Adds the next numbers: whole chunks of 4,096, or the last ones.
   *
   * @param dtype code of the element type; elements that are no numbers count for nothing
   * @param address of `count` little-endian numbers; a complex element is two
   */
  add(dtype: number, address: number, count: number): void {
    this.#core.exports.addStatistics(dtype, address, count, this.#record);
  }

  /** What was added; null where nothing finite was. */
  result() {
    const view = this.#core.view(this.#record, STATISTICS_FINITE + 8);
    const finite = view.getFloat64(STATISTICS_FINITE, true);
    const known = (value: number) => (finite === 0 ? null : value);
    return {
      min: known(view.getFloat64(STATISTICS_MIN, true)),
      max: known(view.getFloat64(STATISTICS_MAX, true)),
      mean: known(view.getFloat64(STATISTICS_SUM, true) / finite),
      zeros: view.getFloat64(STATISTICS_ZEROS, true),
      nan: view.getFloat64(STATISTICS_NAN, true),
      infinite: view.getFloat64(STATISTICS_INFINITE, true),
    };
  }
}
