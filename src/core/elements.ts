import type { Core } from './core.ts';
import type { FoldExports } from './exports.ts';

/**
 * Finds the first NaN or infinity at or after `from` (for complex elements: in either component).
 *
 * @param dtype code of the element type
 * @param address of `count` little-endian elements
 * @returns its index, or -1
 */
export function findNonFinite(
  core: Core<FoldExports>,
  dtype: number,
  address: number,
  count: number,
  from: number,
): number {
  return core.exports.findNonFinite(dtype, address, count, from);
}

/**
 * Turns `count` big-endian numbers into little-endian ones, in place.
 *
 * @param size bytes of one number: 1, 2, 4 or 8; a complex element is two numbers
 */
export function swapBytes(core: Core<FoldExports>, address: number, count: number, size: number): void {
  core.exports.swapBytes(address, count, size);
}
