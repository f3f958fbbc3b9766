/** The server beside a real RabbitMQ whose users it makes itself; leaves are processes with Debian's pika. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { connect } from 'amqplib';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type CredentialsBody, paths } from '../../../src/wire/cambium.ts';
import { RabbitMq } from '../../helpers/rabbitmq.ts';
import { EventStream, type Harness, leafToken } from '../harness.ts';
import { Consumer, type Generation } from './consumer.ts';
import {
  askRun,
  authenticate,
  closeRound,
  fetchAggregation,
  hasPeers,
  provisioning,
  startHarness,
} from './rig.ts';

const test = suite('rabbitmq');

let rabbit: RabbitMq;
let harness: Harness;
const folder = mkdtempSync(join(tmpdir(), 'cambium-tls-'));
const tls = { cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem') };
const consumers: Consumer[] = [];

function makeCertificate(): void {
  const subject = ['-subj', '/CN=cambium test', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const files = ['-keyout', tls.key, '-out', tls.cert];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', ...subject, ...files], {
    stdio: 'ignore',
  });
}

async function listen(leaf: CredentialsBody, generation: Generation): Promise<Consumer> {
  const secure = generation === '2.7' ? { port: rabbit.tlsPort, ca: tls.cert } : { port: rabbit.port };
  const consumer = await Consumer.start(leaf, { generation, server: harness.server.url, ...secure });
  consumers.push(consumer);
  return consumer;
}

/** Waits until the broker knows a user. */
async function untilUser(name: string): Promise<void> {
  for (;;) {
    const user = (await rabbit.manage('GET', `users/${name}`)) as { name?: string };
    if (user.name === name) return;
    await pause(20);
  }
}

/** The code with which RabbitMQ refuses something to a leaf; undefined when it does not. */
async function refusal(leaf: CredentialsBody, vhost: string, work: Attempt): Promise<number | undefined> {
  const connection = await connect({
    hostname: '127.0.0.1',
    port: rabbit.port,
    username: leaf.id,
    password: leaf.session_token,
    vhost: encodeURIComponent(vhost),
  });
  connection.on('error', () => {});
  try {
    const channel = await connection.createConfirmChannel();
    channel.on('error', () => {});
    await work(channel);
    return undefined;
  } catch (error) {
    return (error as { code?: number }).code;
  } finally {
    await connection.close();
  }
}

type Channel = Awaited<ReturnType<Awaited<ReturnType<typeof connect>>['createConfirmChannel']>>;
type Attempt = (channel: Channel) => Promise<unknown>;

test.before(async () => {
  makeCertificate();
  rabbit = await RabbitMq.start({ tls });
  harness = await startHarness(provisioning(rabbit));
});
test.after.each(async () => {
  for (const consumer of consumers.splice(0)) await consumer.end();
});
test.after(async () => {
  await harness.end();
  await rabbit.end();
  rmSync(folder, { recursive: true, force: true });
});

test('credentials say where the broker is, without those of the server', async () => {
  const { leaves } = await harness.branch(1);
  assert.is(leaves[0]!.broker_url, `amqp://127.0.0.1:${rabbit.port}`);
  assert.is(leaves[0]!.response_host, '127.0.0.1');
  assert.is(leaves[0]!.port, rabbit.port);
  assert.not.match(JSON.stringify(leaves[0]), /secret@/);
});

test('each generation gets its aggregations in order, and what of the run it can bear', async () => {
  const branch = await harness.branch(1, 4);
  const [old, plain, gated, secure] = branch.leaves as [
    CredentialsBody,
    CredentialsBody,
    CredentialsBody,
    CredentialsBody,
  ];
  for (const leaf of [plain, gated]) await authenticate(harness, leaf);
  const raw = await listen(old, '2.1');
  const silent = await listen(plain, '2.2');
  const hearing = await listen(gated, '2.5');
  const modern = await listen(secure, '2.7');
  for (const leaf of [gated, secure]) await askRun(harness, leaf);
  await harness.run(branch.id, 'pause');
  await harness.run(branch.id, 'start');
  for (const consumer of [hearing, modern]) {
    assert.is((await consumer.event('run')).status, 'pause');
    assert.equal(await consumer.event('run'), { event: 'run', status: 'start', number: 1 });
  }
  const ids: string[] = [];
  for (let i = 0; i < 3; i++) ids.push(await closeRound(harness, [old], i));
  for (const id of ids) {
    assert.is((JSON.parse(await raw.put()) as { aggregation_id: string }).aggregation_id, id);
    for (const consumer of [silent, hearing, modern]) assert.is(await consumer.put(), id);
  }
  // Who has not asked for the run was not told: its client would never acknowledge it.
  assert.equal(silent.rest, []);
  assert.equal(raw.rest, []);
});

test('leaves of 2.0.x declare what they need in "/" and get plain ids', async () => {
  const branch = await harness.branch(1, 2);
  const consumer = await listen(branch.leaves[0]!, '2.0');
  const other = await listen(branch.leaves[1]!, '2.0');
  const id = await closeRound(harness, [branch.leaves[0]!], 1);
  assert.is(await consumer.put(), id);
  assert.is(await other.put(), id);
});

test('what came before the first connection waits in the queue', async () => {
  const branch = await harness.branch(1);
  const leaf = branch.leaves[0]!;
  const ids = [await closeRound(harness, [leaf], 1), await closeRound(harness, [leaf], 2)];
  const consumer = await listen(leaf, '2.5');
  for (const id of ids) assert.is(await consumer.put(), id);
});

test('a client that died with its aggregation is told again, until it has fetched it', async () => {
  const branch = await harness.branch(1);
  const leaf = branch.leaves[0]!;
  const id = await closeRound(harness, [leaf], 1);
  for (let i = 0; i < 2; i++) {
    await authenticate(harness, leaf);
    const consumer = await listen(leaf, '2.2');
    assert.is(await consumer.put(), id);
    await consumer.end();
  }
  await fetchAggregation(harness, leaf, id);
  await authenticate(harness, leaf);
  const consumer = await listen(leaf, '2.2');
  const next = await closeRound(harness, [leaf], 2);
  assert.is(await consumer.put(), next);
});

test('a leaf reads its own queue and does nothing else', async () => {
  const { leaves } = await harness.branch(2);
  const [own, other] = leaves as [CredentialsBody, CredentialsBody];
  const vhost = own.tree_id;
  const attempts: readonly (readonly [string, Attempt, number | undefined])[] = [
    ['read its own', (channel) => channel.consume(own.id, () => {}), undefined],
    ['read another', (channel) => channel.consume(other.id, () => {}), 403],
    ['get from another', (channel) => channel.get(other.id), 403],
    ['purge another', (channel) => channel.purgeQueue(other.id), 403],
    ['declare a queue', (channel) => channel.assertQueue('mine'), 403],
    ['declare a queue without a name', (channel) => channel.assertQueue(''), 403],
    ['declare an exchange', (channel) => channel.assertExchange('mine', 'fanout'), 403],
    ['delete its queue', (channel) => channel.deleteQueue(own.id), 403],
    ['bind its queue', (channel) => channel.bindQueue(own.id, own.branch_id, 'run_status'), 403],
    ['publish to its branch', (channel) => publish(channel, own.branch_id, 'aggregation_status'), 403],
    ['publish to a queue', (channel) => publish(channel, '', other.id), 403],
  ];
  for (const [name, work, code] of attempts) {
    assert.is(await refusal(own, vhost, work), code, name);
  }
  const stranger = (await harness.branch(1)).leaves[0]!;
  for (const elsewhere of [stranger.tree_id, '/']) {
    const error = await refusal(own, elsewhere, async () => {}).catch((failure: Error) => failure.message);
    assert.match(String(error), /got <ConnectionClose/, `${elsewhere}: ${error}`);
  }
  await authenticate(harness, own);
  assert.is(await refusal(own, vhost, (channel) => channel.checkQueue(own.id)), undefined);
});

function publish(channel: Channel, exchange: string, key: string): Promise<void> {
  return new Promise((resolve, reject) => {
    channel.on('error', reject);
    channel.publish(exchange, key, Buffer.from('x'), {}, (error) => (error ? reject(error) : resolve()));
  });
}

test('a revoked leaf loses connection, user and queue', async () => {
  const { leaves } = await harness.branch(1);
  const leaf = leaves[0]!;
  const consumer = await listen(leaf, '2.2');
  assert.is((await harness.operate('DELETE', paths.leaf(leaf.id))).status, 204);
  await consumer.event('cancelled', 'broken', 'closed');
  const error = await refusal(leaf, leaf.tree_id, async () => {}).catch((failure: Error) => failure.message);
  assert.match(String(error), /ACCESS.REFUSED/);
  const queue = (await rabbit.manage('GET', `queues/${leaf.tree_id}/${leaf.id}`)) as { error?: string };
  assert.is(queue.error, 'Object Not Found');
});

test('while the broker is away rounds go on, and afterwards every leaf gets them', async () => {
  const branch = await harness.branch(1, 2);
  const [leaf, other] = branch.leaves as [CredentialsBody, CredentialsBody];
  const consumer = await listen(leaf, '2.7');
  const events = await EventStream.open(harness.server.url + paths.notices(other.id), {
    authorization: leafToken(other),
  });
  await events.event(); // the run's status
  await rabbit.kill();
  const ids = [await closeRound(harness, [leaf], 1), await closeRound(harness, [leaf], 2)];
  for (const id of ids) {
    assert.is(JSON.parse((await events.event())!.data!).aggregation_id, id);
  }
  await events.close();
  await authenticate(harness, leaf); // it answers all the same
  const late = (
    await harness.operate<CredentialsBody>('POST', paths.leaves(), { name: 'late', branch_id: branch.id })
  ).body;
  await rabbit.start();
  for (const id of ids) assert.is(await consumer.put(), id);
  await authenticate(harness, late);
  const newcomer = await listen(late, '2.5');
  while ((await newcomer.put()) !== ids.at(-1)); // the backlog may have found its queue there already
});

test('an emptied broker is filled again with what leaves have not fetched', async () => {
  const branch = await harness.branch(1);
  const leaf = branch.leaves[0]!;
  const ids: string[] = [];
  for (let i = 0; i < 3; i++) ids.push(await closeRound(harness, [leaf], i));
  await fetchAggregation(harness, leaf, ids[0]!);
  await rabbit.kill();
  rabbit.empty();
  await rabbit.start();
  for (const user of [leaf.id, branch.id]) await untilUser(user);
  await authenticate(harness, leaf);
  const consumer = await listen(leaf, '2.5');
  assert.is(await consumer.put(), ids[1]);
  assert.is(await consumer.put(), ids[2]);
  // The root of 2.0.x as well.
  const old = await listen(leaf, '2.0');
  const next = await closeRound(harness, [leaf], 9);
  assert.is(await consumer.put(), next);
  assert.is(await old.put(), next);
});

test('a server over TLS, which believes its own authority only', async () => {
  const url = rabbit.url.replace('amqp:', 'amqps:').replace(`:${rabbit.port}`, `:${rabbit.tlsPort}`);
  const { managementUrl } = rabbit;
  const ca = readFileSync(tls.cert, 'utf8');
  const secure = await startHarness({ broker: { url, managementUrl, ca } });
  const { leaves } = await secure.branch(1);
  assert.is(leaves[0]!.broker_url, `amqps://127.0.0.1:${rabbit.tlsPort}`);
  const id = await closeRound(secure, leaves, 1);
  const consumer = await listen(leaves[0]!, '2.7');
  assert.is(await consumer.put(), id);
  await secure.end();
  const mistrusting = await startHarness({ broker: { url, managementUrl } });
  while (!JSON.stringify(mistrusting.log.lines).includes('self-signed certificate')) {
    await pause(20);
  }
  await mistrusting.end();
});

if (hasPeers()) test.run();
