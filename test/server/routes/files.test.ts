import { createHash } from 'node:crypto';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { acceptedFormat, parseRange } from '../../../src/server/routes/files.ts';
import {
  type AggregationBody,
  type CredentialsBody,
  type ErrorBody,
  paths,
} from '../../../src/wire/cambium.ts';
import { EventStream, Harness, leafToken, toyFile } from '../harness.ts';

const harness = new Harness();
let leaf: CredentialsBody;
let stranger: CredentialsBody;
let aggregation: AggregationBody;
let update: string;
let bytes: Buffer;

const asked = (id: string, by: CredentialsBody) =>
  harness.call<AggregationBody & ErrorBody>('GET', paths.aggregation(id), {
    headers: { authorization: leafToken(by) },
  });

test.before(async () => {
  await harness.start();
  const branch = await harness.branch(1);
  leaf = branch.leaves[0]!;
  stranger = (await harness.branch(1)).leaves[0]!;
  const stream = await EventStream.open(new URL(paths.notices(leaf.id), harness.server.url), {
    authorization: leafToken(leaf),
  });
  await stream.event();
  update = (await harness.upload(leaf, toyFile(2))).body.file_id;
  const { aggregation_id } = JSON.parse((await stream.event())!.data!);
  await stream.close();
  aggregation = (await asked(aggregation_id, leaf)).body;
  bytes = Buffer.from(await (await fetch(aggregation.download_url)).arrayBuffer());
});
test.after(() => harness.end());

test('an aggregation tells what it is, and its link works without credentials', async () => {
  assert.is(aggregation.byte_length, bytes.byteLength);
  assert.is(aggregation.sha256, createHash('sha256').update(bytes).digest('hex'));
  assert.equal([aggregation.run_number, aggregation.round, aggregation.leaves], [1, 1, 1]);
  const response = await fetch(aggregation.download_url);
  const digest = Buffer.from(aggregation.sha256, 'hex').toString('base64');
  assert.is(response.headers.get('repr-digest'), `sha-256=:${digest}:`);
  assert.is(response.headers.get('etag'), `"${aggregation.sha256}"`);
  assert.is(response.headers.get('content-length'), String(bytes.byteLength));
  assert.is(response.headers.get('accept-ranges'), 'bytes');
  assert.is(response.headers.get('cache-control'), 'private, no-store');
  await response.arrayBuffer();
  const head = await fetch(aggregation.download_url, { method: 'HEAD' });
  assert.is(head.status, 200);
  assert.is(head.headers.get('content-length'), String(bytes.byteLength));
});

test('nobody gets another branch’s aggregation, and nobody an update', async () => {
  const other = await asked(aggregation.aggregation_id, stranger);
  assert.equal([other.status, other.body.code], [403, 'branch-other']);
  const notOne = await asked(update, leaf);
  assert.equal([notOne.status, notOne.body.code], [404, 'aggregation-unknown']);
  const byOperator = await harness.operate<AggregationBody>(
    'GET',
    paths.aggregation(aggregation.aggregation_id),
  );
  assert.is((await fetch(byOperator.body.download_url)).status, 200);
});

test('a link that was changed, or is too old, or whose leaf is gone, does not work', async () => {
  const refused = async (change: (url: URL) => void, code: string) => {
    const url = new URL(aggregation.download_url);
    change(url);
    const response = await fetch(url);
    assert.is(response.status, 403);
    assert.is(((await response.json()) as ErrorBody).code, code);
  };
  await refused((url) => url.searchParams.set('leaf', stranger.id), 'link-invalid');
  await refused((url) => url.searchParams.set('leaf', ''), 'link-invalid');
  await refused((url) => url.searchParams.set('expires', '9999999999999'), 'link-invalid');
  await refused((url) => url.searchParams.set('signature', 'x'), 'link-invalid');
  await refused((url) => url.searchParams.append('signature', 'x'), 'link-invalid');
  await refused((url) => url.searchParams.delete('signature'), 'link-invalid');
  await refused((url) => {
    url.pathname = paths.file(update);
  }, 'link-invalid');
  harness.now += 5 * 60_000 - 1;
  assert.is((await fetch(aggregation.download_url)).status, 200);
  harness.now += 1;
  await refused(() => {}, 'link-expired');

  aggregation = (await asked(aggregation.aggregation_id, leaf)).body;
  assert.is((await fetch(aggregation.download_url)).status, 200);
});

for (const [header, status, part] of [
  ['bytes=0-', 206, [0, undefined]],
  ['bytes=5-9', 206, [5, 10]],
  ['bytes=5-5', 206, [5, 6]],
  ['bytes=10-99999', 206, [10, undefined]],
  ['bytes=-4', 206, [-4, undefined]],
  ['bytes=-99999', 206, [0, undefined]],
  ['bytes=5-9,11-12', 200, [0, undefined]],
  ['bytes=9-5', 200, [0, undefined]],
  ['bytes=-', 200, [0, undefined]],
  ['items=0-1', 200, [0, undefined]],
  ['bytes=99999-', 416, undefined],
  ['bytes=-0', 416, undefined],
] as const) {
  test(`range ${header}: ${status}`, async () => {
    const response = await fetch(aggregation.download_url, { headers: { range: header } });
    assert.is(response.status, status);
    if (part === undefined) {
      assert.is(response.headers.get('content-range'), `bytes */${bytes.byteLength}`);
      assert.is(((await response.json()) as ErrorBody).code, 'range-unsatisfiable');
      return;
    }
    const got = Buffer.from(await response.arrayBuffer());
    assert.ok(got.equals(bytes.subarray(...part)));
    if (status === 206) {
      const start = bytes.indexOf(got);
      assert.match(
        response.headers.get('content-range')!,
        new RegExp(`^bytes \\d+-${start + got.length - 1}/${bytes.length}$`),
      );
    }
  });
}

test('a range holds for the version that it was asked for', async () => {
  const get = async (version: string) =>
    (await fetch(aggregation.download_url, { headers: { range: 'bytes=1-2', 'if-range': version } })).status;
  assert.is(await get(`"${aggregation.sha256}"`), 206);
  assert.is(await get('"another"'), 200);
});

test('ranges of huge and empty files', () => {
  assert.equal(parseRange('bytes=9007199254740990-', 2 ** 53 - 1), { start: 2 ** 53 - 2, end: 2 ** 53 - 2 });
  assert.is(parseRange('bytes=0-', 0), 'unsatisfiable');
  assert.is(parseRange(undefined, 10), undefined);
});

test('a link is made with the public address, whatever the request says', async () => {
  const other = await new Harness().start({ publicUrl: 'https://average.example.org/base/' });
  const { leaves } = await other.branch(1);
  assert.is(leaves[0]!.server, 'https://average.example.org/base');
  assert.is(leaves[0]!.response_host, 'average.example.org');
  assert.is(other.operator.server, 'https://average.example.org/base');
  await other.end();
});

test('what an update is never leaks by a revoked leaf’s link', async () => {
  await harness.operate('DELETE', paths.leaf(leaf.id));
  assert.is((await fetch(aggregation.download_url)).status, 403);
});

for (const [header, format] of [
  [undefined, undefined],
  ['*/*', undefined],
  ['*/*S', undefined],
  ['application/octet-stream, application/x-npz', 'npz'],
  ['Application/X-NPZ ; q=0.5, application/x-safetensors;q=0.51', 'safetensors'],
  ['application/x-npz;q=0, application/x-npy;q=0.001', 'npy'],
  ['application/x-npz;q=2', undefined],
  ['application/x-npz;q=', undefined],
  ['application/x-npz;q=0.5;q=1, application/x-npy;q=0.5', 'npz'],
] as const) {
  test(`Accept ${header}: ${format}`, () => {
    assert.is(acceptedFormat(header), format);
  });
}

test.run();
