/**
 * Policies: when a round of a branch closes, who takes part, what counts and how it is averaged.
 *
 * A round keeps the policy that it was opened with. A change holds from the next round on, and at once for an open round
 * that has nothing yet: there is nobody in it who could have relied on the old one.
 */
import { createHash } from 'node:crypto';
import { openStrategy, type Strategy } from '../../aggregate/strategies/index.ts';
import { AggregationError } from '../../errors.ts';
import type { PolicyBody, StrategyBody } from '../../wire/cambium.ts';
import { Refusal } from './refusal.ts';

/** A round folds its updates side by side in a few MiB; more leaves than this belong into several branches. */
const MAX_TARGET = 10_000;

/** Every round keeps its policy: longer ones would fill the database. */
const MAX_SEED_LENGTH = 200;

/** A round that nobody closes for longer than this is forgotten, not late; the clock of the host ends not far beyond. */
const MAX_WAIT_MS = 366 * 24 * 3600_000;

/**
 * For how long the server above is waited for unless a policy says otherwise. Its own round may wait for the slowest of
 * many sites; but a round that waits for ever is one that nobody hears of.
 */
const UPSTREAM_TIMEOUT_MS = 24 * 3600_000;

/** What a branch does unless it is told otherwise. */
export const DEFAULT_POLICY: Omit<PolicyBody, 'aggregation_target'> = {
  minimum: null,
  deadline_ms: null,
  grace_ms: null,
  late: 'next',
  replace: false,
  sample: null,
  strategy: { name: 'mean', parameters: {} },
  non_finite: 'reject',
  keep_aggregations: null,
  partial_sums: false,
  upstream: false,
  upstream_timeout_ms: UPSTREAM_TIMEOUT_MS,
};

/** The policy of a branch or of a round, as its row has it. */
export function policyOf(row: { readonly policy: string | null }, target: number): PolicyBody {
  const stored = row.policy === null ? {} : (JSON.parse(row.policy) as Partial<PolicyBody>); // written by us
  return { ...DEFAULT_POLICY, aggregation_target: target, ...stored };
}

/** The fewest contributions with which a round may close by the clock or by an operator. */
export function leastOf({ minimum }: Pick<PolicyBody, 'minimum'>): number {
  return minimum ?? 1;
}

/**
 * Checks that a policy can be followed.
 *
 * @param leaves active leaves of the branch and below; undefined while there is no run and more may come
 * @throws Refusal `target-invalid`, `policy-…`, `strategy-unknown`, `strategy-parameter`
 */
export function checkPolicy(policy: PolicyBody, leaves?: number): void {
  const { aggregation_target: target, minimum, deadline_ms, grace_ms, sample, keep_aggregations } = policy;
  const { upstream_timeout_ms } = policy;
  if (!isCount(target) || target > MAX_TARGET) {
    throw refuse('target-invalid', `the aggregation target is a whole number from 1 to ${MAX_TARGET}`);
  }
  if (minimum !== null && !isCount(minimum)) {
    throw refuse('policy-minimum', 'the minimum is a whole number from 1');
  }
  if (minimum !== null && minimum > target) {
    throw refuse(
      'policy-minimum-target',
      `the minimum of ${minimum} is above the target of ${target}: a round would close before`,
    );
  }
  for (const [name, value] of [
    ['deadline', deadline_ms],
    ['grace', grace_ms],
  ] as const) {
    if (value === null) continue;
    checkWait(name, value);
    if (minimum === null) {
      throw refuse(
        `policy-${name}-minimum`,
        `a ${name} needs a minimum: it closes the round with what is there`,
      );
    }
  }
  if (upstream_timeout_ms !== null) checkWait('upstream-timeout', upstream_timeout_ms);
  if (sample !== null) {
    if (!isCount(sample.leaves)) throw refuse('policy-sample', 'a sample has at least one leaf');
    if ((sample.seed?.length ?? 0) > MAX_SEED_LENGTH) {
      throw refuse('policy-sample', `the seed of a sample has at most ${MAX_SEED_LENGTH} characters`);
    }
    if (target > sample.leaves) {
      throw refuse(
        'policy-sample-target',
        `the target of ${target} cannot be met by a sample of ${sample.leaves} leaves`,
      );
    }
  }
  if (keep_aggregations !== null && !isCount(keep_aggregations)) {
    throw refuse('policy-keep', 'the newest aggregation is always kept: keep at least 1');
  }
  checkStrategy(policy);
  if (leaves !== undefined && minimum !== null && minimum > leaves) {
    throw refuse(
      'policy-minimum-leaves',
      `the minimum is ${minimum}, the branch has ${leaves} leaves: no round could close`,
      { leaves },
    );
  }
}

function checkWait(name: string, ms: number): void {
  if (isCount(ms) && ms <= MAX_WAIT_MS) return;
  throw refuse(
    `policy-${name}`,
    `the ${name.replace('-', ' ')} is a number of milliseconds from 1 to ${MAX_WAIT_MS}`,
  );
}

function checkStrategy(policy: PolicyBody): void {
  const strategy = strategyOf(policy.strategy);
  const least = policy.minimum ?? policy.aggregation_target;
  const { name, minimumInputs = 1 } = strategy;
  for (const member of ['partial_sums', 'upstream'] as const) {
    // Of a sum nobody can tell its leaves apart; and what a rule makes of the mean, the server above would do again.
    if (!policy[member] || name === 'mean') continue;
    throw refuse(
      'policy-strategy-sums',
      `"${name}" cannot go with "${member}": of sums there is a mean only`,
      {
        member,
      },
    );
  }
  if (least < minimumInputs) {
    throw refuse(
      'policy-strategy-inputs',
      `"${name}" needs ${minimumInputs} updates, a round may close with ${least}: raise ${policy.minimum === null ? 'the target' : 'the minimum'}`,
      { minimum_inputs: minimumInputs },
    );
  }
}

/** A policy's rule. Throws Refusal `strategy-unknown`, `strategy-parameter`. */
export function strategyOf({ name, parameters }: StrategyBody): Strategy {
  try {
    return openStrategy(name, parameters);
  } catch (error) {
    if (!(error instanceof AggregationError)) throw error;
    throw new Refusal('unprocessable', error.code, error.message, undefined, { cause: error });
  }
}

/**
 * Draws the leaves that a round asks: those with the smallest digests of seed, round and id, so that the draw can be made
 * again by anybody, on any host.
 */
export function drawLeaves(
  leaves: readonly string[],
  count: number,
  seed: string,
  round: number,
): readonly string[] {
  const lot = (leaf: string) => createHash('sha256').update(`${seed}\n${round}\n${leaf}`).digest('hex');
  return leaves
    .map((leaf) => ({ leaf, lot: lot(leaf) }))
    .sort((a, b) => (a.lot < b.lot ? -1 : 1))
    .slice(0, count)
    .map(({ leaf }) => leaf)
    .sort();
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 1;
}

function refuse(code: string, message: string, details?: Readonly<Record<string, unknown>>): Refusal {
  return new Refusal('unprocessable', code, message, details);
}
