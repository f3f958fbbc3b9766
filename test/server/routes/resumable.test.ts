import { createHash } from 'node:crypto';
import { open, readdir, truncate, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { CredentialsBody, ErrorBody, UploadBody } from '../../../src/wire/cambium.ts';
import { MAX_BLOCK_BYTES, paths } from '../../../src/wire/cambium.ts';
import { type Answer, Harness, leafToken, toyFile } from '../harness.ts';

const test = suite('resumable uploads');

const FILE = toyFile(3, [{ values: Array.from({ length: 500 }, (_, i) => i / 7) }]);
const HALF = FILE.byteLength >> 1;

function digestHeader(bytes: Uint8Array): string {
  return `sha-256=:${createHash('sha256').update(bytes).digest('base64')}:`;
}

function begin(
  harness: Harness,
  leaf: CredentialsBody,
  bytes: Uint8Array = FILE,
  headers: Record<string, string> = {},
  query = '',
): Promise<Answer<UploadBody & ErrorBody>> {
  return harness.call('PUT', paths.updates(leaf.id) + query, {
    headers: {
      authorization: leafToken(leaf),
      'upload-complete': '?0',
      'upload-length': String(bytes.byteLength),
      'repr-digest': digestHeader(bytes),
      ...headers,
    },
  });
}

function append(
  harness: Harness,
  leaf: CredentialsBody,
  location: string,
  offset: number,
  block: Uint8Array,
  isLast: boolean,
  headers: Record<string, string> = {},
): Promise<Answer<UploadBody & ErrorBody>> {
  return harness.call('PATCH', location, {
    headers: {
      authorization: leafToken(leaf),
      'upload-offset': String(offset),
      'upload-complete': isLast ? '?1' : '?0',
      'content-digest': digestHeader(block),
      ...headers,
    },
    body: block as Uint8Array<ArrayBuffer>, // a Buffer, which fetch takes
  });
}

function offsetOf(answer: Answer<unknown>): number {
  return Number(answer.headers.get('upload-offset') ?? Number.NaN);
}

async function withBranch(
  target: number,
  work: (harness: Harness, leaves: CredentialsBody[], branch: string) => Promise<void>,
): Promise<void> {
  const harness = await new Harness().start();
  try {
    const { id, leaves } = await harness.branch(target);
    await work(harness, leaves, id);
  } finally {
    await harness.end();
  }
}

const leftovers = (harness: Harness) => readdir(join(harness.dataDir, 'uploads'));

test('blocks become an update, whose receipt can be had again', () =>
  withBranch(2, async (harness, [leaf]) => {
    const begun = await begin(harness, leaf!);
    assert.is(begun.status, 201);
    assert.is(offsetOf(begun), 0);
    assert.is(begun.headers.get('upload-limit'), `max-append-size=${MAX_BLOCK_BYTES}`);
    const location = begun.headers.get('location')!;
    const first = await append(harness, leaf!, location, 0, FILE.subarray(0, HALF), false);
    assert.is(first.status, 204);
    assert.is(offsetOf(first), HALF);
    const last = await append(harness, leaf!, location, HALF, FILE.subarray(HALF), true);
    assert.is(last.status, 201);
    assert.is(last.body.sha256, createHash('sha256').update(FILE).digest('hex'));
    assert.is(last.body.duplicate, false);
    assert.equal(await leftovers(harness), []);
    assert.is(
      (await append(harness, leaf!, location, HALF, FILE.subarray(HALF), true)).body.code,
      'upload-unknown',
    );
    const again = await begin(harness, leaf!);
    assert.is(again.headers.get('upload-complete'), '?1');
    assert.equal(again.body, { ...last.body, duplicate: true });
    const { body } = await harness.operate<{ updates: number }>('GET', paths.run(leaf!.branch_id));
    assert.is(body.updates, 1);
  }));

test('an upload that cannot be brought to the disk is begun anew, and is accepted once there is room', async () => {
  let isFull = true;
  const openFile = async (...args: Parameters<typeof open>) => {
    const handle = await open(...args);
    const { datasync } = handle;
    handle.datasync = async () => {
      if (isFull) throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
      return datasync.call(handle);
    };
    return handle;
  };
  const harness = await new Harness().start({ spool: { openFile } });
  try {
    const [leaf] = (await harness.branch(2)).leaves;
    const send = async () => {
      const begun = await begin(harness, leaf!);
      assert.is(offsetOf(begun), 0);
      return append(harness, leaf!, begun.headers.get('location')!, 0, FILE, true);
    };
    const refused = await send();
    assert.equal([refused.status, refused.body.code], [507, 'disk-full']);
    assert.equal(await leftovers(harness), []);
    isFull = false;
    assert.is((await send()).status, 201);
  } finally {
    await harness.end();
  }
});

test('goes on after the server was started anew, and after its begin was lost', async () => {
  const harness = await new Harness().start();
  const { leaves } = await harness.branch(2);
  const leaf = leaves[0]!;
  const location = (await begin(harness, leaf)).headers.get('location')!;
  await append(harness, leaf, location, 0, FILE.subarray(0, HALF), false);
  await harness.server.close();
  await harness.start();
  const found = await begin(harness, leaf);
  assert.is(found.headers.get('location'), location);
  assert.is(offsetOf(found), HALF);
  const head = await harness.call('HEAD', location, { headers: { authorization: leafToken(leaf) } });
  assert.equal(
    [head.status, offsetOf(head), head.headers.get('upload-length')],
    [204, HALF, String(FILE.byteLength)],
  );
  const last = await append(harness, leaf, location, HALF, FILE.subarray(HALF), true);
  assert.is(last.status, 201);
  await harness.end();
});

test('what lies in the folder and is no upload is removed; a file that lost its end goes on from there', async () => {
  const harness = await new Harness().start();
  const { leaves } = await harness.branch(2);
  const leaf = leaves[0]!;
  const location = (await begin(harness, leaf)).headers.get('location')!;
  await append(harness, leaf, location, 0, FILE.subarray(0, HALF), false);
  await harness.server.close();
  const folder = join(harness.dataDir, 'uploads');
  const part = (await readdir(folder)).find((name) => name.endsWith('.part'))!;
  await truncate(join(folder, part), 100);
  for (const [name, text] of [
    ['a.part', 'x'],
    ['b.json', '{"leafId":'],
    ['b.part', 'x'],
    ['c.json', '{"byteLength":0}'],
  ] as const) {
    await writeFile(join(folder, name), text);
  }
  await harness.start();
  assert.is((await readdir(folder)).length, 2);
  assert.is(offsetOf(await begin(harness, leaf)), 100);
  assert.is((await append(harness, leaf, location, 100, FILE.subarray(100), true)).status, 201);
  await harness.end();
});

test('a block counts whole, right and once', () =>
  withBranch(2, async (harness, [leaf, other]) => {
    const location = (await begin(harness, leaf!)).headers.get('location')!;
    const block = FILE.subarray(0, HALF);
    const spoiled = await append(harness, leaf!, location, 0, block, false, {
      'content-digest': digestHeader(FILE),
    });
    assert.equal([spoiled.status, spoiled.body.code], [400, 'digest-mismatch']);
    const ahead = await append(harness, leaf!, location, 7, block, false);
    assert.equal([ahead.status, ahead.body.code, offsetOf(ahead)], [409, 'upload-offset', 0]);
    const two = await Promise.all([0, 1].map(() => append(harness, leaf!, location, 0, block, false)));
    assert.equal(two.map(({ status }) => status).sort(), [204, 409]);
    assert.ok(two.every((answer) => offsetOf(answer) === HALF));
    const stranger = await append(harness, other!, location, HALF, block, false);
    assert.equal([stranger.status, stranger.body.code], [404, 'upload-unknown']);
    const longer = await append(harness, leaf!, location, HALF, FILE, false);
    assert.equal([longer.status, longer.body.code], [422, 'upload-length']);
    const early = await append(harness, leaf!, location, HALF, FILE.subarray(HALF, HALF + 1), true);
    assert.equal([early.status, early.body.code], [422, 'upload-length']);
    const large = await append(harness, leaf!, location, HALF + 1, Buffer.alloc(MAX_BLOCK_BYTES + 1), false);
    assert.equal([large.status, large.body.code], [413, 'block-too-large']);
    assert.is((await append(harness, leaf!, location, HALF + 1, FILE.subarray(HALF + 1), true)).status, 201);
  }));

test('without a digest: what is there is told, and the last request names the whole', () =>
  withBranch(2, async (harness, [leaf]) => {
    const nameless = async () => {
      const headers = {
        authorization: leafToken(leaf!),
        'upload-complete': '?0',
        'upload-length': String(FILE.byteLength),
      };
      return harness.call<UploadBody & ErrorBody>('PUT', paths.updates(leaf!.id), { headers });
    };
    const begun = await nameless();
    assert.equal([begun.status, offsetOf(begun), begun.headers.get('upload-digest')], [201, 0, null]);
    const location = begun.headers.get('location')!;
    await append(harness, leaf!, location, 0, FILE.subarray(0, HALF), false);
    const found = await nameless();
    assert.is(found.headers.get('location'), location);
    assert.is(found.headers.get('upload-digest'), digestHeader(FILE.subarray(0, HALF)));
    await append(harness, leaf!, location, HALF, FILE.subarray(HALF), false);
    const end = FILE.subarray(FILE.byteLength);
    const unnamed = await append(harness, leaf!, location, FILE.byteLength, end, true);
    assert.is(unnamed.body.code, 'digest-missing');
    const named = { 'repr-digest': digestHeader(FILE) };
    assert.is((await append(harness, leaf!, location, FILE.byteLength, end, true, named)).status, 201);
    assert.is((await nameless()).body.code, 'update-exists');
  }));

test('headers that say nothing are refused', () =>
  withBranch(2, async (harness, [leaf]) => {
    const table: readonly [headers: Record<string, string>, code: string][] = [
      [{ 'upload-length': 'many' }, 'upload-header'],
      [{ 'upload-length': '-1' }, 'upload-header'],
      [{ 'upload-length': String(2 ** 40) }, 'upload-too-large'],
      [{ 'repr-digest': 'md5=:x:' }, 'digest-missing'],
      [{ 'repr-digest': 'sha-256=:x:' }, 'digest-invalid'],
    ];
    for (const [headers, code] of table) {
      assert.is((await begin(harness, leaf!, FILE, headers)).body.code, code);
    }
    const location = (await begin(harness, leaf!)).headers.get('location')!;
    for (const headers of [{ 'upload-offset': '1e3' }, { 'upload-complete': 'yes' }]) {
      assert.is((await append(harness, leaf!, location, 0, FILE, true, headers)).body.code, 'upload-header');
    }
  }));

test('of a cut block without a digest what arrived counts, of one with a digest nothing', () =>
  withBranch(2, async (harness, [leaf]) => {
    const location = (await begin(harness, leaf!)).headers.get('location')!;
    const cut = async (headers: string) => {
      const { hostname, port } = new URL(harness.server.url);
      const socket = connect(Number(port), hostname);
      const answered = new Promise((resolve) => socket.once('close', resolve));
      socket.on('data', () => socket.destroy());
      socket.write(
        `PATCH ${location} HTTP/1.1\r\nHost: x\r\nAuthorization: ${leafToken(leaf!)}\r\nUpload-Offset: 0\r\n` +
          `Upload-Complete: ?0\r\n${headers}Content-Length: ${HALF}\r\n\r\n`,
      );
      // A sender that closes its half hears what became of it, so the test need not wait by the clock.
      socket.end(FILE.subarray(0, 100));
      await answered;
    };
    await cut(`Content-Digest: ${digestHeader(FILE.subarray(0, HALF))}\r\n`);
    assert.is(offsetOf(await begin(harness, leaf!)), 0);
    await cut('');
    // The server may hear of the cut after we do.
    let offset = 0;
    while (offset === 0) offset = offsetOf(await begin(harness, leaf!));
    assert.is(offset, 100);
  }));

test('a pause keeps the bytes, and the upload ends when the run goes on', () =>
  withBranch(2, async (harness, [leaf], branch) => {
    const location = (await begin(harness, leaf!)).headers.get('location')!;
    await append(harness, leaf!, location, 0, FILE.subarray(0, HALF), false);
    await harness.run(branch, 'pause');
    assert.is((await begin(harness, leaf!)).body.code, 'run-paused');
    assert.is(
      (await append(harness, leaf!, location, HALF, FILE.subarray(HALF), true)).body.code,
      'run-paused',
    );
    await harness.run(branch, 'start');
    const standing = await begin(harness, leaf!);
    assert.is(offsetOf(standing), FILE.byteLength);
    assert.is((await append(harness, leaf!, location, FILE.byteLength, Buffer.alloc(0), true)).status, 201);
  }));

test('an upload that is refused leaves nothing', () =>
  withBranch(2, async (harness, [leaf]) => {
    const table: readonly [bytes: Buffer, digestOf: Buffer, code: string][] = [
      [Buffer.from('<html>'), Buffer.from('<html>'), 'format-unknown'],
      [toyFile(0), toyFile(0), 'weighting-zero'],
      [FILE, toyFile(1), 'digest-mismatch'],
    ];
    for (const [bytes, digested, code] of table) {
      const begun = await begin(harness, leaf!, bytes, { 'repr-digest': digestHeader(digested) });
      const answer = await append(harness, leaf!, begun.headers.get('location')!, 0, bytes, true);
      assert.is(answer.body.code, code);
      assert.equal(await leftovers(harness), []);
    }
    assert.equal(await harness.stored(), { spool: [], blobs: [] });
    const another = (await begin(harness, leaf!)).headers.get('location')!;
    const init = { headers: { authorization: leafToken(leaf!) } };
    assert.is((await harness.call('DELETE', another, init)).status, 204);
    assert.is((await harness.call('DELETE', another, init)).status, 404);
    assert.equal(await leftovers(harness), []);
  }));

test('uploads that nobody goes on with are given up, after a day or behind the newest four', () =>
  withBranch(2, async (harness, [leaf, other]) => {
    const files = Array.from({ length: 6 }, (_, i) => toyFile(i + 1));
    for (const file of files) {
      await begin(harness, leaf!, file);
      harness.now += 1000;
    }
    assert.is((await leftovers(harness)).length, 8);
    harness.now += 24 * 3600_000;
    await begin(harness, other!);
    assert.is((await leftovers(harness)).length, 2);
  }));

test.run();
