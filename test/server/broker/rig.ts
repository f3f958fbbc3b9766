/** What the suites with a real RabbitMQ share: the harness on a real clock, and rounds that leaves close together. */
import { PATIENCE_MS } from '../../../src/server/broker/broker.ts';
import { realTimers, type Timers } from '../../../src/server/timers.ts';
import { type AggregationBody, type CredentialsBody, paths } from '../../../src/wire/cambium.ts';
import { hasPythonModule } from '../../helpers/peers.ts';
import { hasRabbitMq, type RabbitMq } from '../../helpers/rabbitmq.ts';
import { Harness, leafToken, toyFile } from '../harness.ts';

/** Both peers; each that is missing is named. */
export function hasPeers(): boolean {
  return [hasRabbitMq(), hasPythonModule('pika')].every(Boolean);
}

export type StartOptions = Parameters<Harness['start']>[0];

/** An answer waits until the broker is ready for the leaf, however busy the machine is: clients that come too early give up. */
const patientTimers: Timers = {
  after: (ms, work) => realTimers.after(ms === PATIENCE_MS ? 240_000 : ms, work),
};

export function startHarness(options: StartOptions): Promise<Harness> {
  return new Harness().start({ timers: patientTimers, ...options });
}

/** A server that makes its users at the broker. */
export function provisioning(rabbit: RabbitMq): StartOptions {
  return { broker: { url: rabbit.url, managementUrl: rabbit.managementUrl } };
}

/** All leaves upload; the aggregation's id is returned once the round is done. */
export async function closeRound(
  harness: Harness,
  leaves: readonly CredentialsBody[],
  value: number,
): Promise<string> {
  for (const leaf of leaves) {
    const { status, body } = await harness.upload(leaf, toyFile(1, [{ values: [value] }]));
    if (status !== 201) throw new Error(JSON.stringify(body));
  }
  for (;;) {
    const rounds = await harness.operate<{ items: { status: string; aggregation_id: string }[] }>(
      'GET',
      paths.rounds(leaves[0]!.branch_id),
    );
    const newest = rounds.body.items.find((round) => round.status !== 'open');
    if (newest?.status === 'done') return newest.aggregation_id;
    await new Promise(setImmediate);
  }
}

/** What makes an aggregation delivered. */
export async function fetchAggregation(harness: Harness, leaf: CredentialsBody, id: string): Promise<void> {
  const { body } = await harness.call<AggregationBody>('GET', paths.aggregation(id), {
    headers: { authorization: leafToken(leaf) },
  });
  const file = await fetch(body.download_url);
  if (!file.ok) throw new Error(`${file.status}`);
  await file.arrayBuffer();
}

function basic(leaf: CredentialsBody): { authorization: string } {
  return {
    authorization: `Basic ${Buffer.from(`${leaf.id}:${leaf.session_token}`).toString('base64')}`,
  };
}

/** What a client from 2.3 on does before it connects to the broker. */
export async function authenticate(harness: Harness, leaf: CredentialsBody): Promise<void> {
  const { status } = await harness.call('GET', '/v1/leaf/authenticate', { headers: basic(leaf) });
  if (status !== 200) throw new Error(`authenticate: ${status}`);
}

/** What a client from 2.5.1 on does when it has connected. */
export async function askRun(harness: Harness, leaf: CredentialsBody): Promise<void> {
  const { status } = await harness.call('GET', `/v1/branch/${leaf.branch_id}/run`, { headers: basic(leaf) });
  if (status !== 200) throw new Error(`run: ${status}`);
}
