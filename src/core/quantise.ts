import type { Core } from './core.ts';
import type { StrategyExports } from './exports.ts';

/** Where an int8 encoding lies in the arena: codes (int8), and for each block a scale (float32) and a zero point (int8). */
export interface QuantisedBlocks {
  readonly codes: number;
  readonly scales: number;
  readonly zeros: number;
  /** Elements of a block. */
  readonly block: number;
}

/**
 * Encodes `count` float32 elements; the arithmetic stands at the head of assembly/quantise.ts.
 *
 * @returns false when an element is NaN or infinite: the encoding is undefined then
 */
export function quantiseInto(
  core: Core<StrategyExports>,
  address: number,
  count: number,
  { codes, scales, zeros, block }: QuantisedBlocks,
): boolean {
  return core.exports.quantise(address, count, block, codes, scales, zeros) !== 0;
}

/** Decodes `count` elements from the one at `start` on: float32(scale · (code − zero)), rounded once. */
export function dequantiseInto(
  core: Core<StrategyExports>,
  { codes, scales, zeros, block }: QuantisedBlocks,
  start: number,
  count: number,
  out: number,
): void {
  core.exports.dequantise(codes, scales, zeros, block, start, count, out);
}

/** Bytes of the arena that `ScaleSearch` takes. */
export const SCALE_ARENA_BYTES = 16;

/** One scale and one zero point for any number of elements, which are shown twice: `extend`, `encode`. */
export class ScaleSearch {
  readonly #core: Core<StrategyExports>;
  readonly #extent: number;
  /** Addresses of the two, once `settle` has found them. */
  readonly scale: number;
  readonly zero: number;

  /** @param room address of SCALE_ARENA_BYTES */
  constructor(core: Core<StrategyExports>, room = core.take(SCALE_ARENA_BYTES)) {
    this.#core = core;
    this.#extent = room;
    this.scale = room + 8;
    this.zero = room + 12;
    core.bytes(this.#extent, 8).fill(0);
  }

  /** Returns false for NaN or infinity. */
  extend(x: number, count: number): boolean {
    return this.#core.exports.extend(x, count, this.#extent) !== 0;
  }

  settle(): void {
    this.#core.exports.scaleOf(this.#extent, this.scale, this.zero);
  }

  encode(x: number, count: number, codes: number): void {
    this.#core.exports.quantiseBy(x, count, this.scale, this.zero, codes);
  }
}
