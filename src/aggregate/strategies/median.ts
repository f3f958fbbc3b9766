import { supportsOrder } from '../../core/order.ts';
import type { Strategy } from './strategy.ts';

/**
 * The coordinate-wise median (Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates",
 * 2018). Of an even number of updates it is the mean of the two middle values, exact and rounded once, ties to even.
 *
 * Weightings count for nothing, except that 0 leaves an update out: whoever lies about a model can lie about its samples.
 * Every dtype but anonymous bytes; integers and bool too (a mean rounded half to even), complex numbers by component.
 * Values are in the total order of IEEE 754: -0 comes before +0, and the mean of both is +0. NaN and infinity are refused,
 * or else a NaN in any update makes the element NaN, in canonical form, and infinities are values like others (the mean
 * of both infinities is NaN). One update comes back bit for bit.
 */
export const median: Strategy = { name: 'median', combine: { kind: 'median' }, supports: supportsOrder };

/**
 * The coordinate-wise weighted median: the least value at which the weightings of the values up to it reach half of the
 * total; where they are exactly half, the mean of it and the next value, exact and rounded once. Weightings are compared
 * as the exact numbers that they are. With equal weightings it is the median, bit for bit (Edgeworth, "On a New Method of
 * Reducing Observations", 1888; in federated learning Pillutla et al., "Robust Aggregation for Federated Learning", 2022,
 * whose geometric median it is in one dimension).
 *
 * It resists updates whose weightings are less than half of the total, so weightings have to be trusted. Dtypes, order, NaN
 * and infinity are as for `median`.
 */
export const weightedMedian: Strategy = {
  name: 'weighted-median',
  combine: { kind: 'weighted-median' },
  supports: supportsOrder,
};
