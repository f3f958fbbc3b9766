/**
 * A hundred rounds while the broker is restarted ten times, killed three times and emptied once: every aggregation
 * reaches every leaf, and no round waits for the broker.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { CredentialsBody } from '../../../src/wire/cambium.ts';
import { RabbitMq } from '../../helpers/rabbitmq.ts';
import { Consumer } from './consumer.ts';
import { closeRound, fetchAggregation, hasPeers, provisioning, startHarness } from './rig.ts';

const ROUNDS = 100;
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

const test = suite('rabbitmq, long');

test('every aggregation reaches every leaf', async () => {
  const rabbit = await RabbitMq.start();
  const harness = await startHarness(provisioning(rabbit));
  const { leaves } = await harness.branch(2);
  const ids: string[] = [];
  /** Reads until it has all, fetching each; ids may repeat. */
  const read = async (leaf: CredentialsBody, consumer: Consumer) => {
    const seen = new Set<string>();
    while (seen.size < ROUNDS) {
      const id = await consumer.put();
      if (seen.has(id)) continue;
      seen.add(id);
      await fetchAggregation(harness, leaf, id);
    }
    return seen;
  };
  const consumers: Consumer[] = [];
  const reading: Promise<Set<string>>[] = [];
  for (const leaf of leaves) {
    const consumer = await Consumer.start(leaf, {
      generation: '2.7',
      port: rabbit.port,
      server: harness.server.url,
    });
    consumers.push(consumer);
    reading.push(read(leaf, consumer));
  }
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
  for (const seen of await Promise.all(reading)) {
    assert.equal(
      ids.filter((id) => !seen.has(id)),
      [],
    );
  }
  for (const consumer of consumers) await consumer.end();
  await harness.end();
  await rabbit.end();
});

if (hasPeers()) test.run();
