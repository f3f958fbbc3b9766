/** What is given to a rule that does not look at it is a misunderstanding: nobody names a model or a state for nothing. */
import { AggregationError } from '../errors.ts';
import type { AggregationInput } from './plan.ts';
import { keepsState } from './steps.ts';
import type { Strategy } from './strategies/strategy.ts';

/** What was asked for besides the inputs; null and undefined are nothing. */
interface Given {
  readonly model?: unknown;
  readonly state?: unknown;
  readonly differences?: boolean | undefined;
}

/** @throws AggregationError `strategy-state-unused`, `strategy-model-unused` */
export function checkUsed(
  strategy: Strategy,
  inputs: readonly Pick<AggregationInput, 'layout'>[],
  { model, state, differences = false }: Given,
): void {
  const { name, needsModel = false } = strategy;
  if (state != null && !keepsState(strategy)) {
    throw new AggregationError('strategy-state-unused', `"${name}" keeps no state: leave the state out`);
  }
  const isUsed = needsModel || differences || inputs.some(({ layout }) => layout.isDifference);
  if (model == null || isUsed) return;
  throw new AggregationError(
    'strategy-model-unused',
    `"${name}" refers to no global model, and no input is said to be a difference to one: leave the model out`,
  );
}
