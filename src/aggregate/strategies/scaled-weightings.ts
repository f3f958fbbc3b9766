import { MIN_WEIGHTING } from '../weightings.ts';

/** Leaves room below MAX_TOTAL_WEIGHTING for the rounding of the total. */
const TOTAL = 2 ** 52;

/**
 * Weightings that a rule has computed, scaled by a power of two into the range that the mean takes: the mean is the same.
 * One below 2^-115 of all together counts as 0: it would not move the last bit of any element but for inputs that are as
 * much larger than the others.
 *
 * @param weightings finite, not negative
 */
export function scaleWeightings(weightings: readonly number[]): number[] {
  let scaled = [...weightings];
  // By halves and doubles because those are exact; a power from the engine's library need not be.
  for (;;) {
    const total = sum(scaled);
    if (total === 0 || (total < TOTAL && total >= TOTAL / 2)) break;
    const factor = total < TOTAL ? 2 : 0.5;
    scaled = scaled.map((weighting) => weighting * factor);
  }
  return scaled.map((weighting) => (weighting < MIN_WEIGHTING ? 0 : weighting));
}

/** In the order of the inputs: its bits are the same everywhere. */
export function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
