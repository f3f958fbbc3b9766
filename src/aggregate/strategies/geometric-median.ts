import { supportsDistances } from '../../core/distances.ts';
import { checkCount, checkRange } from './parameters.ts';
import { scaleWeightings } from './scaled-weightings.ts';
import type { MeasureSpec, SettleContext, Settled, Strategy } from './strategy.ts';

export interface GeometricMedianOptions {
  /** Weiszfeld steps at most, each of them a pass over all inputs; 10 unless given. */
  readonly iterations?: number | undefined;
  /** Distance below which an input pulls no harder than at that distance: ν, 1e-6 unless given. */
  readonly smoothing?: number | undefined;
  /** Ends when the objective falls by no more than this part of itself; 1e-6 unless given, 0 for all it can get. */
  readonly tolerance?: number | undefined;
}

/** What commands and policies take when nothing is said. */
export const GEOMETRIC_MEDIAN_DEFAULTS = { iterations: 10, smoothing: 1e-6, tolerance: 1e-6 } as const;

/** No model has numbers that small, and weightings divided by it stay far from overflow. */
const MIN_SMOOTHING = 1e-100;
const MAX_SMOOTHING = 1e100;

/**
 * The geometric median, RFA (Pillutla, Kakade, Harchaoui, "Robust Aggregation for Federated Learning", 2022): the model z
 * that has the least Σ αᵢ·‖xᵢ − z‖ with the weightings αᵢ as masses, by the smoothed Weiszfeld algorithm:
 *
 *     β⁰ᵢ = αᵢ;  z = Σ βᵢ·xᵢ / Σ βᵢ,  βᵢ ← αᵢ / max(ν, ‖xᵢ − z‖)
 *
 * The centres z of the passes are binary64 and never written; the result is the exact mean under the last βᵢ, scaled by a
 * power of two into the weightings that the mean takes. An input of less than 2^-115 of all weight is left out for good.
 * It ends after `iterations` steps, or when the smoothed objective Σ αᵢ·h(‖xᵢ − z‖), h(d) = d or (d² + ν²)/2ν where
 * d < ν, has fallen by `tolerance` of itself or less. All of that is plain binary64 in canonical order, the same bits on
 * every host.
 *
 * One input comes back bit for bit. NaN and infinity are refused; when they may propagate, or where squares overflow, an
 * input whose norm is not finite has no part in it, unless there is no other: then the result is the mean. Distances are
 * over the elements of all tensors, integers and bool by their values.
 *
 * @throws AggregationError `strategy-parameter`
 */
export function geometricMedian(options: GeometricMedianOptions = {}): Strategy {
  const name = 'geometric-median';
  const settings = { ...GEOMETRIC_MEDIAN_DEFAULTS, ...withoutUndefined(options) };
  const iterations = checkCount(name, 'iterations', settings.iterations, 1);
  const smoothing = checkRange(name, 'smoothing', settings.smoothing, MIN_SMOOTHING, MAX_SMOOTHING);
  const tolerance = checkRange(name, 'tolerance', settings.tolerance, 0, 1);
  return {
    name,
    combine: { kind: 'mean' },
    supports: supportsDistances,
    *settle(context: SettleContext): Generator<MeasureSpec, Settled, Float64Array> {
      if (context.weightings.length === 1) return { weightings: context.weightings };
      let masses = context.weightings;
      let weightings: readonly number[] = scaleWeightings(masses);
      let distances = distancesFrom(yield { kind: 'squared-to-centre', weightings }, weightings);
      if (!distances.every((distance, i) => weightings[i] === 0 || Number.isFinite(distance))) {
        const norms = yield { kind: 'squared-norms', weightings: masses };
        const finite = masses.map((mass, i) => (Number.isFinite(norms[i]) ? mass : 0));
        if (finite.every((mass) => mass === 0)) return { weightings: masses };
        masses = finite;
        weightings = scaleWeightings(masses);
        distances = distancesFrom(yield { kind: 'squared-to-centre', weightings }, weightings);
      }
      let before = Number.POSITIVE_INFINITY;
      for (let step = 1; ; step++) {
        const pulls = masses.map((mass, i) => mass / Math.max(smoothing, distances[i]!));
        if (pulls.every((pull) => pull === 0)) return { weightings };
        const objective = smoothedSum(masses, distances, smoothing);
        weightings = scaleWeightings(pulls);
        if (step === iterations || before - objective <= tolerance * objective) return { weightings };
        before = objective;
        distances = distancesFrom(yield { kind: 'squared-to-centre', weightings }, weightings);
      }
    },
  };
}

/** Distances of all inputs by the sums of those that have a weighting; infinite where there is none, or none to compare. */
function distancesFrom(squared: Float64Array, weightings: readonly number[]): number[] {
  let next = 0;
  return weightings.map((weighting) => {
    if (weighting === 0) return Number.POSITIVE_INFINITY;
    const distance = Math.sqrt(squared[next++]!);
    return Number.isNaN(distance) ? Number.POSITIVE_INFINITY : distance;
  });
}

/** What a step of the algorithm makes smaller, of the inputs at finite distances. */
function smoothedSum(masses: readonly number[], distances: readonly number[], smoothing: number): number {
  let sum = 0;
  for (const [i, mass] of masses.entries()) {
    const d = distances[i]!;
    if (d === Number.POSITIVE_INFINITY) continue;
    sum += mass * (d < smoothing ? (d * d) / (2 * smoothing) + smoothing / 2 : d);
  }
  return sum;
}

function withoutUndefined(options: GeometricMedianOptions): { [K in keyof GeometricMedianOptions]?: number } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}
