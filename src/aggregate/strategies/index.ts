import { AggregationError } from '../../errors.ts';
import { mean } from './mean.ts';
import type { Strategy, StrategyDefinition } from './strategy.ts';

export type { Strategy } from './strategy.ts';

/** The aggregation rules. */
export const strategies = { mean } as const;

/** The same by the names that commands and policies use. */
const DEFINITIONS: readonly StrategyDefinition[] = [{ name: 'mean', parameters: {}, make: () => mean }];

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
