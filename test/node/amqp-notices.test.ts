/** Our client at a real RabbitMQ beside our server: bursts, restarts, what does not belong there, both arrangements. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'amqplib';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Client, type NodeClientOptions } from '../../src/node/client.ts';
import { type CredentialsBody, paths } from '../../src/wire/cambium.ts';
import { failsWith } from '../helpers/errors.ts';
import { hasRabbitMq, RabbitMq } from '../helpers/rabbitmq.ts';
import { closeRound, provisioning, startHarness } from '../server/broker/rig.ts';
import type { Harness } from '../server/harness.ts';

const test = suite('amqp notices');

let rabbit: RabbitMq;
let harness: Harness;
const clients: Client[] = [];
const warnings: string[] = [];
const folder = mkdtempSync(join(tmpdir(), 'cambium-tls-'));
const tls = { cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem') };

test.before(async () => {
  const subject = ['-subj', '/CN=cambium test', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const files = ['-keyout', tls.key, '-out', tls.cert];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', ...subject, ...files], {
    stdio: 'ignore',
  });
  rabbit = await RabbitMq.start({ tls });
  harness = await startHarness(provisioning(rabbit));
});
test.after.each(async () => {
  for (const client of clients.splice(0)) await client.close();
  warnings.length = 0;
});
test.after(async () => {
  await harness.end();
  await rabbit.end();
  rmSync(folder, { recursive: true, force: true });
});

function clientOf(leaf: CredentialsBody, options: NodeClientOptions): Client {
  const client = new Client(leaf, options);
  client.on('warning', ({ message }) => warnings.push(message));
  clients.push(client);
  return client;
}

/** Takes so many ids. */
async function take(client: Client, count: number): Promise<string[]> {
  const ids: string[] = [];
  while (ids.length < count) ids.push(await client.queue.get());
  return ids;
}

/** Puts bytes into the queue of a leaf, as the broker's own user. */
async function put(leaf: CredentialsBody, ...contents: readonly (string | Buffer)[]): Promise<void> {
  const connection = await connect(`${rabbit.url}/${leaf.tree_id}`);
  const channel = await connection.createConfirmChannel();
  for (const content of contents) channel.sendToQueue(leaf.id, Buffer.from(content));
  await channel.waitForConfirms();
  await connection.close();
}

for (const generation of ['login', 'basic', 'bearer', 'cambium'] as const) {
  test(`a burst reaches a client of the generation ${generation}, in order`, async () => {
    const branch = await harness.branch(1, 2);
    const [worker, reader] = branch.leaves as [CredentialsBody, CredentialsBody];
    const client = clientOf(reader, {
      connection: { generation },
      ...(generation === 'cambium' && { notices: { carrier: 'amqp' } }),
    });
    await client.authenticate();
    const ids: string[] = [];
    for (let i = 0; i < 12; i++) ids.push(await closeRound(harness, [worker], i));
    assert.equal(await take(client, 12), ids);
  });
}

test('the arrangement of 2.0.x: the leaf declares its queue, messages are plain ids', async () => {
  const branch = await harness.branch(1, 2);
  const [worker, reader] = branch.leaves as [CredentialsBody, CredentialsBody];
  const client = clientOf(reader, { connection: { generation: 'login' }, broker: { arrangement: 'root' } });
  await client.authenticate();
  for (;;) {
    const queues = (await rabbit.manage('GET', 'queues/%2F')) as { name: string; consumers?: number }[];
    const mine = queues.find(({ name }) => name === `${reader.branch_id}_${reader.name}`);
    if (mine?.consumers === 1) break;
  }
  const ids = [await closeRound(harness, [worker], 1), await closeRound(harness, [worker], 2)];
  assert.equal(await take(client, 2), ids);
});

test('the status of the run comes too, also without its number', async () => {
  const branch = await harness.branch(1);
  const leaf = branch.leaves[0]!;
  const client = clientOf(leaf, { connection: { generation: 'basic' } });
  await client.authenticate();
  assert.is(client.runStatus, 'start');
  await put(leaf, '{"message_type":"run_status","body":{"run_status":"pause"}}', marker('a'));
  await client.queue.get();
  assert.is(client.runStatus, 'pause');
  assert.is(client.runNumber, 1);
});

const marker = (id: string) => `{"message_type":"aggregation_status","body":{"aggregation_id":"${id}"}}`;

test('what is no notice is dropped with a warning that does not quote it; the rest goes on', async () => {
  const branch = await harness.branch(1);
  const leaf = branch.leaves[0]!;
  const client = clientOf(leaf, { connection: { generation: 'basic' } });
  await client.authenticate();
  const bad: (string | Buffer)[] = [
    'no json: s3cret',
    Buffer.from([0xff, 0xfe]),
    '17',
    'null',
    '{}',
    '{"message_type":5}',
    '{"message_type":"aggregation_status"}',
    '{"message_type":"aggregation_status","body":{"aggregation_id":""}}',
    '{"message_type":"run_status","body":{}}',
    Buffer.alloc(70_000, 32),
  ];
  await put(leaf, ...bad, '{"message_type":"of tomorrow","body":{}}', marker('after'));
  assert.is(await client.queue.get(), 'after');
  assert.is(warnings.length, bad.length);
  assert.not.match(warnings.join(), /s3cret/);
  // Nothing is left behind that would come again.
  await client.close();
  const again = clientOf(leaf, { connection: { generation: 'basic' } });
  await again.authenticate();
  await put(leaf, marker('second'));
  assert.is(await again.queue.get(), 'second');
});

test('a repetition is not told again; a message without a type is', async () => {
  const branch = await harness.branch(1);
  const leaf = branch.leaves[0]!;
  const client = clientOf(leaf, { connection: { generation: 'basic' } });
  await client.authenticate();
  await put(leaf, marker('a'), marker('b'), marker('a'), '{"aggregation_id":"c"}', marker('b'), marker('d'));
  assert.equal(await take(client, 4), ['a', 'b', 'c', 'd']);
  assert.ok(client.queue.empty());
});

test('a queue that is deleted is asked for again', async () => {
  const branch = await harness.branch(1, 2);
  const [worker, reader] = branch.leaves as [CredentialsBody, CredentialsBody];
  const client = clientOf(reader, { connection: { generation: 'basic' } });
  await client.authenticate();
  const first = await closeRound(harness, [worker], 1);
  assert.is(await client.queue.get(), first);
  await rabbit.manage('DELETE', `queues/${reader.tree_id}/${reader.id}`);
  const second = await closeRound(harness, [worker], 2);
  assert.is(await client.queue.get(), second);
  assert.match(warnings.join('\n'), /queue/);
});

test('a password that is refused is renewed with the session', async () => {
  const branch = await harness.branch(1, 2);
  const [worker, reader] = branch.leaves as [CredentialsBody, CredentialsBody];
  const client = clientOf(reader, { connection: { generation: 'basic' } });
  await client.authenticate();
  const first = await closeRound(harness, [worker], 1);
  assert.is(await client.queue.get(), first);
  await rabbit.manage('DELETE', `users/${reader.id}`); // closes the connection too
  const second = await closeRound(harness, [worker], 2);
  assert.is(await client.queue.get(), second);
});

test('over TLS: a certificate that is not believed ends the notices, its authority is told', async () => {
  const branch = await harness.branch(1);
  const leaf = branch.leaves[0]!;
  const url = `amqps://127.0.0.1:${rabbit.tlsPort}`;
  const distrustful = clientOf(leaf, { connection: { generation: 'bearer' }, broker: { url } });
  await failsWith('unavailable-tls', () => distrustful.queue.get());
  const ca = readFileSync(tls.cert, 'utf8');
  const client = clientOf(leaf, { connection: { generation: 'bearer' }, broker: { url, ca } });
  await client.authenticate();
  const id = await closeRound(harness, [leaf], 1);
  assert.is(await client.queue.get(), id);
});

test('a token that is revoked ends the notices with the refusal of the server', async () => {
  const branch = await harness.branch(1, 2);
  const leaf = branch.leaves[1]!;
  const client = clientOf(leaf, { connection: { generation: 'basic' } });
  await client.authenticate();
  const ended = failsWith('token-revoked', () => client.queue.get());
  await harness.operate('DELETE', paths.leaf(leaf.id));
  await ended;
});

test('a restart of the broker is survived', async () => {
  const branch = await harness.branch(1, 2);
  const [worker, reader] = branch.leaves as [CredentialsBody, CredentialsBody];
  const client = clientOf(reader, { connection: { generation: 'bearer' } });
  await client.authenticate();
  const ids = [await closeRound(harness, [worker], 1)];
  await rabbit.stop();
  ids.push(await closeRound(harness, [worker], 2));
  await rabbit.start();
  ids.push(await closeRound(harness, [worker], 3));
  assert.equal(await take(client, 3), ids);
});

test('waits can be limited, and end with the client', async () => {
  const branch = await harness.branch(1);
  const leaf = branch.leaves[0]!;
  const client = clientOf(leaf, { connection: { generation: 'basic' } });
  await client.authenticate();
  await failsWith('timeout', () => client.queue.get({ timeoutMs: 1 }));
  const ended = failsWith('client-closed', () => client.queue.get());
  await client.close();
  await ended;
});

if (hasRabbitMq()) test.run();
