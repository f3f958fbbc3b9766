import { supportsDistances } from '../../core/distances.ts';
import { checkRange } from './parameters.ts';
import { scaleWeightings, sum } from './scaled-weightings.ts';
import type { MeasureSpec, SettleContext, Settled, Strategy } from './strategy.ts';

export interface ClippedMeanOptions {
  /** The longest difference to the global model that counts in full, in the L2 norm over all tensors: C. */
  readonly norm: number;
}

/** No model has differences that small or that large; squares of them stay within binary64. */
const MIN_NORM = 1e-100;
const MAX_NORM = 1e100;

/**
 * The mean of differences to the global model x that are clipped in their norm, without noise (McMahan et al., "Learning
 * Differentially Private Recurrent Language Models", 2018; as a defence: Sun et al., "Can You Really Backdoor Federated
 * Learning?", 2019):
 *
 *     x' = x + Σ wᵢ·Δᵢ·min(1, C/‖Δᵢ‖) / W,  Δᵢ = xᵢ − x,  W = Σ wᵢ
 *
 * which is a mean under smaller weightings and a shorter way: with w'ᵢ = wᵢ·min(1, C/‖Δᵢ‖) and W' = Σ w'ᵢ,
 * x' = x + (W'/W)·(Σ w'ᵢ·xᵢ / W' − x). So the mean is exact, and rounding comes with the last step only. Where nothing
 * is clipped the result is the mean itself, also of one input: bit for bit. w'ᵢ below 2^-115 of all together count as 0.
 *
 * Norms are over the elements of all tensors, integers and bool by their values; these have the mean under w' for their
 * result. NaN and infinity are refused; when they may propagate, or where a square overflows, an input whose difference
 * has no finite norm is left out as if it had not come, unless there is no other: then the result is the mean.
 *
 * @throws AggregationError `strategy-parameter`
 */
export function clippedMean({ norm }: ClippedMeanOptions): Strategy {
  const name = 'clipped-mean';
  checkRange(name, 'norm', norm, MIN_NORM, MAX_NORM);
  return {
    name,
    combine: { kind: 'mean' },
    step: { kind: 'rate' },
    needsModel: true,
    supports: supportsDistances,
    *settle({ weightings }: SettleContext): Generator<MeasureSpec, Settled, Float64Array> {
      const lengths = (yield { kind: 'squared-differences', weightings }).map(Math.sqrt);
      if (lengths.every((length) => length <= norm)) return { weightings };
      const counted = weightings.map((weighting, i) => (Number.isFinite(lengths[i]) ? weighting : 0));
      if (counted.every((weighting) => weighting === 0)) return { weightings };
      const clipped = counted.map((weighting, i) =>
        lengths[i]! > norm ? weighting * (norm / lengths[i]!) : weighting,
      );
      return { weightings: scaleWeightings(clipped), rate: sum(clipped) / sum(counted) };
    },
  };
}
