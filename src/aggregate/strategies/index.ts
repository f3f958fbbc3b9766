import { AggregationError } from '../../errors.ts';
import { GEOMETRIC_MEDIAN_DEFAULTS, geometricMedian } from './geometric-median.ts';
import { krum, multiKrum } from './krum.ts';
import { mean } from './mean.ts';
import { median, weightedMedian } from './median.ts';
import type { Strategy, StrategyDefinition } from './strategy.ts';
import { trimmedMean } from './trimmed-mean.ts';

export type { Strategy } from './strategy.ts';

/** The aggregation rules. */
export const strategies = {
  mean,
  median,
  weightedMedian,
  trimmedMean,
  krum,
  multiKrum,
  geometricMedian,
} as const;

/** The same by the names that commands and policies use. */
const DEFINITIONS: readonly StrategyDefinition[] = [
  { name: 'mean', parameters: {}, make: () => mean },
  { name: 'median', parameters: {}, make: () => median },
  { name: 'weighted-median', parameters: {}, make: () => weightedMedian },
  { name: 'trimmed-mean', parameters: { trim: null }, make: ({ trim }) => trimmedMean({ trim: trim! }) }, // settled
  { name: 'krum', parameters: { byzantine: null }, make: ({ byzantine }) => krum({ byzantine: byzantine! }) },
  {
    name: 'multi-krum',
    parameters: { byzantine: null, select: null },
    make: ({ byzantine, select }) => multiKrum({ byzantine: byzantine!, select: select! }),
  },
  { name: 'geometric-median', parameters: GEOMETRIC_MEDIAN_DEFAULTS, make: geometricMedian },
];

/** Names of the rules, in the order of the documentation. */
export const STRATEGY_NAMES: readonly string[] = DEFINITIONS.map(({ name }) => name);

/**
 * A rule by name and parameters.
 *
 * @throws AggregationError `strategy-unknown`, `strategy-parameter`
 */
export function openStrategy(name: string, parameters: Readonly<Record<string, number>> = {}): Strategy {
  const definition = DEFINITIONS.find((candidate) => candidate.name === name);
  if (definition === undefined) {
    throw new AggregationError(
      'strategy-unknown',
      `there is no strategy "${name}"; there are ${STRATEGY_NAMES.join(', ')}`,
    );
  }
  for (const key of Object.keys(parameters)) {
    if (key in definition.parameters) continue;
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
  return definition.make(settled);
}
