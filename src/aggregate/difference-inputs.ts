/** Inputs that are differences to the global model; loaded when there are some. */
import { AggregationError } from '../errors.ts';
import type { AggregationInput } from './plan.ts';
import type { Strategy } from './strategies/strategy.ts';

type Input = Omit<AggregationInput, 'weighting'>;

/**
 * What a rule is for inputs or a model one of which is a difference: where all inputs are, what the rule makes of them is
 * added to the global model, at the rule's rate.
 *
 * @param isAsked the caller says that the inputs are differences; only encoded updates say so themselves
 * @throws AggregationError `aggregate-difference` for differences among models or a model that is one,
 *   `strategy-model-missing` when there is no model
 */
export function settleDifferences(
  strategy: Strategy,
  inputs: readonly Input[],
  model: Input | undefined,
  isAsked: boolean,
): Strategy {
  const difference = inputs.find(({ layout }) => layout.isDifference === true);
  const other = inputs.find(({ layout }) => (isAsked ? layout.isDifference === false : !layout.isDifference));
  if (other !== undefined && (isAsked || difference !== undefined)) {
    const what =
      difference === undefined
        ? `${other.leaf} is no difference to a global model, and differences are to be aggregated`
        : `${difference.leaf} is a difference to a global model and ${other.leaf} is none`;
    throw refusal('aggregate-difference', what, difference ?? other);
  }
  const isOfDifferences = isAsked || difference !== undefined;
  if (model === undefined) {
    const [first] = inputs as [Input]; // one of them is a difference
    const what = `${first.leaf} is a difference to a global model: give that model`;
    throw refusal('strategy-model-missing', what, first);
  }
  const needsModel = isOfDifferences || strategy.needsModel === true;
  if (needsModel && model.layout.isDifference === true) {
    const what = `${model.leaf} is a difference, and the global model must be a model`;
    throw refusal('aggregate-difference', what, model);
  }
  if (!isOfDifferences) return strategy;
  const { step = { kind: 'rate' } } = strategy;
  return { ...strategy, step: { ...step, differences: true }, needsModel: true };
}

function refusal(code: string, what: string, { leaf }: Input): AggregationError {
  return new AggregationError(code, what, { leaf });
}
