/**
 * A hundred rounds while the broker is restarted ten times, killed three times and emptied once: every aggregation
 * reaches every leaf, and no round waits for the broker.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { CredentialsBody } from '../../../src/wire/cambium.ts';
import { RabbitMq } from '../../helpers/rabbitmq.ts';
import { Consumer } from './consumer.ts';
import { closeRoundsUnderMishaps, ROUNDS } from './mishaps.ts';
import { fetchAggregation, hasPeers, provisioning, startHarness } from './rig.ts';

const test = suite('rabbitmq, long');

test('every aggregation reaches every leaf', async () => {
  const rabbit = await RabbitMq.start();
  const harness = await startHarness(provisioning(rabbit));
  const { leaves } = await harness.branch(2);
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
  const ids = await closeRoundsUnderMishaps(harness, rabbit, leaves);
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
