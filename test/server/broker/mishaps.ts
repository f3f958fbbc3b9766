/** A hundred rounds during which the broker is restarted ten times, killed three times and emptied once. */
import type { CredentialsBody } from '../../../src/wire/cambium.ts';
import type { RabbitMq } from '../../helpers/rabbitmq.ts';
import type { Harness } from '../harness.ts';
import { closeRound } from './rig.ts';

export const ROUNDS = 100;
/** After every so many rounds something happens to the broker. */
const EVERY = 7;
/** So many rounds are closed while it happens. */
const MEANWHILE = 3;

type Mishap = (rabbit: RabbitMq) => Promise<void>;
const restart: Mishap = async (rabbit) => {
  await rabbit.stop();
  await rabbit.start();
};
const kill: Mishap = async (rabbit) => {
  await rabbit.kill();
  await rabbit.start();
};
const empty: Mishap = async (rabbit) => {
  await rabbit.kill();
  rabbit.empty();
  await rabbit.start();
};
const MISHAPS: readonly Mishap[] = [
  ...[restart, restart, kill, restart, restart, kill, restart],
  ...[empty, restart, restart, kill, restart, restart, restart],
];

/** Closes the rounds, waiting for nobody who reads; the ids of all aggregations in order. */
export async function closeRoundsUnderMishaps(
  harness: Harness,
  rabbit: RabbitMq,
  leaves: readonly CredentialsBody[],
): Promise<string[]> {
  const ids: string[] = [];
  const mishaps = [...MISHAPS];
  while (ids.length < ROUNDS) {
    ids.push(await closeRound(harness, leaves, ids.length));
    if (ids.length % EVERY !== 0) continue;
    const mishap = mishaps.shift()?.(rabbit);
    for (let i = 0; i < MEANWHILE && ids.length < ROUNDS; i++) {
      ids.push(await closeRound(harness, leaves, ids.length));
    }
    await mishap;
  }
  // The rest, where the rounds above have run over some multiples.
  for (const mishap of mishaps) await mishap(rabbit);
  return ids;
}
