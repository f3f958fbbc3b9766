import { supportsOrder } from '../../core/order.ts';
import { refuseParameter } from './parameters.ts';
import type { Strategy } from './strategy.ts';

export interface TrimmedMeanOptions {
  /** The fraction of the updates that is cut at each end, at least 0 and below 0.5. */
  readonly trim: number;
}

/**
 * The coordinate-wise trimmed mean (Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
 * Rates", 2018): without the ⌊trim·K⌋ least and as many greatest values of each element, the mean of the others, exact and
 * rounded once, ties to even. The product is taken in binary64.
 *
 * The mean is plain: weightings count for nothing, except that 0 leaves an update out. What is cut is counted in updates,
 * so an update that stays must not count for more than one either, or a claim of many samples would buy back the influence
 * that cutting takes away. With fewer than 1 / trim updates nothing would be cut; that is refused as
 * `strategy-too-few-inputs` rather than called robust. `trim` 0 is the plain mean of any number of updates.
 *
 * Dtypes, order, NaN and infinity are as for `median`; infinities that are cut leave no trace. One update comes back bit
 * for bit.
 *
 * @throws AggregationError `strategy-parameter`
 */
export function trimmedMean({ trim }: TrimmedMeanOptions): Strategy {
  const name = 'trimmed-mean';
  if (!(trim >= 0 && trim < 0.5)) refuseParameter(name, 'trim', trim, 'at least 0 and below 0.5');
  return {
    name,
    combine: { kind: 'trimmed-mean', trim },
    minimumInputs: leastInputs(trim),
    supports: supportsOrder,
  };
}

/** How many of k updates are cut at each end. */
export function trimmedInputs(trim: number, k: number): number {
  return Math.floor(trim * k);
}

/** The least number of updates of which one is cut at each end. */
function leastInputs(trim: number): number {
  if (trim === 0) return 1;
  const least = Math.ceil(1 / trim);
  // The quotient is rounded: its product may fall on the other side of one.
  return trimmedInputs(trim, least) >= 1 ? least : least + 1;
}
