/** The basic generation, byte for byte as its clients send it. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { paths } from '../../../src/wire/branchkey.ts';
import {
  type CredentialsBody,
  type MetricsBody,
  paths as own,
  type RunBody,
} from '../../../src/wire/cambium.ts';
import { EventStream, Harness, leafToken, toyFile } from '../harness.ts';

const harness = new Harness();
test.before(async () => {
  await harness.start({ maxUploadBytes: 100_000 });
});
test.after(() => harness.end());

const basic = (leaf: CredentialsBody) =>
  `Authorization: Basic ${Buffer.from(`${leaf.id}:${leaf.session_token}`).toString('base64')}`;

/** What an HTTP client of Python sends with every request. */
const USUAL =
  'User-Agent: python-requests/2.31.0\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive';

interface Raw {
  readonly status: number;
  readonly head: string;
  readonly body: { data?: Record<string, unknown>; error?: string; message?: string; code?: string };
}

/** Sends bytes on a connection of their own and reads one answer; `end` also says that no more will come. */
async function send(bytes: string | Buffer, end = false): Promise<Raw> {
  const socket = connect(Number(new URL(harness.server.url).port), '127.0.0.1');
  await once(socket, 'connect');
  if (end) socket.end(bytes);
  else socket.write(bytes);
  let text = '';
  for await (const chunk of socket) {
    text += chunk;
    const length = /content-length: (\d+)/i.exec(text)?.[1];
    const at = text.indexOf('\r\n\r\n');
    if (at >= 0 && length !== undefined && text.length >= at + 4 + Number(length)) break;
  }
  const [head = '', body = ''] = text.split('\r\n\r\n');
  return {
    status: Number(/^HTTP\/1\.1 (\d+)/.exec(head)?.[1]),
    head,
    body: body === '' ? {} : JSON.parse(body),
  };
}

const get = (path: string, leaf: CredentialsBody, accept = '*/*', more = '') =>
  send(`GET ${path} HTTP/1.1\r\nHost: x\r\n${USUAL}\r\naccept: ${accept}\r\n${more}${basic(leaf)}\r\n\r\n`);

/** A multipart upload: the part `data`, then the part `file` without a content type. */
function multipart(leaf: CredentialsBody, file: Buffer, name = 'file'): { head: string; body: Buffer } {
  const boundary = '0f6bd6a8d3c94a3f8a1d6c1f5a3e2b4c';
  const fields = JSON.stringify({ leaf_name: leaf.name, metadata: "{'key1':'value1', 'key2':'value2'}" });
  const body = Buffer.concat([
    Buffer.from(
      `--${boundary}\r\nContent-Disposition: form-data; name="data"\r\n\r\n${fields}\r\n` +
        `--${boundary}\r\nContent-Disposition: form-data; name="${name}"; filename="weights.npy"\r\n\r\n`,
    ),
    file,
    Buffer.from(`\r\n--${boundary}--\r\n`),
  ]);
  const head =
    `POST ${paths.upload()} HTTP/1.1\r\nHost: x\r\n${USUAL}\r\naccept: application/json\r\n${basic(leaf)}\r\n` +
    `Content-Length: ${body.byteLength}\r\nContent-Type: multipart/form-data; boundary=${boundary}\r\n\r\n`;
  return { head, body };
}

const upload = (leaf: CredentialsBody, file: Buffer, name?: string) => {
  const { head, body } = multipart(leaf, file, name);
  return send(Buffer.concat([Buffer.from(head), body]));
};

const updatesOf = async (id: string) => (await harness.operate<RunBody>('GET', own.run(id))).body.updates;

test('authenticate, run, upload, download, metrics: one round', async () => {
  const { id, leaves } = await harness.branch(2);
  const [a, b] = [leaves[0]!, leaves[1]!];
  const authenticated = await get(paths.authenticate(), a);
  assert.is(authenticated.status, 200);
  assert.equal(authenticated.body.data, {
    id: a.id,
    name: 'leaf-0',
    tree_id: a.tree_id,
    branch_id: id,
    user_id: harness.operator.id,
  });
  const run = await get(paths.run(id), a, '*/*', 'leaf: true\r\n');
  assert.equal([run.status, run.body.data], [200, { run_status: 'start', run_number: 1 }]);

  const stream = await EventStream.open(new URL(own.notices(a.id), harness.server.url), {
    authorization: leafToken(a),
  });
  await stream.event();
  const first = await upload(a, toyFile(1, [{ values: [0, 2] }]));
  assert.is(first.status, 201);
  const again = await upload(a, toyFile(1, [{ values: [0, 2] }]));
  assert.equal([again.status, again.body.data?.file_id], [201, first.body.data?.file_id]);
  assert.is((await upload(b, toyFile(3, [{ values: [4, 6] }]))).status, 201);
  const told = JSON.parse((await stream.event())!.data!);
  await stream.close();

  const link = await get(paths.download(told.aggregation_id), a, '*/*S');
  assert.is(link.status, 200);
  const file = await fetch(link.body.data!.download_url as string);
  assert.equal([file.status, await file.text()], [200, toyFile(4, [{ values: [3, 5] }]).toString()]);

  const performance = (body: object) => {
    const text = JSON.stringify(body);
    return send(
      `POST ${paths.performance()} HTTP/1.1\r\nHost: x\r\n${USUAL}\r\n${basic(a)}\r\n` +
        `Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
    );
  };
  const about = { aggregation_id: told.aggregation_id, leaf_id: a.id, branch_id: id, tree_id: a.tree_id };
  assert.is((await performance({ mode: 'test', ...about, data: '{"accuracy": 0.9}' })).status, 201);
  assert.is((await performance({ ...about, data: 'no JSON' })).status, 201);
  assert.is((await performance({ mode: 'wild', ...about, data: '1' })).body.code, 'metrics-mode');
  assert.is((await performance({ mode: 'test', data: '1' })).body.code, 'request-invalid');
  assert.is(
    (await performance({ ...about, aggregation_id: '../x', data: '1' })).body.code,
    'aggregation-unknown',
  );
  const { body } = await harness.operate<{ items: MetricsBody[] }>('GET', own.branchMetrics(id));
  const stored = body.items.map(({ mode, data }) => JSON.stringify([mode, data]));
  assert.equal(stored.sort(), ['["test","no JSON"]', '["test",{"accuracy":0.9}]']);
});

test('failures carry error and message, and leave nothing', async () => {
  const { id, leaves } = await harness.branch(2);
  const leaf = leaves[0]!;
  const fails = ({ status, body }: Raw, expected: number, code: string) => {
    assert.equal([status, body.code], [expected, code]);
    assert.type(body.error, 'string');
    assert.is(body.error, body.message);
  };
  fails(await upload(leaf, Buffer.from('junk')), 422, 'format-unknown');
  fails(await upload(leaf, toyFile(0)), 422, 'weighting-zero');
  fails(await upload(leaf, Buffer.alloc(200_000)), 413, 'upload-too-large');
  fails(await upload(leaf, Buffer.alloc(100_001)), 413, 'upload-too-large');
  fails(await upload(leaf, toyFile(1), 'other'), 422, 'file-missing');
  fails(await upload({ ...leaf, session_token: 'wrong' }, toyFile(1)), 401, 'token-invalid');
  fails(await upload({ ...leaf, id: 'guest' }, toyFile(1)), 404, 'leaf-unknown');
  fails(await get(paths.authenticate(), { ...leaf, session_token: 'x' }), 401, 'token-invalid');
  const nobody = '11111111-2222-4333-8444-555555555555';
  fails(await get(paths.run(nobody), leaf), 404, 'branch-unknown');
  const other = await harness.branch(1, 0);
  fails(await get(paths.run(other.id), leaf), 403, 'branch-other');
  fails(await get(paths.run('x'), leaf), 404, 'branch-unknown');
  fails(await get(paths.download(nobody), leaf), 404, 'aggregation-unknown');
  fails(await get('/v1/nothing', leaf), 404, 'path-unknown');
  const plain =
    `POST ${paths.upload()} HTTP/1.1\r\nHost: x\r\n${basic(leaf)}\r\n` +
    'Content-Type: text/plain\r\nContent-Length: 1\r\n\r\nx';
  fails(await send(plain), 415, 'media-type-unsupported');
  const unbounded = plain.replace('text/plain', 'multipart/form-data');
  fails(await send(unbounded), 400, 'multipart-invalid');
  const badJson = `POST ${paths.performance()} HTTP/1.1\r\nHost: x\r\n${basic(leaf)}\r\nContent-Length: 1\r\n\r\n{`;
  fails(await send(badJson), 400, 'json-invalid');
  await harness.run(id, 'pause');
  fails(await upload(leaf, toyFile(1)), 409, 'run-paused');
  await harness.run(id, 'start');
  assert.is(await updatesOf(id), 0);
  assert.equal((await harness.stored()).spool, []);
  assert.is((await upload(leaf, toyFile(1))).status, 201);
});

test('a multipart body that is cut anywhere leaves nothing', async () => {
  const { id, leaves } = await harness.branch(2);
  const { head, body } = multipart(leaves[0]!, toyFile(1));
  // A cut that the sender announces by closing its side; the answer may or may not get through.
  for (let cut = 0; cut < body.byteLength - 2; cut += 13) {
    const { status } = await send(Buffer.concat([Buffer.from(head), body.subarray(0, cut)]), true);
    assert.ok(status === 400 || Number.isNaN(status), `cut at ${cut}: ${status}`);
  }
  // The length is right, but the last boundary is missing.
  for (const cut of [10, 40, 100, 250, 300, body.byteLength - 4]) {
    const short = head.replace(/Content-Length: \d+/, `Content-Length: ${cut}`);
    const { status, body: answer } = await send(Buffer.concat([Buffer.from(short), body.subarray(0, cut)]));
    assert.equal([status, answer.code], [400, 'upload-incomplete'], `cut at ${cut}`);
  }
  while ((await harness.stored()).spool.length > 0) await new Promise(setImmediate);
  assert.is(await updatesOf(id), 0);
  assert.is((await upload(leaves[0]!, toyFile(1))).status, 201);
});

test.run();
