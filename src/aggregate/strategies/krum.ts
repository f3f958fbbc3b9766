import { supportsDistances } from '../../core/distances.ts';
import { AggregationError } from '../../errors.ts';
import { checkCount } from './parameters.ts';
import type { MeasureSpec, SettleContext, Settled, Strategy } from './strategy.ts';

/** More inputs would ask for more than 64 MiB of sums for one chunk of elements. */
const MAX_INPUTS = 4_096;

export interface KrumOptions {
  /** How many of the inputs may be the work of adversaries: f. */
  readonly byzantine: number;
}

export interface MultiKrumOptions extends KrumOptions {
  /** How many inputs the mean is taken of: m. */
  readonly select: number;
}

/**
 * Krum (Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", 2017): the input
 * whose K − f − 2 nearest others are nearest, in the sum of their squared distances. It comes back bit for bit.
 *
 * Needs K ≥ 2f + 3 inputs and takes at most 4,096. Weightings only say who counts at all: they come from the leaves, and
 * a rule that distrusts those cannot let them choose. Ties go to the first input in canonical order. Distances are
 * binary64 sums over the elements of all tensors, integers and bool by their values, complex ones by components. NaN and
 * infinity are refused, or when they may propagate put an input at an infinite distance of all others, as does a distance
 * that overflows: an input that has them is chosen only where fewer than two are left without.
 *
 * @throws AggregationError `strategy-parameter`
 */
export function krum({ byzantine }: KrumOptions): Strategy {
  return nearestInputs('krum', byzantine, 1);
}

/**
 * Multi-Krum (the same paper): the exact mean, each counting alike, of the m inputs that Krum likes best. Otherwise as
 * `krum`. Needs K ≥ max(2f + 3, m); resilience is proved for m ≤ K − f − 2 (Damaskinos et al., "AGGREGATHOR: Byzantine
 * Machine Learning via Robust Gradient Aggregation", 2019), and m = K is the plain mean.
 *
 * @throws AggregationError `strategy-parameter`
 */
export function multiKrum({ byzantine, select }: MultiKrumOptions): Strategy {
  return nearestInputs('multi-krum', byzantine, checkCount('multi-krum', 'select', select, 1));
}

function nearestInputs(name: string, byzantine: number, select: number): Strategy {
  checkCount(name, 'byzantine', byzantine, 0);
  return {
    name,
    combine: { kind: 'mean' },
    minimumInputs: Math.max(2 * byzantine + 3, select),
    supports: supportsDistances,
    *settle({ weightings }: SettleContext): Generator<MeasureSpec, Settled, Float64Array> {
      const k = weightings.length;
      if (k > MAX_INPUTS) {
        throw new AggregationError(
          'strategy-too-many-inputs',
          `"${name}" measures every input against every other and takes ${MAX_INPUTS} at most, there are ${k}`,
        );
      }
      const squared = yield { kind: 'pairwise-distances', weightings };
      const chosen = new Set(rankInputs(squared, k, k - byzantine - 2).slice(0, select));
      return { weightings: weightings.map((_, i) => (chosen.has(i) ? 1 : 0)) };
    },
  };
}

/** Positions of the inputs, the best one first: least sum of the distances of `neighbours` others, then position. */
function rankInputs(squared: Float64Array, k: number, neighbours: number): number[] {
  const scores = Array.from({ length: k }, (_, i) => {
    const nearest = distancesOf(squared, k, i).sort().subarray(0, neighbours);
    const finite = nearest.filter(Number.isFinite);
    // Infinite ones are counted: inputs without NaN must not tie with those that have them.
    return { i, infinite: neighbours - finite.length, sum: finite.reduce((a, b) => a + b, 0) };
  });
  scores.sort((a, b) => a.infinite - b.infinite || order(a.sum, b.sum) || a.i - b.i);
  return scores.map(({ i }) => i);
}

/** Squared distances of input i to all others, of which NaN are infinite. */
function distancesOf(squared: Float64Array, k: number, i: number): Float64Array {
  const distances = new Float64Array(k - 1);
  for (let j = 0; j < k; j++) {
    if (j === i) continue;
    const [a, b] = j < i ? [j, i] : [i, j];
    const distance = squared[(a * (2 * k - a - 1)) / 2 + b - a - 1]!;
    distances[j < i ? j : j - 1] = Number.isNaN(distance) ? Number.POSITIVE_INFINITY : distance;
  }
  return distances;
}

/** By size; two infinite sums are alike. */
function order(a: number, b: number): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
