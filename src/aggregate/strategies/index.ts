import { AggregationError } from '../../errors.ts';
import { clippedMean } from './clipped-mean.ts';
import { fedNova } from './fednova.ts';
import { GEOMETRIC_MEDIAN_DEFAULTS, geometricMedian } from './geometric-median.ts';
import { krum, multiKrum } from './krum.ts';
import { mean } from './mean.ts';
import { median, weightedMedian } from './median.ts';
import { fedAdagrad, fedAdam, fedAvg, fedAvgM, fedYogi } from './optimisers.ts';
import { buffered } from './staleness.ts';
import type { Strategy, StrategyDefinition, StrategyRequest } from './strategy.ts';
import { trimmedMean } from './trimmed-mean.ts';

export type { Strategy, StrategyRequest } from './strategy.ts';

/** The aggregation rules. */
export const strategies = {
  mean,
  median,
  weightedMedian,
  trimmedMean,
  krum,
  multiKrum,
  geometricMedian,
  clippedMean,
  fedAvg,
  fedAvgM,
  fedAdagrad,
  fedAdam,
  fedYogi,
  fedNova,
  buffered,
} as const;

/** The same by the names that commands and policies use, in the order of the documentation. */
export const DEFINITIONS: readonly StrategyDefinition[] = [
  define('mean', {}, () => mean),
  define('median', {}, () => median),
  define('weighted-median', {}, () => weightedMedian),
  define('trimmed-mean', { trim: null }, trimmedMean),
  define('krum', { byzantine: null }, krum),
  define('multi-krum', { byzantine: null, select: null }, multiKrum),
  define('geometric-median', GEOMETRIC_MEDIAN_DEFAULTS, geometricMedian),
  define('clipped-mean', { norm: null }, clippedMean),
  define('fedavg', { learningRate: null }, fedAvg),
  define('fedavgm', { learningRate: 1, momentum: 0.9 }, fedAvgM),
  define('fedadagrad', { learningRate: null, beta1: 0, tau: 1e-3 }, fedAdagrad),
  define('fedadam', { learningRate: null, beta1: 0.9, beta2: 0.99, tau: 1e-3 }, fedAdam),
  define('fedyogi', { learningRate: null, beta1: 0.9, beta2: 0.99, tau: 1e-3 }, fedYogi),
  defineFor('local steps', 'fednova', {}, (_, localSteps) => fedNova({ localSteps })),
  defineFor(
    'staleness',
    'buffered',
    { learningRate: 1, exponent: 0.5 },
    ({ learningRate, exponent }, staleness) =>
      buffered({ staleness, learningRate, rule: { kind: 'polynomial', exponent } }),
  ),
];

function defineFor<K extends string>(
  perLeaf: string,
  name: string,
  parameters: Readonly<Record<K, number | null>>,
  make: (parameters: Readonly<Record<K, number>>, perLeaf: ReadonlyMap<string, number>) => Strategy,
): StrategyDefinition {
  return { name, parameters, perLeaf, make };
}

function define<K extends string>(
  name: string,
  parameters: Readonly<Record<K, number | null>>,
  make: (parameters: Readonly<Record<K, number>>) => Strategy,
): StrategyDefinition {
  return { name, parameters, make };
}

/** Names of the rules, in the order of the documentation. */
export const STRATEGY_NAMES: readonly string[] = DEFINITIONS.map(({ name }) => name);

/**
 * A rule by name and parameters.
 *
 * @param perLeaf by leaf id, for rules that want to know something of each: local steps of `fednova`, staleness of `buffered`
 * @throws AggregationError `strategy-unknown`, `strategy-parameter`
 */
export function openStrategy(
  name: string,
  parameters: Readonly<Record<string, number>> = {},
  perLeaf: ReadonlyMap<string, number> | undefined = undefined,
): Strategy {
  const definition = DEFINITIONS.find((candidate) => candidate.name === name);
  if (definition === undefined) {
    throw new AggregationError(
      'strategy-unknown',
      `there is no strategy "${name}"; there are ${STRATEGY_NAMES.join(', ')}`,
    );
  }
  for (const key of Object.keys(parameters)) {
    if (Object.hasOwn(definition.parameters, key)) continue;
    const known = Object.keys(definition.parameters);
    throw new AggregationError(
      'strategy-parameter',
      `${name} has no parameter "${key}"; it has ${known.length === 0 ? 'none' : known.join(', ')}`,
    );
  }
  const settled: Record<string, number> = {};
  for (const [key, fallback] of Object.entries(definition.parameters)) {
    const value = parameters[key] ?? fallback;
    if (value === null)
      throw new AggregationError('strategy-parameter', `${name} needs the parameter "${key}"`);
    settled[key] = value;
  }
  if (perLeaf !== undefined && definition.perLeaf === undefined) {
    throw new AggregationError('strategy-parameter', `${name} has nothing to know of each leaf`);
  }
  return definition.make(settled, perLeaf ?? new Map());
}

/**
 * The rule that is asked for, the mean where none is.
 *
 * @throws AggregationError `strategy-unknown`, also for what is no request; `strategy-parameter`
 */
export function openRequest(request: StrategyRequest | undefined): Strategy {
  if (request === undefined) return mean;
  if (typeof request?.name !== 'string' || 'combine' in request) {
    throw new AggregationError(
      'strategy-unknown',
      "a strategy is asked for as { name: 'trimmed-mean', parameters: { trim: 0.1 } }",
    );
  }
  return openStrategy(request.name, request.parameters, request.perLeaf);
}
