/**
 * Which rule averages a round, and from which global model it steps, or which one the average of differences is added to: the
 * aggregation of the round before, by number, or the initial model of the run. The model and the state of the optimiser
 * that belongs to it stay the base of the round however often its aggregation is tried.
 */
import { CambiumError } from '../../errors.ts';
import type { StrategyBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import { keepsState, strategyOf } from './policy.ts';
import { policyOfRound, type Round } from './rounds.ts';
import { membersOf } from './standing.ts';

export interface RoundRule {
  readonly strategy: StrategyBody;
  readonly nonFinite: 'reject' | 'propagate';
  /** The aggregation to step from. */
  readonly modelId: string | undefined;
  /** The state that belongs to it. */
  readonly stateId: string | undefined;
  /** Whether the rule leaves a state for the next round. */
  readonly keepsState: boolean;
  /** Whether the round ends with an exact sum for a server above. */
  readonly upstream: boolean;
}

/** The rule that stands in while there is no global model. */
const MEAN: StrategyBody = { name: 'mean', parameters: {} };

/** @throws CambiumError `round-superseded`, `round-model-removed` when the base of a retried round is gone */
export async function ruleOf(db: Database, round: Round): Promise<RoundRule> {
  const { strategy, non_finite: nonFinite, upstream } = await policyOfRound(db, round);
  const rule = strategyOf(strategy);
  const plain = { nonFinite, modelId: undefined, stateId: undefined, keepsState: false, upstream };
  if (rule.needsModel !== true && !(await holdsDifferences(db, round))) return { ...plain, strategy };
  const done = await db
    .selectFrom('rounds')
    .innerJoin('aggregations', 'aggregations.round_id', 'rounds.id')
    .select([
      'aggregations.id',
      'aggregations.state_id',
      'aggregations.removed_at',
      'rounds.number',
      'rounds.strategy',
    ])
    .where('rounds.run_id', '=', round.run_id)
    .where('rounds.status', '=', 'done')
    .orderBy('rounds.number', 'desc')
    .execute();
  const base = done.find(({ number }) => number < round.number);
  if (base === undefined) return { ...plain, strategy: MEAN };
  if (keepsState(rule) && done[0]!.number > round.number) {
    throw new CambiumError(
      'round-superseded',
      `"${strategy.name}" has gone on from round ${base.number} without round ${round.number}: discard it`,
    );
  }
  if (base.removed_at !== null) {
    throw new CambiumError(
      'round-model-removed',
      `the aggregation of round ${base.number} is not kept any more`,
    );
  }
  const isSame = base.strategy !== null && sameRule(JSON.parse(base.strategy) as StrategyBody, strategy); // written by Aggregator
  return {
    strategy,
    nonFinite,
    modelId: base.id,
    stateId: isSame && base.state_id !== null ? base.state_id : undefined,
    keepsState: keepsState(rule),
    upstream,
  };
}

/** Whether the updates of a round are differences to the global model: all of them are, or none (domain/differences.ts). */
async function holdsDifferences(db: Database, round: Round): Promise<boolean> {
  return (await membersOf(db, round.id)).some(({ is_difference }) => is_difference === 1);
}

/** The newest global model of the run that a round may step from, as far as it is there yet; undefined for none. */
export async function modelBefore(db: Database, round: Round): Promise<string | undefined> {
  const row = await db
    .selectFrom('rounds')
    .innerJoin('aggregations', 'aggregations.round_id', 'rounds.id')
    .select(['aggregations.id', 'aggregations.removed_at'])
    .where('rounds.run_id', '=', round.run_id)
    .where('rounds.status', '=', 'done')
    .where('rounds.number', '<', round.number)
    .orderBy('rounds.number', 'desc')
    .limit(1)
    .executeTakeFirst();
  return row?.removed_at === null ? row.id : undefined;
}

/** A state is of use to the very rule that left it. */
function sameRule(a: StrategyBody, b: StrategyBody): boolean {
  const text = ({ name, parameters }: StrategyBody) =>
    JSON.stringify([name, Object.entries(parameters).sort()]);
  return text(a) === text(b);
}
