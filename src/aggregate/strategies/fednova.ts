import { supportsMean } from '../../core/mean.ts';
import { AggregationError } from '../../errors.ts';
import { sum } from './scaled-weightings.ts';
import type { MeasureSpec, SettleContext, Settled, Strategy } from './strategy.ts';

export interface FedNovaOptions {
  /**
   * Local steps by leaf, τᵢ: how many gradient steps the leaf has made in this round; above 0, not necessarily whole. For
   * leaves with momentum or another local rule it is the paper's ‖aᵢ‖₁, for momentum ρ (τ − ρ·(1 − ρ^τ)/(1 − ρ))/(1 − ρ).
   */
  readonly localSteps: ReadonlyMap<string, number>;
}

/**
 * FedNova (Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization", 2020):
 * leaves that made more steps do not count more. With nᵢ the weightings and N their sum:
 *
 *     x' = x + τ_eff · Σ (nᵢ/N)·(xᵢ − x)/τᵢ,  τ_eff = Σ nᵢ·τᵢ / N
 *
 * which is a mean under other weightings and a rate: with aᵢ = nᵢ/τᵢ and A = Σ aᵢ, x' = x + s·(Σ aᵢ·xᵢ / A − x),
 * s = τ_eff·A/N. All in binary64 in the order of the leaf ids. Where all leaves made the same number of steps the result is
 * the weighted mean bit for bit, also of one input.
 *
 * Integer and bool tensors are the mean under aᵢ. NaN and infinity as for the mean.
 *
 * @throws AggregationError `strategy-parameter` for steps that are not above 0; when settled, for a leaf without any
 */
export function fedNova({ localSteps }: FedNovaOptions): Strategy {
  for (const [leaf, steps] of localSteps) {
    if (steps > 0 && steps < Infinity) continue;
    throw new AggregationError(
      'strategy-parameter',
      `fednova: ${leaf} made ${steps} steps, it must be above 0`,
      {
        leaf,
      },
    );
  }
  return {
    name: 'fednova',
    combine: { kind: 'mean' },
    step: { kind: 'rate' },
    needsModel: true,
    supports: supportsMean,
    *settle({ leaves, weightings }: SettleContext): Generator<MeasureSpec, Settled, Float64Array> {
      const steps = leaves.map((leaf) => stepsOf(localSteps, leaf));
      if (steps.every((count) => count === steps[0])) return { weightings, rate: 1 };
      const normalised = weightings.map((weighting, i) => weighting / steps[i]!);
      const total = sum(weightings);
      const effective = sum(weightings.map((weighting, i) => weighting * steps[i]!)) / total;
      return { weightings: normalised, rate: (effective * sum(normalised)) / total };
    },
  };
}

function stepsOf(localSteps: ReadonlyMap<string, number>, leaf: string): number {
  const steps = localSteps.get(leaf);
  if (steps !== undefined) return steps;
  throw new AggregationError('strategy-parameter', `fednova: nothing says how many steps ${leaf} made`, {
    leaf,
  });
}
