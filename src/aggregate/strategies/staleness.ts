import { supportsMean } from '../../core/mean.ts';
import { checkPositive, refuseParameter } from './parameters.ts';
import { sum } from './scaled-weightings.ts';
import type { MeasureSpec, SettleContext, Settled, Strategy } from './strategy.ts';

/** What an update counts that is based on a model of `staleness` rounds ago. Fresh ones count 1. */
export type StalenessRule =
  /** Always 1. */
  | { readonly kind: 'constant' }
  /** (1 + staleness)^−a. `exponent` a is a multiple of 1/2 from 0 to 16, by default 1/2, as in FedBuff. */
  | { readonly kind: 'polynomial'; readonly exponent?: number | undefined }
  /** 1 up to `delay` rounds, then 1 / (slope·(staleness − delay) + 1). */
  | { readonly kind: 'hinge'; readonly slope: number; readonly delay: number };

const NAME = 'buffered';

/** Larger exponents than anyone uses, and still finite: (2^53)^16 is far below the largest binary64 number. */
const MAX_EXPONENT = 16;

/**
 * The weight of a stale update. Of exponents only multiples of 1/2 are taken: products, quotients and square roots have
 * the same bits on every host, powers have not.
 *
 * @param staleness rounds that have ended since the update's base, a whole number from 0
 * @throws AggregationError `strategy-parameter`
 */
export function stalenessWeight(rule: StalenessRule, staleness: number): number {
  if (!Number.isSafeInteger(staleness) || staleness < 0) {
    refuse('staleness', staleness, 'a whole number from 0');
  }
  switch (rule.kind) {
    case 'constant':
      return 1;
    case 'polynomial': {
      const { exponent = 0.5 } = rule;
      if (!(Number.isInteger(2 * exponent) && exponent >= 0 && exponent <= MAX_EXPONENT)) {
        refuse('exponent', exponent, `a multiple of 1/2 from 0 to ${MAX_EXPONENT}`);
      }
      const base = 1 + staleness;
      let power = Number.isInteger(exponent) ? 1 : Math.sqrt(base);
      for (let i = 1; i <= exponent; i++) power *= base;
      return 1 / power;
    }
    case 'hinge': {
      const { slope, delay } = rule;
      checkPositive(NAME, 'slope', slope);
      if (!(delay >= 0 && delay < Infinity)) refuse('delay', delay, 'at least 0 and finite');
      return staleness <= delay ? 1 : 1 / (slope * (staleness - delay) + 1);
    }
  }
}

export interface BufferedOptions {
  /** Rounds that have ended since the base of each leaf's update; leaves that are not named are fresh. */
  readonly staleness: ReadonlyMap<string, number>;
  /** By default polynomial with exponent 1/2. */
  readonly rule?: StalenessRule | undefined;
  /** The server's rate η (FedAsync's mixing weight α), above 0, by default 1. */
  readonly learningRate?: number | undefined;
  /** The inputs are differences to the models that they were based on, as in FedBuff (default false: models). */
  readonly differences?: boolean | undefined;
}

/**
 * Buffered asynchronous aggregation: updates are folded when enough of them are there, however old the model is that they
 * began with, and count less the older that is. With sᵢ = s(stalenessᵢ):
 *
 *     x' = x + η · Σ wᵢ·sᵢ·Δᵢ / Σ wᵢ
 *
 * FedBuff (Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", 2022) has differences Δᵢ, equal wᵢ
 * and s = 1/√(1 + staleness). FedAsync (Xie et al., "Asynchronous Federated Optimization", 2019) has one model at a time,
 * Δ = x₁ − x, with η its α and s constant, polynomial or hinge. It is the mean under wᵢ·sᵢ at the rate
 * η·Σ wᵢ·sᵢ / Σ wᵢ, in binary64 in the order of the leaf ids; at a rate of 1 (all fresh, η = 1) the mean itself, bit for bit.
 *
 * Integer and bool tensors are the mean under wᵢ·sᵢ. NaN and infinity as for the mean.
 *
 * @throws AggregationError `strategy-parameter`
 */
export function buffered(options: BufferedOptions): Strategy {
  const { staleness, rule = { kind: 'polynomial' }, learningRate = 1, differences } = options;
  checkPositive(NAME, 'learningRate', learningRate);
  for (const rounds of [0, ...staleness.values()]) stalenessWeight(rule, rounds);
  return {
    name: NAME,
    combine: { kind: 'mean' },
    step: { kind: 'rate', differences },
    needsModel: true,
    supports: supportsMean,
    *settle({ leaves, weightings }: SettleContext): Generator<MeasureSpec, Settled, Float64Array> {
      const counted = leaves.map(
        (leaf, i) => weightings[i]! * stalenessWeight(rule, staleness.get(leaf) ?? 0),
      );
      const rate = counted.every((weighting, i) => weighting === weightings[i])
        ? learningRate
        : (learningRate * sum(counted)) / sum(weightings);
      return { weightings: counted, rate };
    },
  };
}

function refuse(key: string, value: number, expected: string): never {
  refuseParameter(NAME, key, value, expected);
}
