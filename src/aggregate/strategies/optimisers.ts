/**
 * Server optimisers: the average of what the leaves sent is taken for a direction, and the global model x makes a step of
 * its own there (Reddi et al., "Adaptive Federated Optimization", 2021, algorithm 2).
 *
 * With Δ = mean − x and a state of m and v, one number each per parameter, that is kept from round to round (m₀ = 0,
 * v₀ = τ²):
 *
 *     m' = β₁·m + (1 − β₁)·Δ
 *     v' = v + Δ²                               fedadagrad
 *          β₂·v + (1 − β₂)·Δ²                   fedadam
 *          v − (1 − β₂)·Δ²·sign(v − Δ²)         fedyogi
 *     x' = x + η·m' / (√v' + τ)
 *
 * As in the paper there is no correction of the bias of the first rounds. The mean is exact and rounded to the dtype; from
 * there on arithmetic is binary64, each result rounded once to what it is stored as: m and v are float64 for float64,
 * float32 for every narrower float, and complex numbers are steps by component. Integer and bool tensors have no state and
 * stay at the mean.
 *
 * NaN and infinity are refused, results that are too large for their dtype too; when they may propagate they follow
 * IEEE 754, NaN in canonical form, and an element whose m or v is not finite stays so in all later rounds.
 *
 * With `differences` the inputs are differences to x instead of models, so Δ = mean; their integer and bool tensors are
 * taken for the new values.
 */
import { supportsMean } from '../../core/mean.ts';
import { checkPositive, refuseParameter } from './parameters.ts';
import type { MeasureSpec, SettleContext, Settled, StepSpec, Strategy } from './strategy.ts';

interface Inputs {
  /** The inputs are differences to the global model (default false). */
  readonly differences?: boolean | undefined;
}

export interface FedAvgOptions extends Inputs {
  /** How far to go from the global model to the mean: 1 arrives there. Above 0. */
  readonly learningRate: number;
}

/**
 * The mean with a server learning rate: x' = x + η·Δ. At a rate of 1 the result is the mean, bit for bit.
 *
 * @throws AggregationError `strategy-parameter`
 */
export function fedAvg({ learningRate, differences }: FedAvgOptions): Strategy {
  checkPositive('fedavg', 'learningRate', learningRate);
  return {
    ...optimiser('fedavg', { kind: 'rate', differences }),
    // biome-ignore lint/correctness/useYield: a rule that needs no pass
    *settle({ weightings }: SettleContext): Generator<MeasureSpec, Settled, Float64Array> {
      return { weightings, rate: learningRate };
    },
  };
}

export interface FedAvgMOptions extends Inputs {
  /** η, by default 1. */
  readonly learningRate?: number | undefined;
  /** β, at least 0 and below 1, by default 0.9. */
  readonly momentum?: number | undefined;
}

/**
 * Server momentum (Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
 * Classification", 2019): m' = β·m + Δ, x' = x + η·m'.
 *
 * @throws AggregationError `strategy-parameter`
 */
export function fedAvgM({ learningRate = 1, momentum = 0.9, differences }: FedAvgMOptions = {}): Strategy {
  const name = 'fedavgm';
  checkPositive(name, 'learningRate', learningRate);
  checkDecay(name, 'momentum', momentum);
  return optimiser(name, { kind: 'momentum', learningRate, beta1: momentum, differences });
}

export interface FedAdagradOptions extends Inputs {
  /** η; the paper tunes it per task, so there is no default. */
  readonly learningRate: number;
  /** β₁, at least 0 and below 1, by default 0 as in the paper's experiments. */
  readonly beta1?: number | undefined;
  /** How adaptive the rule is, above 0, by default the paper's 0.001. */
  readonly tau?: number | undefined;
}

/** FedAdagrad. @throws AggregationError `strategy-parameter` */
export function fedAdagrad({
  learningRate,
  beta1 = 0,
  tau = 1e-3,
  differences,
}: FedAdagradOptions): Strategy {
  checkAdaptive('fedadagrad', { learningRate, beta1, tau });
  return optimiser('fedadagrad', { kind: 'adagrad', learningRate, beta1, tau, differences });
}

export interface FedAdamOptions extends FedAdagradOptions {
  /** β₁, at least 0 and below 1, by default 0.9. */
  readonly beta1?: number | undefined;
  /** β₂, at least 0 and below 1, by default 0.99. */
  readonly beta2?: number | undefined;
}

/** FedAdam. @throws AggregationError `strategy-parameter` */
export function fedAdam(options: FedAdamOptions): Strategy {
  return moments('fedadam', 'adam', options);
}

/** FedYogi. @throws AggregationError `strategy-parameter` */
export function fedYogi(options: FedAdamOptions): Strategy {
  return moments('fedyogi', 'yogi', options);
}

function moments(name: string, kind: 'adam' | 'yogi', options: FedAdamOptions): Strategy {
  const { learningRate, beta1 = 0.9, beta2 = 0.99, tau = 1e-3, differences } = options;
  checkAdaptive(name, { learningRate, beta1, tau });
  checkDecay(name, 'beta2', beta2);
  return optimiser(name, { kind, learningRate, beta1, beta2, tau, differences });
}

function optimiser(name: string, step: StepSpec): Strategy {
  return { name, combine: { kind: 'mean' }, step, needsModel: true, supports: supportsMean };
}

function checkAdaptive(
  name: string,
  {
    learningRate,
    beta1,
    tau,
  }: { readonly learningRate: number; readonly beta1: number; readonly tau: number },
): void {
  checkPositive(name, 'learningRate', learningRate);
  checkDecay(name, 'beta1', beta1);
  checkPositive(name, 'tau', tau);
}

function checkDecay(name: string, key: string, value: number): void {
  if (!(value >= 0 && value < 1)) refuseParameter(name, key, value, 'at least 0 and below 1');
}
