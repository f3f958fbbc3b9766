import { MAX_WEIGHTING, MIN_WEIGHTING } from '../aggregate/weightings.ts';

/**
 * Ways to say how much an update counts. All leaves of a branch must follow the same one: weightings are compared with
 * each other, and with nothing else.
 */
export const weightings = Object.freeze({
  /** By the number of samples that it was trained on (FedAvg, McMahan et al. 2017). */
  samples(count: number): number {
    if (!Number.isSafeInteger(count) || count < 1) {
      throw new RangeError(`the number of samples must be an integer from 1, is ${count}`);
    }
    return count;
  },

  /** Each leaf the same, whatever it has. */
  equal(): number {
    return 1;
  },

  /**
   * By how good the update is on data that was held back: its score (an accuracy, the reciprocal of a loss), times the
   * number of samples where that is to count too.
   *
   * @param score above zero, the greater the better
   */
  quality(score: number, { samples = 1 }: { readonly samples?: number | undefined } = {}): number {
    return weightings.manual(score * weightings.samples(samples));
  },

  /** What the caller says, within what can be averaged exactly: [2^-64, 2^53]. */
  manual(weighting: number): number {
    if (!(weighting >= MIN_WEIGHTING && weighting <= MAX_WEIGHTING)) {
      throw new RangeError(`a weighting must lie within 2^-64 and 2^53, is ${weighting}`);
    }
    return weighting;
  },
});
