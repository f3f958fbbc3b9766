/** What somebody between two servers sees of a round that goes up: its sum by a link, and the way down. */
import { createHash } from 'node:crypto';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type AggregationBody,
  type CredentialsBody,
  type OwnUpdateBody,
  paths,
  type RoundBody,
  type SumLinkBody,
} from '../../../src/wire/cambium.ts';
import { EventStream, Harness, leafToken, toyFile, toySum } from '../harness.ts';

const test = suite('routes: upstream');
const harness = new Harness();
let branch: { id: string; leaves: CredentialsBody[] };

test.before(async () => {
  await harness.start();
  branch = await harness.branch(2);
  await harness.operate('PATCH', paths.branch(branch.id), { upstream: true });
});
test.after(() => harness.end());

const sha256Of = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest();
const authorization = () => `Bearer ${harness.operator.token}`;
const handDown = <T>(id: string, bytes: Buffer, query = '', headers: Record<string, string> = {}) =>
  harness.call<T>('POST', paths.roundAggregation(id) + query, {
    headers: { authorization: authorization(), ...headers },
    body: bytes as Uint8Array<ArrayBuffer>,
  });

/** Lets round 1 come to its sum; answers as it is told to who watches. */
async function summed(): Promise<RoundBody> {
  const url = new URL(paths.watch(branch.id), harness.server.url);
  const stream = await EventStream.open(url, { authorization: authorization() });
  const [a, b] = branch.leaves as [CredentialsBody, CredentialsBody];
  await harness.upload(a, toyFile(1, [{ values: [1, 2] }]));
  await harness.upload(b, toyFile(3, [{ values: [3, 4] }]));
  for (;;) {
    const round = JSON.parse((await stream.event())!.data!) as RoundBody;
    if (round.status !== 'summed') continue;
    await stream.close();
    return round;
  }
}

test('up by a link, down with a digest, the leaves are told', async () => {
  const { id, sum } = await summed();
  const { body } = await harness.operate<SumLinkBody>('GET', paths.roundSum(id));
  const { download_url, ...link } = body;
  assert.equal(link, sum);
  const response = await fetch(download_url);
  const bytes = Buffer.from(await response.arrayBuffer());
  assert.is(response.headers.get('etag'), `"${sum!.sha256}"`);
  assert.match(response.headers.get('content-disposition')!, /\.partial\.safetensors"$/);
  assert.is(sha256Of(bytes).toString('hex'), sum!.sha256);
  const leaves = branch.leaves.map(({ id: leaf }, i) => [leaf, [1, 3][i]!] as const);
  assert.equal(JSON.parse(String(bytes)), JSON.parse(String(toySum(leaves.sort(), [{ values: [10, 14] }]))));
  const part = await fetch(download_url, { headers: { range: 'bytes=2-5' } });
  assert.equal([part.status, await part.text()], [206, bytes.subarray(2, 6).toString()]);
  const forged = await fetch(download_url.replace(sum!.file_id, branch.id));
  assert.is(forged.status, 403);

  const above = toyFile(9, [{ values: [5, 6] }]);
  const digest = { 'repr-digest': `sha-256=:${sha256Of(above).toString('base64')}:` };
  const wrong = await handDown<{ code: string }>(id, toyFile(8, [{ values: [5, 6] }]), '', digest);
  assert.equal([wrong.status, wrong.body.code], [400, 'digest-mismatch']);
  for (let i = 0; i < 2; i++) {
    const done = await handDown<RoundBody>(id, above, '?leaves=5', digest);
    assert.equal([done.status, done.body.status, done.body.total_weighting], [200, 'done', 9]);
  }
  const leaf = branch.leaves[0]!;
  const own = await harness.call<{ items: OwnUpdateBody[] }>('GET', paths.updates(leaf.id), {
    headers: { authorization: leafToken(leaf) },
  });
  const [update] = own.body.items;
  assert.equal([update?.round_status, update?.run_number, update?.round], ['done', 1, 1]);
  const aggregation = await harness.call<AggregationBody>('GET', paths.aggregation(update!.aggregation_id!), {
    headers: { authorization: leafToken(leaf) },
  });
  assert.equal([aggregation.body.leaves, aggregation.body.sha256], [5, sha256Of(above).toString('hex')]);
  const other = await harness.call('GET', paths.updates(leaf.id), {
    headers: { authorization: leafToken(branch.leaves[1]!) },
  });
  assert.equal([other.status, other.body.code], [403, 'leaf-other']);
  const query = await harness.call('GET', `${paths.updates(leaf.id)}?sha256=x`, {
    headers: { authorization: leafToken(leaf) },
  });
  assert.equal([query.status, query.body.code], [400, 'query-invalid']);
});

test.run();
