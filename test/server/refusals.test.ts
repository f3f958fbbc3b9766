/** Everything that an upload can be refused for: its status, its code, and that it leaves no trace. */
import { open } from 'node:fs/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type CredentialsBody, type ErrorBody, paths, type RunBody } from '../../src/wire/cambium.ts';
import { Harness, leafToken, padded, type ToyTensor, toyFile } from './harness.ts';

const harness = new Harness();
let branch: { id: string; leaves: CredentialsBody[] };
let isDiskFull = false;

const openFile = (async (...args: Parameters<typeof open>) => {
  const handle = await open(...args);
  const write = handle.write.bind(handle);
  handle.write = ((...given: Parameters<typeof write>) => {
    if (!isDiskFull) return write(...given);
    throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
  }) as typeof handle.write;
  return handle;
}) as typeof open;

test.before(async () => {
  await harness.start({ maxUploadBytes: 10_000, spool: { openFile } });
  branch = await harness.branch(4);
  const first = await harness.upload(branch.leaves[0]!, toyFile(5, [{ values: [1, 2] }]));
  assert.is(first.status, 201);
});
test.after(() => harness.end());

/** What the server has must be the one good update and nothing else. */
async function nothingHappened() {
  const { body } = await harness.operate<RunBody>('GET', paths.run(branch.id));
  assert.is(body.updates, 1);
  const { spool, blobs } = await harness.stored();
  assert.equal(spool, []);
  assert.is(blobs.length, 1);
}

function isError(body: ErrorBody, code: string) {
  assert.is(body.code, code, body.message);
  assert.type(body.message, 'string');
  assert.is(body.error, body.message);
  assert.not.match(body.message, /undefined|\[object|\n|at .*:\d+/);
}

const f32 = (...values: ToyTensor['values'][number][]): ToyTensor[] => [{ values }];
const good = toyFile(1, f32(3, 4));

const bodies: [string, Buffer, number, string][] = [
  ['no weight file', Buffer.from('not weights'), 422, 'format-unknown'],
  ['an empty body', Buffer.alloc(0), 422, 'format-unknown'],
  ['no weighting', toyFile(null), 422, 'weighting-missing'],
  ['weighting zero', toyFile(0), 422, 'weighting-zero'],
  ['weighting negative', toyFile(-3), 422, 'weighting-negative'],
  ['weighting NaN', toyFile('NaN'), 422, 'weighting-nan'],
  ['weighting infinite', toyFile('Infinity'), 422, 'weighting-infinite'],
  ['weighting absurd', toyFile(1e300), 422, 'weighting-range'],
  ['weighting too small', toyFile(2 ** -65), 422, 'weighting-range'],
  ['a total above 2^53 - 1', toyFile(2 ** 53 - 5), 422, 'weighting-total'],
  ['no tensors', toyFile(1, []), 422, 'layout-empty'],
  ['another number of tensors', toyFile(1, [...f32(1, 2), ...f32(1)]), 422, 'layout-count'],
  ['another shape', toyFile(1, f32(1, 2, 3)), 422, 'layout-shape'],
  ['another dtype', toyFile(1, [{ dtype: 'float64', values: [1, 2] }]), 422, 'layout-dtype'],
  [
    'a dtype without a mean',
    toyFile(1, [{ dtype: 'void16', values: [1, 2] }]),
    422,
    'aggregate-dtype-unsupported',
  ],
  ['NaN', toyFile(1, f32(1, 'NaN')), 422, 'non-finite'],
  ['infinity', toyFile(1, f32('Infinity', 1)), 422, 'non-finite'],
  ['over the limit', Buffer.alloc(10_001, ' '), 413, 'upload-too-large'],
];
for (const [name, bytes, status, code] of bodies) {
  test(`body: ${name}`, async () => {
    const answer = await harness.upload<ErrorBody>(branch.leaves[1]!, bytes);
    assert.is(answer.status, status);
    isError(answer.body, code);
    await nothingHappened();
  });
}

test('a chunked body over the limit is refused on the way', async () => {
  const answer = await harness.call('PUT', paths.updates(branch.leaves[1]!.id), {
    headers: { authorization: leafToken(branch.leaves[1]!) },
    body: new Blob([Buffer.alloc(20_000)]).stream(),
    duplex: 'half',
  } as RequestInit);
  assert.is(answer.status, 413);
  isError(answer.body, 'upload-too-large');
  await nothingHappened();
});

test('the first eight non-finite elements are told', async () => {
  const values = Array.from({ length: 12 }, () => 'NaN' as const);
  const { body } = await harness.upload<ErrorBody>(branch.leaves[1]!, toyFile(1, f32(...values)));
  assert.equal(
    body.details?.non_finite,
    Array.from({ length: 8 }, (_, index) => ({ tensor: 0, index })),
  );
});

test('another update of the same leaf in the same round', async () => {
  const answer = await harness.upload<ErrorBody>(branch.leaves[0]!, good);
  assert.is(answer.status, 409);
  isError(answer.body, 'update-exists');
  await nothingHappened();
});

test('the same update again is the same update', async () => {
  const again = await harness.upload(branch.leaves[0]!, toyFile(5, [{ values: [1, 2] }]));
  assert.is(again.status, 201);
  assert.is(again.body.duplicate, true);
  await nothingHappened();
});

test('another round than the open one', async () => {
  for (const round of [2, 99]) {
    const answer = await harness.upload<ErrorBody>(branch.leaves[1]!, good, {}, `?round=${round}`);
    assert.is(answer.status, 409);
    isError(answer.body, 'round-closed');
    assert.equal(answer.body.details, { round: 1 });
  }
  for (const round of ['0', '-1', 'x', '1.5', '1&round=2']) {
    const answer = await harness.upload<ErrorBody>(branch.leaves[1]!, good, {}, `?round=${round}`);
    assert.is(answer.status, 400);
    isError(answer.body, 'query-invalid');
  }
  await nothingHappened();
});

test('a digest that does not fit', async () => {
  const digest = `sha-256=:${Buffer.alloc(32).toString('base64')}:`;
  const answer = await harness.upload<ErrorBody>(branch.leaves[1]!, good, { 'repr-digest': digest });
  assert.is(answer.status, 400);
  isError(answer.body, 'digest-mismatch');
  const odd = await harness.upload<ErrorBody>(branch.leaves[1]!, good, { 'repr-digest': 'sha-256=abc' });
  assert.is(odd.status, 400);
  isError(odd.body, 'digest-invalid');
  await nothingHappened();
});

test('a full disk', async () => {
  isDiskFull = true;
  const answer = await harness.upload<ErrorBody>(branch.leaves[1]!, padded(good));
  isDiskFull = false;
  assert.is(answer.status, 507);
  isError(answer.body, 'disk-full');
  await nothingHappened();
});

test('credentials that are wrong, missing or somebody else’s', async () => {
  const [leaf, other] = [branch.leaves[1]!, branch.leaves[2]!];
  const nobody = '11111111-2222-4333-8444-555555555555';
  const put = (authorization: string | undefined, id = leaf.id) =>
    harness.call('PUT', paths.updates(id), {
      headers: authorization === undefined ? {} : { authorization },
      body: good as Uint8Array<ArrayBuffer>,
    });
  const cases: [string | undefined, number, string][] = [
    [undefined, 401, 'credentials-missing'],
    ['Bearer', 401, 'credentials-missing'],
    [
      `Basic ${Buffer.from(`${leaf.id}:${leaf.session_token}`).toString('base64')}`,
      401,
      'credentials-missing',
    ],
    [`Bearer ${leaf.id}:${other.session_token}`, 401, 'token-invalid'],
    [`Bearer ${leaf.id}:`, 401, 'token-invalid'],
    [`Bearer ${nobody}:${leaf.session_token}`, 404, 'leaf-unknown'],
    [`Bearer ../../etc:${leaf.session_token}`, 404, 'leaf-unknown'],
    [leafToken(other), 403, 'leaf-other'],
    [`Bearer ${harness.operator.token}`, 403, 'leaf-required'],
  ];
  for (const [authorization, status, code] of cases) {
    const answer = await put(authorization);
    assert.is(answer.status, status, authorization ?? 'none');
    isError(answer.body, code);
  }
  const odd = await put(leafToken(leaf), leaf.id.toUpperCase());
  assert.is(odd.status, 404);
  isError(odd.body, 'leaf-unknown');
  await nothingHappened();
});

test('a leaf that is revoked, a run that is paused while the update is examined', async () => {
  const other = await new Harness().start();
  const { id, leaves } = await other.branch(3);
  const { examine } = other.jobs;
  const change = async (
    work: () => Promise<unknown>,
    leaf: CredentialsBody,
    status: number,
    code: string,
  ) => {
    other.jobs.examine = async (...args) => {
      await work();
      return examine.apply(other.jobs, args);
    };
    const answer = await other.upload<ErrorBody>(leaf, good);
    assert.is(answer.status, status);
    isError(answer.body, code);
    assert.equal(await other.stored(), { spool: [], blobs: [] });
  };
  await change(() => other.operate('DELETE', paths.leaf(leaves[0]!.id)), leaves[0]!, 401, 'token-revoked');
  await change(() => other.run(id, 'pause'), leaves[1]!, 409, 'run-paused');
  await other.run(id, 'start');
  await change(() => other.run(id, 'stop'), leaves[1]!, 409, 'run-stopped');
  await other.end();
});

test('a content encoding', async () => {
  const answer = await harness.upload<ErrorBody>(branch.leaves[1]!, good, { 'content-encoding': 'gzip' });
  assert.is(answer.status, 422);
  isError(answer.body, 'encoding-unsupported');
});

test('a paused run, then a stopped one, then none', async () => {
  await harness.run(branch.id, 'pause');
  const paused = await harness.upload<ErrorBody>(branch.leaves[1]!, good);
  assert.is(paused.status, 409);
  isError(paused.body, 'run-paused');
  await nothingHappened();
  await harness.run(branch.id, 'start');
  await harness.run(branch.id, 'stop');
  const stopped = await harness.upload<ErrorBody>(branch.leaves[1]!, good);
  assert.is(stopped.status, 409);
  isError(stopped.body, 'run-stopped');
  assert.equal(await harness.stored(), { spool: [], blobs: [] }); // the stop discarded the round
});

test('a revoked leaf', async () => {
  const leaf = branch.leaves[3]!;
  const gone = await harness.operate('DELETE', paths.leaf(leaf.id));
  assert.is(gone.status, 204);
  const answer = await harness.upload<ErrorBody>(leaf, good);
  assert.is(answer.status, 401);
  isError(answer.body, 'token-revoked');
});

test('no token and no link was logged', () => {
  const lines = JSON.stringify(harness.log.lines);
  assert.ok(harness.log.lines.length > 10);
  for (const secret of [harness.operator.token, ...branch.leaves.map((leaf) => leaf.session_token)]) {
    assert.not.ok(lines.includes(secret));
  }
  assert.not.match(lines, /signature=|unexpected error/);
});

test.run();
