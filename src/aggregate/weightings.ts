import { AggregationError } from '../errors.ts';

/** Smallest weighting that is not zero, 2^-64: products with the smallest subnormal stay representable exactly. */
export const MIN_WEIGHTING = 2 ** -64;

/** Largest weighting, 2^53: every integer up to it is a binary64 number. */
export const MAX_WEIGHTING = 2 ** 53;

/** Largest sum of weightings: integers stay countable in binary64, also by the clients that read the sum. */
export const MAX_TOTAL_WEIGHTING = 2 ** 53 - 1;

/**
 * Checks one weighting: zero, or finite and within [2^-64, 2^53].
 *
 * @throws AggregationError `average-nan-weight`, `average-inf-weight`, `average-negative-weight`, `average-weight-range`
 */
function checkWeighting(weighting: number, leaf: string): void {
  const refuse = (code: string, what: string) => {
    throw new AggregationError(code, `${leaf}: the weighting ${what}`, { leaf });
  };
  if (Number.isNaN(weighting)) refuse('average-nan-weight', 'is NaN');
  if (!Number.isFinite(weighting)) refuse('average-inf-weight', `is ${weighting}, it must be finite`);
  if (weighting < 0) refuse('average-negative-weight', `is ${weighting}, it must not be negative`);
  if (weighting !== 0 && (weighting < MIN_WEIGHTING || weighting > MAX_WEIGHTING)) {
    refuse('average-weight-range', `is ${weighting}, it must be 0 or lie within 2^-64 and 2^53`);
  }
}

/**
 * Gives every input a weighting: those of the inputs where all have one, 1 for each where none has.
 *
 * @throws AggregationError `weighting-missing` when some have one and some have not, the codes of `checkWeighting`, and
 *   `average-all-zero` when nothing would be left
 */
export function settleWeightings(
  inputs: readonly { readonly leaf: string; readonly weighting: number | null }[],
): readonly number[] {
  const without = inputs.filter((input) => input.weighting === null);
  const first = without[0];
  if (first !== undefined && without.length < inputs.length) {
    throw new AggregationError(
      'weighting-missing',
      `${first.leaf} has no weighting, others have one: give all of them weightings, or none`,
      { leaf: first.leaf },
    );
  }
  const weightings = inputs.map((input) => input.weighting ?? 1);
  for (const [i, weighting] of weightings.entries()) checkWeighting(weighting, inputs[i]!.leaf);
  if (inputs.length > 0 && weightings.every((weighting) => weighting === 0)) {
    throw new AggregationError('average-all-zero', 'every weighting is 0: there is nothing to average');
  }
  return weightings;
}
