/** The operators' part of the API, and what holds for all of it. */
import { rmSync } from 'node:fs';
import { request } from 'node:http';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { startServer } from '../../../src/server/index.ts';
import { operations } from '../../../src/server/routes/description.ts';
import {
  API_PREFIX,
  type BranchBody,
  type CredentialsBody,
  type ErrorBody,
  FRAMES_TYPE,
  type LeafBody,
  type MetricsBody,
  paths,
  type RoundBody,
  type RunBody,
  type TreeBody,
} from '../../../src/wire/cambium.ts';
import { failsWith } from '../../helpers/errors.ts';
import { EventStream, Harness, leafToken, toyFile } from '../harness.ts';

const harness = new Harness();
test.before(async () => {
  await harness.start({ corsOrigins: ['https://page.example'] });
});
test.after(() => harness.end());

const NOBODY = '11111111-2222-4333-8444-555555555555';

test('trees, branches and leaves are made and listed', async () => {
  const tree = await harness.operate<TreeBody>('POST', paths.trees(), { name: 'oak' });
  assert.is(tree.status, 201);
  assert.is(tree.body.user_id, harness.operator.id);
  const branch = await harness.operate<BranchBody>('POST', paths.branches(), {
    name: 'b',
    tree_id: tree.body.id,
    aggregation_target: 3,
    parent_id: null,
  });
  assert.is(branch.status, 201);
  assert.equal((await harness.operate<BranchBody>('GET', paths.branch(branch.body.id))).body, branch.body);
  const leaf = await harness.operate<CredentialsBody>('POST', paths.leaves(), {
    name: 'l',
    branch_id: branch.body.id,
  });
  assert.is(leaf.status, 201);
  assert.is(leaf.body.server, harness.server.url);
  assert.is(leaf.body.id, leaf.body.leaf_id);
  assert.is(leaf.body.session_token, leaf.body.leaf_session_token);
  const me = await harness.call('GET', paths.me(), { headers: { authorization: leafToken(leaf.body) } });
  assert.equal(me.body, {
    leaf_id: leaf.body.id,
    leaf_name: 'l',
    branch_id: branch.body.id,
    tree_id: tree.body.id,
    user_id: harness.operator.id,
  } as unknown);
  const list = async <T>(path: string) => (await harness.operate<{ items: T[] }>('GET', path)).body.items;
  assert.equal(await list<TreeBody>(paths.trees()), [tree.body]);
  assert.equal(await list<BranchBody>(paths.branches()), [branch.body]);
  const leaves = await list<LeafBody>(`${paths.leaves()}?branch=${branch.body.id}`);
  assert.equal(
    leaves.map(({ id, name, revoked_at }) => ({ id, name, revoked_at })),
    [{ id: leaf.body.id, name: 'l', revoked_at: null }],
  );
  assert.not.ok(JSON.stringify(leaves).includes('token'));
  assert.equal(await list<LeafBody>(`${paths.leaves()}?branch=${NOBODY}`), []);
});

test('a run goes start, pause, start, stop, start; asking twice changes nothing', async () => {
  const { id } = await harness.branch(2);
  const states: [string, number, number][] = [];
  for (const status of ['start', 'pause', 'pause', 'start', 'stop', 'stop', 'start'] as const) {
    const { body } = await harness.run(id, status);
    assert.is(body.run_status, status);
    states.push([body.run_status, body.run_number, body.round]);
  }
  assert.equal(states, [
    ['start', 1, 1],
    ['pause', 1, 1],
    ['pause', 1, 1],
    ['start', 1, 1],
    ['stop', 1, 0],
    ['stop', 1, 0],
    ['start', 2, 1],
  ]);
  await harness.run(id, 'stop');
  const answer = await harness.operate('POST', paths.run(id), { run_status: 'pause' });
  assert.equal([answer.status, answer.body.code], [409, 'run-stopped']);
  const rounds = await harness.operate<{ items: RoundBody[] }>('GET', paths.rounds(id));
  assert.equal(
    rounds.body.items.map((round) => [round.run_number, round.status]),
    [
      [2, 'discarded'],
      [1, 'discarded'],
    ],
  );
  const ofFirst = await harness.operate<{ items: RoundBody[] }>('GET', `${paths.rounds(id)}?run=1`);
  assert.is(ofFirst.body.items.length, 1);
});

test('metrics are stored and listed', async () => {
  const { id, leaves } = await harness.branch(1);
  const leaf = leaves[0]!;
  const stream = await EventStream.open(new URL(paths.notices(leaf.id), harness.server.url), {
    authorization: leafToken(leaf),
  });
  await stream.event();
  await harness.upload(leaf, toyFile(1));
  const { aggregation_id } = JSON.parse((await stream.event())!.data!);
  await stream.close();
  const post = (body: unknown, by = leafToken(leaf), aggregation = aggregation_id, key?: string) =>
    harness.call<MetricsBody & ErrorBody>('POST', paths.metrics(aggregation), {
      headers: {
        authorization: by,
        'content-type': 'application/json',
        ...(key !== undefined && { 'idempotency-key': key }),
      },
      body: JSON.stringify(body),
    });
  for (const data of [{ accuracy: 0.5 }, [1, 'x'], null, 'text', 3]) {
    const { status, body } = await post({ mode: 'test', data });
    assert.is(status, 201);
    assert.equal(body, {
      aggregation_id,
      leaf_id: leaf.id,
      mode: 'test',
      received_at: harness.now,
      data,
    } as unknown);
  }
  // A report that is sent again because its answer was lost counts once.
  for (let i = 0; i < 2; i++) {
    const again = await post({ mode: 'train', data: 1 }, leafToken(leaf), aggregation_id, 'a key');
    assert.is(again.status, 201);
  }
  const { body } = await harness.operate<{ items: MetricsBody[] }>('GET', paths.branchMetrics(id));
  assert.is(body.items.length, 6);
  assert.is((await post({ mode: 'x', data: 1 })).body.code, 'metrics-mode');
  assert.is((await post({ mode: 'test' })).body.code, 'request-invalid');
  assert.is(
    (await post({ mode: 'test', data: 1 }, leafToken(leaf), NOBODY)).body.code,
    'aggregation-unknown',
  );
  const stranger = (await harness.branch(1)).leaves[0]!;
  assert.is((await post({ mode: 'test', data: 1 }, leafToken(stranger))).body.code, 'branch-other');
});

test('wrong requests have their codes', async () => {
  const { id: branch, leaves } = await harness.branch(1);
  const tree = (await harness.operate<BranchBody>('GET', paths.branch(branch))).body.tree_id;
  const cases: [string, string, unknown, number, string][] = [
    ['POST', paths.trees(), {}, 422, 'request-invalid'],
    ['POST', paths.trees(), { name: 7 }, 422, 'request-invalid'],
    ['POST', paths.trees(), { name: ' ' }, 422, 'name-invalid'],
    ['POST', paths.trees(), { name: 'a\u001b[2J' }, 422, 'name-invalid'],
    ['POST', paths.trees(), { name: 'x'.repeat(201) }, 422, 'name-invalid'],
    ['POST', paths.trees(), { name: 'half a pair: \ud800' }, 422, 'name-invalid'],
    ['POST', paths.branches(), { name: 'b', tree_id: NOBODY, aggregation_target: 1 }, 404, 'tree-unknown'],
    ['POST', paths.branches(), { name: 'b', tree_id: tree, aggregation_target: 0 }, 422, 'target-invalid'],
    ['POST', paths.branches(), { name: 'b', tree_id: tree, aggregation_target: 1.5 }, 422, 'request-invalid'],
    ['POST', paths.branches(), { name: 'b', tree_id: tree, aggregation_target: 1e9 }, 422, 'target-invalid'],
    [
      'POST',
      paths.branches(),
      { name: 'b', tree_id: tree, aggregation_target: 1, parent_id: branch, deadline_ms: 1, minimum: 1 },
      422,
      'policy-of-root',
    ],
    ['POST', paths.leaves(), { name: 'l', branch_id: NOBODY }, 404, 'branch-unknown'],
    ['POST', paths.leaves(), { name: 'leaf-0', branch_id: branch }, 409, 'leaf-name-taken'],
    ['POST', paths.run(branch), { run_status: 'go' }, 422, 'request-invalid'],
    ['POST', paths.run(NOBODY), { run_status: 'start' }, 404, 'branch-unknown'],
    ['GET', paths.run('..%2f..'), undefined, 404, 'branch-unknown'],
    ['GET', paths.rounds(NOBODY), undefined, 404, 'branch-unknown'],
    ['GET', `${paths.rounds(branch)}?run=x`, undefined, 400, 'query-invalid'],
    ['GET', `${paths.rounds(branch)}?status=x`, undefined, 400, 'query-invalid'],
    ['GET', `${paths.leaves()}?branch=x`, undefined, 400, 'query-invalid'],
    ['POST', paths.roundRetry(NOBODY), undefined, 404, 'round-unknown'],
    ['DELETE', paths.leaf(NOBODY), undefined, 404, 'leaf-unknown'],
    ['GET', paths.aggregation(NOBODY), undefined, 404, 'aggregation-unknown'],
    ['GET', `${API_PREFIX}/nothing`, undefined, 404, 'path-unknown'],
    ['GET', '/', undefined, 404, 'path-unknown'],
    ['PATCH', paths.trees(), undefined, 405, 'method-not-allowed'],
    ['POST', paths.updates(leaves[0]!.id), undefined, 405, 'method-not-allowed'],
    ['GET', paths.updates(leaves[0]!.id), undefined, 403, 'leaf-required'],
    ['GET', paths.roundSum(NOBODY), undefined, 404, 'round-unknown'],
    ['POST', paths.roundAggregation(NOBODY), undefined, 404, 'round-unknown'],
    ['POST', `${paths.roundAggregation(NOBODY)}?leaves=0`, undefined, 400, 'query-invalid'],
    ['GET', `${paths.trees()}/%ff`, undefined, 400, 'path-invalid'],
  ];
  for (const [method, path, body, status, code] of cases) {
    const answer = await harness.operate(method, path, body);
    assert.equal(
      [answer.status, answer.body.code],
      [status, code],
      `${method} ${path} ${JSON.stringify(body)}`,
    );
    assert.is(answer.body.error, answer.body.message);
    assert.match(answer.headers.get('content-type')!, /^application\/json/);
    assert.is(answer.headers.get('cache-control'), 'no-store');
  }
  assert.is((await harness.operate('PATCH', paths.trees())).headers.get('allow'), 'GET, POST');
});

test('bodies that are not JSON, or too big, or of another type', async () => {
  const post = (body: string, type?: string) =>
    harness.call('POST', paths.trees(), {
      headers: {
        authorization: `Bearer ${harness.operator.token}`,
        ...(type ? { 'content-type': type } : {}),
      },
      body,
    });
  assert.is((await post('{"name":', 'application/json')).body.code, 'json-invalid');
  assert.is((await post('', 'application/json')).body.code, 'json-invalid');
  assert.is((await post('{"__proto__":{"x":1},"name":"n"}', 'application/json')).body.code, 'json-invalid');
  assert.is((await post(`"${'x'.repeat(2 << 20)}"`, 'application/json')).body.code, 'body-too-large');
  assert.is((await post('<x/>', 'text/xml')).body.code, 'media-type-unsupported');
});

test('operators’ paths are for operators', async () => {
  const { id, leaves } = await harness.branch(1);
  const get = (authorization?: string) =>
    harness.call('GET', paths.trees(), authorization === undefined ? {} : { headers: { authorization } });
  const none = await get();
  assert.equal([none.status, none.body.code], [401, 'credentials-missing']);
  assert.ok(none.headers.get('www-authenticate'));
  assert.is((await get('Bearer wrong')).body.code, 'token-invalid');
  assert.is((await get(leafToken(leaves[0]!))).body.code, 'operator-required');
  const run = (authorization: string) =>
    harness.call<RunBody & ErrorBody>('GET', paths.run(id), { headers: { authorization } });
  assert.is((await run(leafToken(leaves[0]!))).body.run_status, 'start');
  // And before anything else is looked at: what strangers send is not read.
  const headers = { 'content-type': 'application/json', authorization: 'Bearer wrong' };
  for (const path of [paths.trees(), paths.branches(), paths.leaves(), paths.run(id), paths.metrics(id)]) {
    const body = 'x'.repeat(2 << 20);
    const { status, body: refusal } = await harness.call('POST', path, { headers, body });
    assert.ok(status === 401 || refusal.code === 'leaf-required', `${path}: ${status} ${refusal.code}`);
  }
  const stranger = (await harness.branch(1)).leaves[0]!;
  assert.is((await run(leafToken(stranger))).body.code, 'branch-other');
});

test('the description has every route, and no other', async () => {
  const { body } = await harness.call<{ paths: Record<string, Record<string, unknown>> }>(
    'GET',
    paths.openapi(),
  );
  const described = Object.entries(body.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  );
  assert.is(described.length, operations.length);
  assert.is(new Set(described).size, described.length);
  // A path of the table that nobody serves would answer 404 or 405 without credentials too.
  for (const { method, path, who } of operations) {
    const url = API_PREFIX + path.replace('{id}', NOBODY);
    const { status } = await harness.call(method.toUpperCase(), url);
    const expected = who === 'anybody' ? [200] : who === 'bearer of a signed link' ? [403] : [401, 422];
    assert.ok(expected.includes(status), `${method} ${url}: ${status}`);
  }
  // And a path of the client's table that is not described is missing.
  for (const [name, path] of Object.entries(paths)) {
    const url = (path as (id: string) => string)('{id}').replace('%7Bid%7D', '{id}');
    assert.ok(
      described.some((entry) => entry.endsWith(` ${url}`)),
      name,
    );
  }
});

test('the description tells of uploads in blocks and in frames', async () => {
  interface Described {
    readonly requestBody?: { readonly content: Readonly<Record<string, unknown>> };
    readonly responses: Readonly<Record<string, { readonly headers?: Readonly<Record<string, unknown>> }>>;
    readonly description: string;
  }
  const { body } = await harness.call<{ paths: Record<string, Record<string, Described>> }>(
    'GET',
    paths.openapi(),
  );
  const block = body.paths[`${API_PREFIX}/uploads/{id}`]!.patch!;
  assert.equal(Object.keys(block.requestBody!.content), ['application/octet-stream', FRAMES_TYPE]);
  for (const status of ['201', '204']) {
    assert.equal(Object.keys(block.responses[status]!.headers!), [
      'Upload-Offset',
      'Upload-Complete',
      'Upload-Limit',
    ]);
  }
  assert.match(block.description, /frame-invalid/);
  const begin = body.paths[`${API_PREFIX}/leaves/{id}/updates`]!.put!;
  assert.ok('Location' in begin.responses['201']!.headers!);
});

test('pages of listed origins may call, others may not', async () => {
  const ask = (method: string, origin: string) =>
    harness.call(method, paths.health(), {
      headers: { origin, ...(method === 'OPTIONS' ? { 'access-control-request-method': 'PUT' } : {}) },
    });
  const good = await ask('GET', 'https://page.example');
  assert.is(good.headers.get('access-control-allow-origin'), 'https://page.example');
  const preflight = await ask('OPTIONS', 'https://page.example');
  assert.is(preflight.status, 204);
  assert.match(preflight.headers.get('access-control-allow-headers')!, /authorization/);
  const other = await ask('GET', 'https://other.example');
  assert.is(other.headers.get('access-control-allow-origin'), null);
  const plain = await new Harness().start();
  const answer = await plain.call('GET', paths.health(), { headers: { origin: 'https://page.example' } });
  assert.is(answer.headers.get('access-control-allow-origin'), null);
  await plain.end();
});

test('what nobody expected is logged and not told', async () => {
  const broken = await new Harness().start();
  const { leaves } = await broken.branch(1);
  broken.jobs.examine = async () => {
    throw new Error('a defect in detail');
  };
  const { status, body } = await broken.upload<ErrorBody>(leaves[0]!, toyFile(1));
  assert.equal([status, body.code], [500, 'internal']);
  assert.not.match(JSON.stringify(body), /defect|\.ts/);
  assert.ok(
    broken.log.lines.some((line) => (line as [{ err?: Error }])[0]?.err?.message === 'a defect in detail'),
  );
  assert.equal(await broken.stored(), { spool: [], blobs: [] });
  await broken.end();
});

test('the Host header has no say', async () => {
  const { port } = new URL(harness.server.url);
  const { id } = await harness.branch(1);
  const body = JSON.stringify({ name: 'host', branch_id: id });
  const credentials = await new Promise<string>((resolve, reject) => {
    const call = request(
      {
        port,
        method: 'POST',
        path: paths.leaves(),
        headers: {
          host: 'evil.example',
          'x-forwarded-host': 'evil.example',
          authorization: `Bearer ${harness.operator.token}`,
          'content-type': 'application/json',
        },
      },
      async (response) => resolve((await response.toArray()).join('')),
    );
    call.on('error', reject);
    call.end(body);
  });
  assert.not.match(credentials, /evil/);
});

test('a server that would send tokens in clear text does not start', async () => {
  const { jobs, dataDir } = harness;
  await failsWith('serve-insecure', () => startServer({ jobs, dataDir, host: '192.0.2.1' }));
  await failsWith('serve-public-url', () => startServer({ jobs, dataDir, host: '0.0.0.0' }));
  await failsWith('serve-tls', () => startServer({ jobs, dataDir, tlsCert: 'x' }));
  await failsWith('serve-tls', () =>
    startServer({ jobs, dataDir: `${dataDir}-tls`, tlsCert: 'x', tlsKey: 'y' }),
  );
  rmSync(`${dataDir}-tls`, { recursive: true });
  const other = new Harness();
  const port = Number(new URL(harness.server.url).port);
  await failsWith('serve-address', () => other.start({ port }));
  await other.start(); // the failed start gave the directory back
  await other.end();
});

test.run();
