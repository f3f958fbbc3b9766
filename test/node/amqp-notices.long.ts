/**
 * Our client at a broker that is restarted ten times, killed three times and emptied once during a hundred rounds: every
 * aggregation reaches every leaf, each once.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Client } from '../../src/node/client.ts';
import type { CredentialsBody } from '../../src/wire/cambium.ts';
import { hasRabbitMq, RabbitMq } from '../helpers/rabbitmq.ts';
import { closeRoundsUnderMishaps, ROUNDS } from '../server/broker/mishaps.ts';
import { fetchAggregation, provisioning, startHarness } from '../server/broker/rig.ts';

const test = suite('amqp notices, long');

test('every aggregation reaches every leaf', async () => {
  const rabbit = await RabbitMq.start();
  const harness = await startHarness(provisioning(rabbit));
  const { leaves } = await harness.branch(2);
  const read = async (leaf: CredentialsBody, client: Client) => {
    await client.authenticate();
    const ids: string[] = [];
    while (ids.length < ROUNDS) {
      const id = await client.queue.get();
      ids.push(id);
      await fetchAggregation(harness, leaf, id);
    }
    return ids;
  };
  const clients = leaves.map(
    (leaf, i) => new Client(leaf, { connection: { generation: i === 0 ? 'basic' : 'bearer' } }),
  );
  const reading = leaves.map((leaf, i) => read(leaf, clients[i]!));
  const ids = await closeRoundsUnderMishaps(harness, rabbit, leaves);
  for (const seen of await Promise.all(reading)) assert.equal([...seen].sort(), [...ids].sort());
  for (const client of clients) await client.close();
  await harness.end();
  await rabbit.end();
});

if (hasRabbitMq()) test.run();
