/** A RabbitMQ that asks the server who may log in and do what (its HTTP auth backend). */
import { connect } from 'amqplib';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { loginPaths } from '../../../src/wire/branchkey.ts';
import { type CredentialsBody, paths } from '../../../src/wire/cambium.ts';
import { freePorts } from '../../helpers/loopback.ts';
import { RabbitMq } from '../../helpers/rabbitmq.ts';
import { Harness } from '../harness.ts';
import { Consumer } from './consumer.ts';
import { authenticate, closeRound, hasPeers, startHarness } from './rig.ts';

const test = suite('rabbitmq asks');

let rabbit: RabbitMq;
let harness: Harness;

test.before(async () => {
  const [port = 0] = await freePorts(1);
  rabbit = await RabbitMq.start({ authUrl: `http://127.0.0.1:${port}` });
  const { url, managementUrl } = rabbit;
  harness = await startHarness({ port, broker: { url, managementUrl, auth: 'http' } });
});
test.after(async () => {
  await harness.end();
  await rabbit.end();
});

const server = () => ({ port: rabbit.port, server: harness.server.url });

function logIn(leaf: CredentialsBody, password = leaf.session_token, vhost = leaf.tree_id) {
  const { port } = rabbit;
  return connect({ hostname: '127.0.0.1', port, username: leaf.id, password, vhost });
}

test('no user is made at the broker, and leaves of all kinds read their queues', async () => {
  const branch = await harness.branch(1, 3);
  const [current, old, loggedIn] = branch.leaves as [CredentialsBody, CredentialsBody, CredentialsBody];
  const password = Buffer.from(`${loggedIn.name}:${loggedIn.session_token}`).toString('base64');
  const login = await harness.call<{ data: { access_token: string } }>('PUT', loginPaths.login(), {
    headers: { authorization: `Basic ${password}` },
    body: JSON.stringify({ tree_id: loggedIn.tree_id, branch_id: loggedIn.branch_id }),
  });
  assert.is(login.status, 201);
  await authenticate(harness, current);
  const consumers = [
    await Consumer.start(current, { generation: '2.5', ...server() }),
    await Consumer.start(old, { generation: '2.0', ...server() }),
    await Consumer.start(loggedIn, {
      generation: '2.2',
      password: login.body.data.access_token,
      ...server(),
    }),
  ];
  const id = await closeRound(harness, [current], 1);
  for (const consumer of consumers) {
    assert.is(await consumer.put(), id);
    await consumer.end();
  }
  const users = (await rabbit.manage('GET', 'users')) as { name: string }[];
  assert.equal(
    users.map((user) => user.name),
    ['cambium'],
  );
});

test('a wrong token, a foreign tree, a foreign queue and a revoked leaf are denied', async () => {
  const { leaves } = await harness.branch(2);
  const [own, other] = leaves as [CredentialsBody, CredentialsBody];
  const denied = (attempt: Promise<unknown>) =>
    attempt.then(
      () => 'allowed',
      (error: Error & { code?: number }) => error.code ?? error.message,
    );
  assert.match(String(await denied(logIn(own, other.session_token))), /ACCESS.REFUSED/);
  assert.match(String(await denied(logIn(own, own.session_token, other.branch_id))), /got <ConnectionClose/);
  const connection = await logIn(own);
  connection.on('error', () => {});
  for (const attempt of ['consume', 'declare'] as const) {
    const channel = await connection.createChannel();
    channel.on('error', () => {});
    const asked = attempt === 'consume' ? channel.consume(other.id, () => {}) : channel.assertQueue('mine');
    assert.is(await denied(asked), 403, attempt);
  }
  const closed = new Promise((resolve) => connection.on('close', resolve));
  assert.is((await harness.operate('DELETE', paths.leaf(own.id))).status, 204);
  await closed;
  assert.match(String(await denied(logIn(own))), /ACCESS.REFUSED/);
});

/** The questions without a broker in between. */
async function ask(path: string, form: Record<string, string>): Promise<string> {
  const { status, body } = await harness.call<string>('POST', `/rabbitmq/${path}`, {
    body: new URLSearchParams(form),
  });
  assert.is(status, 200);
  return body;
}

test('whatever is not known is denied', async () => {
  const { id, leaves } = await harness.branch(1);
  const leaf = leaves[0]!;
  const own = { username: leaf.id, vhost: leaf.tree_id, resource: 'queue', name: leaf.id };
  const root = { username: id, vhost: '/', resource: 'exchange', name: `${id}_exchange` };
  const table: readonly (readonly [string, Record<string, string>, string])[] = [
    ['user', { username: leaf.id, password: leaf.session_token }, 'allow'],
    ['user', { username: leaf.id, password: '' }, 'deny'],
    ['user', { username: id, password: leaf.queue_password! }, 'allow'],
    ['user', { username: id, password: leaf.session_token }, 'deny'],
    ['user', { username: 'nobody', password: 'x' }, 'deny'],
    ['user', {}, 'deny'],
    ['vhost', { username: leaf.id, vhost: leaf.tree_id }, 'allow'],
    ['vhost', { username: leaf.id, vhost: '/' }, 'deny'],
    ['vhost', { username: id, vhost: '/' }, 'allow'],
    ['vhost', { username: id, vhost: leaf.tree_id }, 'deny'],
    ['resource', { ...own, permission: 'read' }, 'allow'],
    ['resource', { ...own, permission: 'write' }, 'deny'],
    ['resource', { ...own, permission: 'configure' }, 'deny'],
    ['resource', { ...own, permission: 'read', name: `${leaf.id}x` }, 'deny'],
    ['resource', { ...own, permission: 'read', vhost: '/' }, 'deny'],
    ['resource', { ...own, permission: 'own' }, 'deny'],
    ['resource', { ...own, permission: 'read', resource: 'topic' }, 'deny'],
    ['resource', { ...root, permission: 'configure' }, 'allow'],
    ['resource', { ...root, permission: 'write', name: 'amq.default' }, 'deny'],
    ['topic', { ...own, permission: 'read', routing_key: 'a' }, 'deny'],
  ];
  for (const [path, form, expected] of table) {
    assert.is(await ask(path, form), expected, `${path} ${JSON.stringify(form)}`);
  }
  assert.is((await harness.call('GET', `/rabbitmq/user?username=${leaf.id}`)).status, 405);
});

test('a server without a broker that asks has no such paths', async () => {
  const plain = await new Harness().start();
  assert.is((await plain.call('POST', '/rabbitmq/user')).status, 404);
  await plain.end();
});

if (hasPeers()) test.run();
