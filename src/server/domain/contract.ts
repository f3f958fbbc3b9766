/**
 * What an update must be so that its round can be averaged. Everything that one update could make fail is found here,
 * before the round knows of it.
 *
 * The first accepted update of a run fixes the contract: names, shapes and element types of the tensors, and their order. It is
 * kept with the run, because the update itself is removed while the run goes on, and what the rounds make has this order
 * whoever takes part: updates are paired with the contract, not with each other.
 */
import { hasDistinctNames } from '../../aggregate/match.ts';
import { MAX_TOTAL_WEIGHTING, MAX_WEIGHTING, MIN_WEIGHTING } from '../../aggregate/weightings.ts';
import type { Examination } from '../../node/jobs.ts';
import { DTYPES } from '../../tensor/dtypes.ts';
import { type Layout, type TensorLayout, tensorLabel } from '../../tensor/layout.ts';
import type { PolicyBody } from '../../wire/cambium.ts';
import { strategyOf } from './policy.ts';
import { Refusal } from './refusal.ts';

/** Leaves of a partial sum: each is a row that is written while the server does nothing else. */
const MAX_SUM_LEAVES = 100_000;

/** What is known of an update's elements. */
type Elements = Pick<Examination, 'layout' | 'nonFinite' | 'sum'>;

/** The tensors of every update of a run. */
export type Contract = readonly Pick<TensorLayout, 'name' | 'dtype' | 'shape'>[];

/** The contract that a layout fixes. */
export function contractOf(layout: Layout): Contract {
  return layout.tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape }));
}

/**
 * The contract when an update has come that it fits: names that it has not are those of the first update that has some. From
 * then on updates that have names are told by these, whatever their order.
 */
export function withNamesOf(layout: Layout, contract: Contract): Contract {
  const isNameless = contract.every(({ name }) => name === null);
  if (!isNameless || !hasDistinctNames(layout.tensors)) return contract;
  return contract.map((tensor, i) => ({ ...tensor, name: layout.tensors[i]!.name }));
}

/**
 * Checks one update by itself under the policy of its round.
 *
 * @returns its weighting
 * @throws Refusal `weighting-…`, `layout-empty`, `aggregate-dtype-unsupported`, `non-finite`; of partial sums
 *   `weights-partial-sum` where they are not taken, `partial-leaf-count`
 */
export function checkUpdate(examination: Elements, policy: PolicyBody): number {
  const { layout, sum } = examination;
  if (sum !== undefined && !policy.partial_sums) {
    throw refuse(
      'weights-partial-sum',
      'an exact partial sum, which this branch does not take from its leaves',
    );
  }
  if (sum !== undefined && sum.length > MAX_SUM_LEAVES) {
    throw refuse(
      'partial-leaf-count',
      `the sum is of ${sum.length} leaves, at most ${MAX_SUM_LEAVES} are taken`,
    );
  }
  if (sum !== undefined && layout.weighting === null) {
    throw refuse('weighting-missing', 'the leaves of the sum have no weightings');
  }
  const weighting = checkWeighting(layout.weighting);
  checkTensors(examination, policy);
  return weighting;
}

/**
 * Checks the tensors of an update, or of an initial model.
 *
 * @throws Refusal `layout-empty`, `aggregate-dtype-unsupported`, `non-finite`
 */
export function checkTensors(
  { layout, nonFinite }: Elements,
  policy: Pick<PolicyBody, 'strategy' | 'non_finite'>,
): void {
  const strategy = strategyOf(policy.strategy);
  if (layout.tensors.length === 0) throw refuse('layout-empty', 'the update has no tensors');
  for (const [i, tensor] of layout.tensors.entries()) {
    if (strategy.supports(DTYPES[tensor.dtype].code)) continue;
    throw refuse(
      'aggregate-dtype-unsupported',
      `${tensorLabel(tensor, i)} is ${tensor.dtype}, which "${strategy.name}" cannot do`,
      { tensor: tensor.name ?? i, dtype: tensor.dtype },
    );
  }
  const first = nonFinite[0];
  if (first !== undefined && policy.non_finite === 'reject') {
    const label = tensorLabel(layout.tensors[first.tensor] ?? { name: null }, first.tensor);
    throw refuse('non-finite', `${label} holds NaN or infinity, first at element ${first.index}`, {
      non_finite: nonFinite.map(({ tensor, index }) => ({ tensor, index })),
    });
  }
}

/**
 * Compares an update with its run's contract: by name when both have names, else by position. A difference has its tensors
 * in their order in any case: the model that it is added to may have no names.
 *
 * @throws Refusal `layout-count`, `layout-name`, `layout-order`, `layout-dtype`, `layout-shape`
 */
export function checkContract(contract: Contract, layout: Layout): void {
  const { tensors } = layout;
  if (tensors.length !== contract.length) {
    throw refuse(
      'layout-count',
      `the update has ${tensors.length} tensors, the run's have ${contract.length}`,
      {
        expected: contract.length,
        actual: tensors.length,
      },
    );
  }
  const isNamed = hasDistinctNames(contract) && hasDistinctNames(tensors);
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  for (const [i, expected] of contract.entries()) {
    const actual = isNamed ? byName.get(expected.name) : tensors[i];
    const label = tensorLabel(expected, i);
    const tensor = expected.name ?? i;
    if (actual === undefined) throw refuse('layout-name', `the update has no ${label}`, { tensor });
    if (layout.isDifference === true && actual !== tensors[i]) {
      throw refuse('layout-order', `${label} is not in its place: a difference has the order of the model`, {
        tensor,
      });
    }
    if (actual.dtype !== expected.dtype) {
      throw refuse('layout-dtype', `${label} is ${actual.dtype}, the run's is ${expected.dtype}`, {
        tensor,
        expected: expected.dtype,
        actual: actual.dtype,
      });
    }
    if (JSON.stringify(actual.shape) !== JSON.stringify(expected.shape)) {
      throw refuse(
        'layout-shape',
        `${label} has the shape [${actual.shape.join(', ')}], the run's has [${expected.shape.join(', ')}]`,
        { tensor, expected: expected.shape, actual: actual.shape },
      );
    }
  }
}

/**
 * Checks that the weightings of a round, the new one included, can be summed within the integers of binary64.
 *
 * @param weightings exact totals of partial sums as integers, in units of 2^-116
 * @throws Refusal `weighting-total`
 */
export function checkTotal(weightings: readonly (number | bigint)[]): void {
  const total = weightings.reduce<bigint>(
    (sum, weighting) => sum + (typeof weighting === 'bigint' ? weighting : scaled(weighting)),
    0n,
  );
  if (total <= scaled(MAX_TOTAL_WEIGHTING)) return;
  throw refuse(
    'weighting-total',
    "with this update the round's weightings would add up to more than 2^53 - 1",
    {
      max_total: MAX_TOTAL_WEIGHTING,
    },
  );
}

/** Every weighting in [2^-64, 2^53] is a multiple of 2^-116, so the scaled ones are integers and their sum is exact. */
function scaled(weighting: number): bigint {
  return BigInt(weighting * 2 ** 116);
}

function checkWeighting(weighting: number | null): number {
  if (weighting === null) {
    throw refuse('weighting-missing', 'the file has no weighting: upload [weighting, [arrays]]');
  }
  const details = { weighting: Number.isFinite(weighting) ? weighting : String(weighting) };
  if (Number.isNaN(weighting)) throw refuse('weighting-nan', 'the weighting is NaN', details);
  if (!Number.isFinite(weighting)) {
    throw refuse('weighting-infinite', `the weighting is ${weighting}, it must be finite`, details);
  }
  if (weighting === 0)
    throw refuse('weighting-zero', 'the weighting is 0: the update would not count', details);
  if (weighting < 0) {
    throw refuse('weighting-negative', `the weighting is ${weighting}, it must be positive`, details);
  }
  if (weighting < MIN_WEIGHTING || weighting > MAX_WEIGHTING) {
    throw refuse(
      'weighting-range',
      `the weighting is ${weighting}, it must lie within 2^-64 and 2^53`,
      details,
    );
  }
  return weighting;
}

function refuse(code: string, message: string, details?: Readonly<Record<string, unknown>>): Refusal {
  return new Refusal('unprocessable', code, message, details);
}
