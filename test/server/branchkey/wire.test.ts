/** What each generation is refused, by raw HTTP: status, code, both spellings of the sentence, and no trace in the round. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { bearerPaths, loginPaths, paths } from '../../../src/wire/branchkey.ts';
import { type CredentialsBody, paths as own, type RunBody } from '../../../src/wire/cambium.ts';
import { Harness, leafToken, toyFile } from '../harness.ts';

const harness = new Harness();
test.before(async () => {
  await harness.start();
});
test.after(() => harness.end());

const basicPair = (user: string, password: string) =>
  `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;

const GENERATIONS = [
  { name: 'basic', paths, sign: (leaf: CredentialsBody) => basicPair(leaf.id, leaf.session_token) },
  { name: 'bearer', paths: bearerPaths, sign: leafToken },
];

interface Raw {
  readonly status: number;
  readonly head: string;
  readonly body: { data?: Record<string, unknown>; error?: string; message?: string; code?: string };
}

/** One request as Python's requests sends it, on a connection of its own; JSON has no content type. */
async function send(method: string, path: string, authorization: string, body?: string | Buffer, type = '') {
  const bytes = Buffer.from(body ?? '');
  const length = body === undefined && method === 'GET' ? '' : `Content-Length: ${bytes.byteLength}\r\n`;
  const socket = connect(Number(new URL(harness.server.url).port), '127.0.0.1');
  await once(socket, 'connect');
  socket.write(
    `${method} ${path} HTTP/1.1\r\nHost: x\r\nUser-Agent: python-requests/2.28.1\r\naccept: */*S\r\n${length}` +
      `${type === '' ? '' : `Content-Type: ${type}\r\n`}Authorization: ${authorization}\r\nConnection: close\r\n\r\n`,
  );
  socket.write(bytes);
  let text = '';
  for await (const chunk of socket) text += chunk;
  const [head = '', answer = ''] = text.split('\r\n\r\n');
  const status = Number(/^HTTP\/1\.1 (\d+)/.exec(head)?.[1]);
  return { status, head, body: /json/.test(head) ? JSON.parse(answer) : {}, text: answer } as Raw & {
    text: string;
  };
}

function form(file: Buffer): { body: Buffer; type: string } {
  const boundary = '0f6bd6a8d3c94a3f8a1d6c1f5a3e2b4c';
  const body = Buffer.concat([
    Buffer.from(
      `--${boundary}\r\nContent-Disposition: form-data; name="data"\r\n\r\n{}\r\n` +
        `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="weights"\r\n\r\n`,
    ),
    file,
    Buffer.from(`\r\n--${boundary}--\r\n`),
  ]);
  return { body, type: `multipart/form-data; boundary=${boundary}` };
}

function upload(path: string, authorization: string, file: Buffer): Promise<Raw> {
  const { body, type } = form(file);
  return send('POST', path, authorization, body, type);
}

function fails({ status, body }: Raw, expected: number, code: string) {
  assert.equal([status, body.code], [expected, code]);
  assert.type(body.error, 'string');
  assert.is(body.error, body.message);
}

const updatesOf = async (id: string) => (await harness.operate<RunBody>('GET', own.run(id))).body.updates;
const place = ({ tree_id, branch_id }: CredentialsBody) => JSON.stringify({ tree_id, branch_id });
const nobody = '11111111-2222-4333-8444-555555555555';

for (const { name, paths, sign } of GENERATIONS) {
  test(`${name}: what the state of run and round does not allow`, async () => {
    const { id, leaves } = await harness.branch(2);
    const leaf = leaves[0]!;
    const put = (weighting: number) => upload(paths.upload(), sign(leaf), toyFile(weighting));
    await harness.run(id, 'pause');
    fails(await put(1), 409, 'run-paused');
    await harness.run(id, 'stop');
    fails(await put(1), 409, 'run-stopped');
    const run = await send('GET', paths.run(id), sign(leaf));
    assert.equal(run.body.data, { run_status: 'stop', run_number: 1 });
    await harness.run(id, 'start');
    const again = await send('GET', paths.run(id), sign(leaf));
    assert.equal(again.body.data, { run_status: 'start', run_number: 2 });
    assert.is((await put(1)).status, 201);
    fails(await put(2), 409, 'update-exists');
    assert.is(await updatesOf(id), 1);
  });

  test(`${name}: two uploads of a leaf at once count once`, async () => {
    const { id, leaves } = await harness.branch(3);
    const sent = await Promise.all(
      [1, 1, 2, 3].map((weighting) => upload(paths.upload(), sign(leaves[0]!), toyFile(weighting))),
    );
    const taken = sent.filter(({ status }) => status === 201);
    assert.ok(taken.length === 1 || taken.length === 2);
    assert.is(new Set(taken.map(({ body }) => body.data!.file_id)).size, 1);
    for (const other of sent) if (other.status !== 201) fails(other, 409, 'update-exists');
    assert.is(await updatesOf(id), 1);
  });

  test(`${name}: foreign branches, foreign aggregations and revoked tokens`, async () => {
    const { id, leaves } = await harness.branch(1, 2);
    const [leaf, gone] = [leaves[0]!, leaves[1]!];
    const other = await harness.branch(1);
    const stranger = other.leaves[0]!;
    const received = await upload(paths.upload(), sign(leaf), toyFile(1));
    assert.is(received.status, 201);
    let aggregation: string | null = null;
    while (aggregation === null) {
      aggregation = (await harness.operate<RunBody>('GET', own.run(id))).body.aggregation_id;
    }
    fails(await send('GET', paths.download(aggregation), sign(stranger)), 403, 'branch-other');
    fails(
      await send('GET', paths.download(received.body.data!.file_id as string), sign(leaf)),
      404,
      'aggregation-unknown',
    );
    fails(await send('GET', paths.download(nobody), sign(leaf)), 404, 'aggregation-unknown');
    fails(await send('GET', paths.run(other.id), sign(leaf)), 403, 'branch-other');
    const about = {
      mode: 'train',
      aggregation_id: aggregation,
      leaf_id: stranger.id,
      branch_id: id,
      data: '{}',
    };
    fails(
      await send('POST', paths.performance(), sign(stranger), JSON.stringify(about)),
      403,
      'branch-other',
    );
    await harness.operate('DELETE', own.leaf(gone.id));
    for (const refused of [
      await send('GET', paths.run(id), sign(gone)),
      await send('GET', paths.download(aggregation), sign(gone)),
      await send('POST', paths.performance(), sign(gone), JSON.stringify(about)),
      await upload(paths.upload(), sign(gone), toyFile(1)),
    ]) {
      fails(refused, 401, 'token-revoked');
      assert.match(
        refused.head,
        name === 'basic' ? /www-authenticate: Basic /i : /www-authenticate: Bearer /i,
      );
    }
    fails(
      await send('GET', paths.run(id), name === 'basic' ? leafToken(leaf) : 'Basic eA=='),
      401,
      'credentials-missing',
    );
    assert.is(await updatesOf(id), 0);
  });

  test(`${name}: an upload that is cut half way leaves nothing`, async () => {
    const { id, leaves } = await harness.branch(2);
    const { body, type } = form(toyFile(1));
    for (const cut of [0, 60, 200, body.byteLength - 10]) {
      const socket = connect(Number(new URL(harness.server.url).port), '127.0.0.1');
      await once(socket, 'connect');
      socket.write(
        `POST ${paths.upload()} HTTP/1.1\r\nHost: x\r\nAuthorization: ${sign(leaves[0]!)}\r\n` +
          `Content-Type: ${type}\r\nContent-Length: ${body.byteLength}\r\n\r\n`,
      );
      socket.end(body.subarray(0, cut));
      socket.resume();
      await once(socket, 'close');
    }
    while ((await harness.stored()).spool.length > 0) await new Promise(setImmediate);
    assert.is(await updatesOf(id), 0);
    assert.is((await upload(paths.upload(), sign(leaves[0]!), toyFile(1))).status, 201);
  });
}

test('login: the newest access token works, the leaf gets the file itself, and a logout ends it', async () => {
  const { id, leaves } = await harness.branch(1);
  const leaf = leaves[0]!;
  const byName = basicPair(leaf.leaf_name, leaf.leaf_password);
  const login = async () => {
    const { status, body } = await send('PUT', loginPaths.login(), byName, place(leaf));
    assert.is(status, 201);
    assert.equal([body.data!.id, body.data!.logged_in, body.data!.status], [leaf.id, true, 'logged_in']);
    return basicPair(leaf.id, body.data!.access_token as string);
  };
  const first = await login();
  const second = await login();
  fails(await upload(paths.upload(), first, toyFile(2)), 401, 'token-invalid');
  assert.is((await upload(paths.upload(), second, toyFile(2))).status, 201);
  let aggregation: string | null = null;
  while (aggregation === null) {
    aggregation = (await harness.operate<RunBody>('GET', own.run(id))).body.aggregation_id;
  }
  const raw = await send('GET', paths.download(aggregation), second);
  assert.equal([raw.status, raw.text], [200, toyFile(2).toString()]);
  const link = await send('GET', paths.download(aggregation), basicPair(leaf.id, leaf.session_token));
  assert.ok(String(link.body.data!.download_url).startsWith(`${harness.server.url}/`));
  fails(
    await send(
      'GET',
      own.me(),
      leafToken({ ...leaf, session_token: Buffer.from(second.slice(6), 'base64').toString().split(':')[1]! }),
    ),
    401,
    'token-invalid',
  );
  assert.is((await send('PUT', loginPaths.logout(), second, '')).status, 200);
  fails(await send('PUT', loginPaths.logout(), second, ''), 401, 'token-invalid');
  fails(await upload(paths.upload(), second, toyFile(2)), 401, 'token-invalid');
  assert.is((await send('PUT', loginPaths.logout(), byName, '')).status, 200);
});

test('login: what is refused', async () => {
  const { leaves } = await harness.branch(1, 2);
  const [leaf, gone] = [leaves[0]!, leaves[1]!];
  const other = (await harness.branch(1)).leaves[0]!;
  const login = (user: string, password: string, body: string) =>
    send('PUT', loginPaths.login(), basicPair(user, password), body);
  const { leaf_name: name, leaf_password: password } = leaf;
  fails(await login(name, 'wrong', place(leaf)), 401, 'token-invalid');
  fails(await login('nobody', password, place(leaf)), 404, 'leaf-unknown');
  // The other branch has a leaf of that name too, with another password.
  fails(await login(name, password, place(other)), 401, 'token-invalid');
  fails(
    await login(name, password, JSON.stringify({ tree_id: other.tree_id, branch_id: leaf.branch_id })),
    404,
    'branch-unknown',
  );
  fails(
    await login(name, password, JSON.stringify({ tree_id: 'x', branch_id: '../x' })),
    404,
    'branch-unknown',
  );
  fails(await login(name, password, JSON.stringify({ branch_id: leaf.branch_id })), 422, 'request-invalid');
  fails(await login(name, password, 'null'), 422, 'request-invalid');
  fails(await login(name, password, '{'), 400, 'json-invalid');
  fails(await send('PUT', loginPaths.login(), 'Basic', place(leaf)), 401, 'credentials-missing');
  await harness.operate('DELETE', own.leaf(gone.id));
  fails(await login(gone.leaf_name, gone.leaf_password, place(gone)), 401, 'token-revoked');
  fails(await send('PUT', loginPaths.logout(), basicPair('nobody', 'x'), ''), 404, 'leaf-unknown');
  fails(await send('PUT', loginPaths.logout(), basicPair(name, 'x'), ''), 401, 'token-invalid');
});

test('login: a name with a colon, and one that Python sends in Latin-1', async () => {
  const { id } = await harness.branch(1, 0);
  for (const name of ['site: north', 'Größe']) {
    const { body: leaf } = await harness.operate<CredentialsBody>('POST', own.leaves(), {
      name,
      branch_id: id,
    });
    const latin = `Basic ${Buffer.from(`${name}:${leaf.leaf_password}`, 'latin1').toString('base64')}`;
    assert.is((await send('PUT', loginPaths.login(), latin, place(leaf))).status, 201);
    assert.is((await send('PUT', loginPaths.logout(), basicPair(name, leaf.leaf_password), '')).status, 200);
  }
});

test('metrics by GET have a limit too, and must be JSON', async () => {
  const { leaves } = await harness.branch(1);
  const as = basicPair(leaves[0]!.performance_analyser_username, leaves[0]!.performance_analyser_password);
  fails(await send('GET', paths.performance(), as, '{'), 400, 'json-invalid');
  fails(await send('GET', paths.performance(), as), 400, 'json-invalid');
  fails(await send('GET', paths.performance(), as, '{"data": "1"}'), 422, 'request-invalid');
  const large = JSON.stringify({ data: 'x'.repeat(1 << 20) });
  fails(await send('GET', paths.performance(), as, large), 413, 'body-too-large');
  fails(await send('POST', paths.performance(), as, large), 413, 'body-too-large');
});

test.run();
