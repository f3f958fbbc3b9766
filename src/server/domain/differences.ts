/**
 * Updates that are differences to the global model (formats/encoded.ts). What the rule makes of a round of them is added to
 * the newest global model of the run (domain/rules.ts), so a round holds differences or whole models, never both.
 */
import type { Layout } from '../../tensor/layout.ts';
import type { Database } from '../store/database.ts';
import type { Leaf } from './leaves.ts';
import type { Place } from './receiving.ts';
import { Refusal } from './refusal.ts';
import { holdsDifferences, modelBefore } from './rules.ts';

/** An update that asks for a place in a round. */
export interface Candidate {
  readonly layout: Pick<Layout, 'isDifference'>;
  /** Of the file, in lower-case hexadecimal. */
  readonly sha256: string;
  /** Rounds that have ended since the model that the leaf fetched last. */
  readonly staleness: number;
  /** Id of the leaf's update in the round that it would replace. */
  readonly present: string | undefined;
}

/**
 * Checks that an update and its round agree on what they are.
 *
 * @throws Refusal `difference-sum` where rounds are of exact partial sums, `difference-model-missing` while the run has no
 *   global model, `difference-stale` for one to an older model unless the rule is FedBuff's, `difference-mixed`
 */
export async function checkDifference(
  tx: Database,
  { round, policy }: Place,
  leaf: Pick<Leaf, 'id' | 'name'>,
  { layout, sha256, staleness, present }: Candidate,
): Promise<void> {
  const isDifference = layout.isDifference === true;
  const refuse = (reason: 'conflict' | 'unprocessable', code: string, what: string, more = {}) => {
    const details = { leaf_id: leaf.id, sha256, round: round.number, ...more };
    return new Refusal(reason, code, `update of ${leaf.name}: ${what}`, details);
  };
  if (isDifference) {
    // Where sums are taken too: a difference that comes first would shut them all out of the round.
    if (policy.upstream || policy.partial_sums) {
      const what = 'a difference to a global model, and rounds of this branch are of sums of models';
      throw refuse('unprocessable', 'difference-sum', what);
    }
    if ((await modelBefore(tx, round)) === undefined) {
      const what = 'a difference to a global model, and the run has none yet: upload whole weights';
      throw refuse('conflict', 'difference-model-missing', what);
    }
    // FedBuff means it so: it has late differences count less, and adds them to the newest model.
    if (staleness > 0 && policy.strategy.name !== 'buffered') {
      const what = `a difference to a model that is ${staleness} rounds old: fetch the newest and train on that`;
      throw refuse('conflict', 'difference-stale', what, { staleness });
    }
  }
  const others = await holdsDifferences(tx, round.id, present);
  if (others === undefined || others === isDifference) return;
  const what = isDifference
    ? `a difference to the global model, and round ${round.number} holds whole models`
    : `no difference to the global model, and round ${round.number} holds differences`;
  throw refuse('conflict', 'difference-mixed', what);
}

/** Checks that a file is a model by itself. Throws Refusal `difference-model`. */
export function checkModel({ isDifference }: Pick<Layout, 'isDifference'>, name: string): void {
  if (isDifference !== true) return;
  const what = `${name} is a difference to a global model: send the model itself`;
  throw new Refusal('unprocessable', 'difference-model', what);
}
