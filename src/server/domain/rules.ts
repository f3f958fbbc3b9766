/**
 * Which rule averages a round, and from which global model it steps, or which one the average of differences is added to: the
 * aggregation of the round before, by number, or the initial model of the run. The model and the state of the optimiser
 * that belongs to it stay the base of the round however often its aggregation is tried.
 */
import { keepsState } from '../../aggregate/steps.ts';
import { CambiumError } from '../../errors.ts';
import type { StrategyBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import { prepared } from '../store/prepared.ts';
import type { Contract } from './contract.ts';
import { strategyOf } from './policy.ts';
import { Refusal } from './refusal.ts';
import { contractOfRound, policyOfRound, type Round } from './rounds.ts';

export interface RoundRule {
  readonly strategy: StrategyBody;
  readonly nonFinite: 'reject' | 'propagate';
  /** The aggregation to step from. */
  readonly modelId: string | undefined;
  /** The state that belongs to it. */
  readonly stateId: string | undefined;
  /** Whether the rule leaves a state for the next round. */
  readonly keepsState: boolean;
  /** The tensors of what comes of the round, in their order. */
  readonly tensors: Contract;
  /** Whether the round ends with an exact sum for a server above. */
  readonly upstream: boolean;
}

/** The rule that stands in while there is no global model. */
const MEAN: StrategyBody = { name: 'mean', parameters: {} };

/** @throws CambiumError `round-model-removed` when the base of a retried round is gone */
export async function ruleOf(db: Database, round: Round): Promise<RoundRule> {
  const { strategy, non_finite: nonFinite, upstream } = await policyOfRound(db, round);
  const rule = strategyOf(strategy);
  const tensors = await contractOfRound(db, round);
  const plain = {
    nonFinite,
    tensors,
    upstream,
    modelId: undefined,
    stateId: undefined,
    keepsState: false,
  };
  if (rule.needsModel !== true && !(await holdsDifferences(db, round.id))) return { ...plain, strategy };
  const base = await db
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
    .where('rounds.number', '<', round.number)
    .orderBy('rounds.number', 'desc')
    .limit(1)
    .executeTakeFirst();
  if (base === undefined) return { ...plain, strategy: MEAN };
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
    tensors,
    upstream,
  };
}

/**
 * Checks that a failed round may still become what it would have been: that nobody has gone on from the model that it would have
 * changed. An older round of whole models has a mean at any time, for the record (domain/completion.ts). But what steps from a
 * model, or is added to one, would step from a model that later rounds have left behind; a sum would go into a round above
 * that it does not belong to; and differences that a later round holds would be added to a model that they are not from.
 * (Whole models that a later round holds count as late ones do, and FedBuff means its differences so.)
 *
 * @throws Refusal `round-superseded`
 */
export async function checkNotSuperseded(tx: Database, round: Round): Promise<void> {
  const { strategy, upstream } = await policyOfRound(tx, round);
  const isBound =
    upstream || strategyOf(strategy).needsModel === true || (await holdsDifferences(tx, round.id));
  const later = await tx
    .selectFrom('rounds')
    .selectAll()
    .where('run_id', '=', round.run_id)
    .where('number', '>', round.number)
    .where('status', '!=', 'discarded')
    .orderBy('number')
    .execute();
  for (const next of later) {
    const hasGoneOn = next.status === 'done' || next.status === 'aggregating';
    if (hasGoneOn && !isBound) return; // what comes later is based on that one
    const mayBeLate = (await policyOfRound(tx, next)).strategy.name === 'buffered';
    if (!hasGoneOn && (mayBeLate || !(await holdsDifferences(tx, next.id)))) continue;
    const why = hasGoneOn ? 'has gone on without it' : 'holds differences to the model before it';
    throw new Refusal(
      'conflict',
      'round-superseded',
      `round ${round.number} comes too late, round ${next.number} ${why}: discard it`,
      { round: round.number, later: next.number },
    );
  }
}

/**
 * Whether the updates of a round are differences to the global model: all of them are, or none (domain/differences.ts).
 *
 * @param besides an update that does not matter
 * @returns undefined for a round without updates
 */
export async function holdsDifferences(
  db: Database,
  roundId: string,
  besides = '',
): Promise<boolean | undefined> {
  const [update] = await anUpdateOf(db, { roundId, besides });
  return update && update.is_difference === 1;
}

const anUpdateOf = prepared((db, round: { readonly roundId: string; readonly besides: string }) =>
  db
    .selectFrom('updates')
    .select('is_difference')
    .where('round_id', '=', round.roundId)
    .where('left_out', 'is', null)
    .where('id', '!=', round.besides)
    .limit(1),
);

/** The newest global model of the run that a round may step from, as far as it is there yet; undefined for none. */
export async function modelBefore(db: Database, round: Round): Promise<string | undefined> {
  const [row] = await newestBefore(db, { run_id: round.run_id, number: round.number });
  return row?.removed_at === null ? row.id : undefined;
}

const newestBefore = prepared((db, round: Pick<Round, 'run_id' | 'number'>) =>
  db
    .selectFrom('rounds')
    .innerJoin('aggregations', 'aggregations.round_id', 'rounds.id')
    .select(['aggregations.id', 'aggregations.removed_at'])
    .where('rounds.run_id', '=', round.run_id)
    .where('rounds.status', '=', 'done')
    .where('rounds.number', '<', round.number)
    .orderBy('rounds.number', 'desc')
    .limit(1),
);

/** A state is of use to the very rule that left it. */
function sameRule(a: StrategyBody, b: StrategyBody): boolean {
  const text = ({ name, parameters }: StrategyBody) =>
    JSON.stringify([name, Object.entries(parameters).sort()]);
  return text(a) === text(b);
}
