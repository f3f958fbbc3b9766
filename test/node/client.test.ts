import { createReadStream } from 'node:fs';
import { mkdir, mkdtemp, open, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { placeOf } from '../../src/client/download.ts';
import { encodeUpdate } from '../../src/client/weights.ts';
import { FileError } from '../../src/errors.ts';
import { encodeWeights } from '../../src/formats/encode.ts';
import { Client } from '../../src/node/client.ts';
import { openPartialSink } from '../../src/node/partial-files.ts';
import { readCredentials } from '../../src/node/read-credentials.ts';
import { tensorOf } from '../../src/tensor/tensor.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { HastyClock } from '../helpers/clock.ts';
import { failsWith } from '../helpers/errors.ts';
import { aggregationId, LEAF_ID, LeafServer, sha256Of } from '../helpers/leaf-server.ts';
import { answer, refuse } from '../helpers/loopback.ts';

const A = aggregationId(1);

/** Runs `work` with a server, a client for it and an empty folder. */
async function withClient(
  work: (client: Client, server: LeafServer, folder: string) => Promise<void>,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'cambium-client-'));
  const server = await LeafServer.start();
  const client = new Client(server.credentials, { clock: new HastyClock(), random: () => 0 });
  try {
    await work(client, server, folder);
  } finally {
    await client.close();
    await server.close();
    await rm(folder, { recursive: true });
  }
}

function updateBytes(elements = 4): Promise<Uint8Array> {
  const tensors = [tensorOf(Float32Array.from({ length: elements }, (_, i) => i / 3))];
  return encodeUpdate({ weighting: 3, tensors });
}

test('uploads a file block by block, and goes on after a cut', () =>
  withClient(async (client, server, folder) => {
    const path = join(folder, 'update.npy');
    const bytes = await updateBytes(1_000_000);
    await writeFile(path, bytes);
    let blocks = 0;
    server.overrides['/uploads/'] = (request, response) => {
      if (++blocks !== 2) return false;
      request.once('data', () => response.destroy());
      return true;
    };
    const done: number[] = [];
    const receipt = await client.fileUpload(path, { onProgress: ({ bytesDone }) => done.push(bytesDone) });
    assert.is(receipt.sha256, sha256Of(bytes));
    sameBytes(server.uploads[0]!.bytes, bytes);
    const MiB = 2 ** 20;
    // Requests grow, and begin small again after the cut.
    assert.equal(server.blocks, [MiB, MiB, bytes.byteLength - 2 * MiB]);
    assert.is(done[0], 0);
    assert.is(done.at(-1), bytes.byteLength);
    assert.is(
      done.filter((each, i) => each < (done[i - 1] ?? 0)).length,
      1,
      'back to what the server has, once',
    );
  }));

test('a line on which nothing comes through is given up, and the next call goes on', () =>
  withClient(async (client, server, folder) => {
    const path = join(folder, 'update.npy');
    const bytes = await updateBytes(1_000_000);
    await writeFile(path, bytes);
    server.overrides['/uploads/'] = (request, response) => {
      if (request.headers['upload-offset'] === '0') return false;
      response.destroy();
      return true;
    };
    await failsWith('unavailable-server', () => client.fileUpload(path));
    server.overrides = {};
    server.blocks.length = 0;
    const again = new Client(server.credentials, { clock: new HastyClock() });
    await again.fileUpload(path);
    await again.close();
    sameBytes(server.uploads[0]!.bytes, bytes);
    assert.is(
      server.blocks.reduce((sum, each) => sum + each, 0),
      bytes.byteLength - 2 ** 20,
    );
  }));

test('a download goes on after a cut, after the call and after its process', () =>
  withClient(async (client, server, folder) => {
    const bytes = Buffer.from(await updateBytes(1_000_000));
    server.aggregations.set(A, bytes);
    const to = join(folder, 'model.npy');
    await writeFile(to, 'old');
    // The link gives half of what is missing and breaks off.
    const cutInHalf: (typeof server.overrides)[string] = (request, response) => {
      const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
      asked.push(from);
      response.writeHead(from === 0 ? 200 : 206, {
        'content-length': bytes.byteLength - from,
        ...(from > 0 && { 'content-range': `bytes ${from}-${bytes.byteLength - 1}/${bytes.byteLength}` }),
      });
      const half = bytes.subarray(from, from + Math.ceil((bytes.byteLength - from) / 2));
      response.write(half, () => response.destroy());
      return true;
    };
    const asked: number[] = [];
    const controller = new AbortController();
    server.overrides['/files/'] = (request, response) => {
      if (asked.length === 3) controller.abort('enough');
      return cutInHalf(request, response);
    };
    const { signal } = controller;
    assert.is(await client.fileDownload(A, { to, signal }).catch((reason: unknown) => reason), 'enough');
    assert.equal(asked.slice(0, 2), [0, Math.ceil(bytes.byteLength / 2)]);
    assert.is((await readFile(to)).toString(), 'old');
    const [part] = (await readdir(folder)).filter((name) => name.endsWith('.part'));
    // As a process that was killed leaves it.
    await rename(join(folder, part!), join(folder, part!.replace(/-\d+-\d+\.part$/, '-4194999-7.part')));
    server.overrides = {};
    server.sent.length = 0;
    const download = await client.fileDownload(A, { to });
    assert.is(download.sha256, sha256Of(bytes));
    sameBytes(await readFile(to), bytes);
    assert.ok(server.sent[0]! <= bytes.byteLength / 4, `${server.sent} bytes sent again`);
    assert.equal(await readdir(folder), ['model.npy']);
  }));

test('what is left of another download is no beginning, and a wrong beginning is found out', () =>
  withClient(async (client, server, folder) => {
    const bytes = Buffer.from(await updateBytes(1_000_000));
    server.aggregations.set(A, bytes);
    const to = join(folder, 'model.npy');
    const wrongBeginning = async () => {
      const sink = await openPartialSink(to, sha256Of(bytes));
      await sink.write(0, new Uint8Array(2 ** 21));
      await sink.keep(2 ** 21);
    };
    const other = await openPartialSink(to, '0'.repeat(64));
    await other.write(0, new Uint8Array(2 ** 21));
    await other.keep(2 ** 21);
    await client.fileDownload(A, { to });
    assert.equal(server.sent, [bytes.byteLength]);
    await wrongBeginning();
    await client.fileDownload(A, { to });
    assert.equal(server.sent, [bytes.byteLength, bytes.byteLength - 2 ** 21, bytes.byteLength]);
    sameBytes(await readFile(to), bytes);
  }));

test('two downloads of the same to the same place do not disturb each other', () =>
  withClient(async (client, server, folder) => {
    const bytes = Buffer.from(await updateBytes(1_000_000));
    server.aggregations.set(A, bytes);
    const to = join(folder, 'model.npy');
    await Promise.all([client.fileDownload(A, { to }), client.fileDownload(A, { to })]);
    sameBytes(await readFile(to), bytes);
    assert.equal(await readdir(folder), ['model.npy']);
  }));

test('files that cannot be uploaded', () =>
  withClient(async (client, server, folder) => {
    await failsWith('file-not-found', () => client.fileUpload(join(folder, 'none.npy')));
    await failsWith('file-not-found', () => client.fileUpload('~/none.npy'));
    await failsWith('file-is-folder', () => client.fileUpload(folder));
    const path = join(folder, 'page.npy');
    await writeFile(path, '<html>');
    const error = await client.fileUpload(path).catch((reason: unknown) => reason);
    assert.is((error as Error).name, 'FormatError');
    assert.equal(server.requests, []);
  }));

test('a file that shrinks while it is sent ends the upload', () =>
  withClient(async (client, server, folder) => {
    const path = join(folder, 'update.npy');
    await writeFile(path, await updateBytes(2_000_000));
    // The run is asked for when the file has been checked and digested, and not yet sent.
    server.overrides['/branches/'] = (_, response) => {
      const run = { run_status: 'start', run_number: 1, round: 1, updates: 0, aggregation_target: 1 };
      void truncate(path, 1000).then(() => answer(response, 200, run));
      return true;
    };
    await failsWith('unavailable-source', () => client.fileUpload(path));
    assert.is(server.uploads.length, 0);
  }));

test('downloads into a file, which replaces the old one', () =>
  withClient(async (client, server, folder) => {
    const bytes = Buffer.from(await updateBytes(200_000));
    server.aggregations.set(A, bytes);
    const to = join(folder, 'model.npy');
    await writeFile(to, 'old');
    const done: number[] = [];
    const download = await client.fileDownload(A, {
      to,
      onProgress: ({ bytesDone }) => done.push(bytesDone),
    });
    assert.is(download.path, to);
    assert.is(download.sha256, sha256Of(bytes));
    assert.is(download.layout.tensors[0]?.byteLength, 800_000);
    sameBytes(await readFile(to), bytes);
    assert.equal(await readdir(folder), ['model.npy']);
    assert.is(done.at(-1), bytes.byteLength);
  }));

test('downloads into a folder, under the name of the aggregation', () =>
  withClient(async (client, server, folder) => {
    server.aggregations.set(A, Buffer.from(await updateBytes()));
    for (const given of [folder, `${folder}/`]) {
      const { path } = await client.fileDownload(A, { folder: given });
      assert.is(path, join(folder, `${A}.npy`));
    }
    assert.equal(await readdir(folder), [`${A}.npy`]);
    const both = client.fileDownload(A, { folder, to: join(folder, 'x') });
    assert.ok((await both.catch((reason: unknown) => reason)) instanceof TypeError);
  }));

const PLACES: readonly [id: string, generation: 'basic' | 'bearer', name: string | null][] = [
  ['7', 'basic', '7.npy'],
  ['a/../b', 'bearer', 'a%2F..%2Fb.npz'],
  ['..', 'basic', null],
  ['x'.repeat(300), 'basic', null],
];

test('ids of other services cannot lead out of the folder', () => {
  for (const [id, generation, name] of PLACES) {
    const place = () => placeOf(id, { folder: 'models' }, generation);
    if (name === null) assert.throws(place, (reason: unknown) => reason instanceof TypeError);
    else assert.is(place(), `models/${name}`);
  }
});

test('a failed download leaves the old file and nothing else', () =>
  withClient(async (client, server, folder) => {
    const bytes = Buffer.from(await updateBytes(200_000));
    server.aggregations.set(A, bytes);
    const to = join(folder, 'model.npy');
    await writeFile(to, 'old');
    const changed = Buffer.from(bytes);
    changed[changed.length - 1]! ^= 1;
    const bodies: readonly [code: string, body: Buffer][] = [
      ['protocol-digest', changed],
      ['protocol-length', bytes.subarray(0, -1)],
      ['protocol-length', Buffer.concat([bytes, bytes])],
    ];
    for (const [code, body] of bodies) {
      server.overrides['/files/'] = (_, response) => {
        response.end(body);
        return true;
      };
      await failsWith(code, () => client.fileDownload(A, { to }));
      assert.equal(await readdir(folder), ['model.npy'], code);
      assert.is(await readFile(to, 'utf8'), 'old');
    }
    server.overrides = {};
    server.aggregations.set(A, Buffer.from('<Error>NoSuchKey</Error>'));
    const error = await client.fileDownload(A, { to }).catch((reason: unknown) => reason);
    assert.is((error as Error).name, 'FormatError');
    assert.equal(await readdir(folder), ['model.npy']);
    assert.is(await readFile(to, 'utf8'), 'old');
  }));

test('bytes that a line changed once come again, and the file is right', () =>
  withClient(async (client, server, folder) => {
    const bytes = Buffer.from(await updateBytes(200_000));
    server.aggregations.set(A, bytes);
    const changed = Buffer.from(bytes);
    changed[changed.length >> 1]! ^= 1;
    let answers = 0;
    server.overrides['/files/'] = (_, response) => {
      if (answers++ > 0) return false;
      response.end(changed);
      return true;
    };
    const to = join(folder, 'model.npy');
    const { sha256 } = await client.fileDownload(A, { to });
    assert.is(answers, 2);
    assert.is(sha256, sha256Of(bytes));
    assert.is(sha256Of(await readFile(to)), sha256);
  }));

for (const code of ['digest-mismatch', 'block-too-large', 'frame-invalid']) {
  test(`${code}: what a line has made of a frame is sent again`, () =>
    withClient(async (client, server, folder) => {
      const path = join(folder, 'update.npy');
      const bytes = Buffer.from(await updateBytes(400_000));
      await writeFile(path, bytes);
      let asked = 0;
      server.overrides['/uploads/'] = (request, response) => {
        if (asked++ > 0) return false;
        request.resume().once('end', () => refuse(response, 400, code));
        return true;
      };
      assert.is((await client.fileUpload(path)).sha256, sha256Of(bytes));
      assert.ok(server.uploads[0]?.bytes.equals(bytes));
    }));
}

test('an aborted download leaves nothing', () =>
  withClient(async (client, server, folder) => {
    const bytes = Buffer.from(await updateBytes(200_000));
    server.aggregations.set(A, bytes);
    server.overrides['/files/'] = (_, response) => {
      response.writeHead(200, { 'content-length': bytes.byteLength });
      response.write(bytes.subarray(0, 100_000));
      return true;
    };
    const controller = new AbortController();
    const download = client.fileDownload(A, {
      to: join(folder, 'model.npy'),
      signal: controller.signal,
      onProgress: ({ bytesDone }) => {
        if (bytesDone > 0) controller.abort('enough');
      },
    });
    assert.is(await download.catch((reason: unknown) => reason), 'enough');
    assert.equal(await readdir(folder), []);
  }));

test('places that cannot be written', () =>
  withClient(async (client, server, folder) => {
    server.aggregations.set(A, Buffer.from(await updateBytes()));
    const missing = join(folder, 'none', 'model.npy');
    assert.ok(
      (await failsWith('file-not-found', () => client.fileDownload(A, { to: missing }))) instanceof FileError,
    );
    const taken = join(folder, 'folder');
    await mkdir(taken);
    await failsWith('file-is-folder', () => client.fileDownload(A, { to: taken }));
    assert.equal(await readdir(folder), ['folder']);
  }));

test('256 MiB go up and come down in constant memory', () =>
  withClient(async (client, server, folder) => {
    // A sparse file: the header of a large array, and zeros that take no room on the disk.
    const elements = 64 << 20;
    const path = join(folder, 'large.npy');
    const length = await writeLargeUpdate(path, elements);

    // How far a sender is ahead of its receiver: what lies in memory and in the sockets of both ends.
    let ahead = 0;
    const residentBefore = process.memoryUsage().rss;
    let resident = 0;
    const look = (sent: number, received: number) => {
      ahead = Math.max(ahead, sent - received);
      resident = Math.max(resident, process.memoryUsage().rss - residentBefore);
    };
    let received = 0;
    let sha256 = '';
    server.overrides[`/leaves/${LEAF_ID}/updates`] = (_, response) => {
      response.writeHead(201, { location: '/uploads/1', 'upload-complete': '?0', 'upload-offset': 0 }).end();
      return true;
    };
    server.overrides['/uploads/'] = (request, response) => {
      request.on('data', (chunk: Buffer) => {
        received += chunk.byteLength;
      });
      request.once('end', () => {
        if (request.headers['upload-complete'] === '?0') {
          const sent = Number(request.headers['content-length']);
          const heads = 36 * Math.ceil(sent / (36 + (256 << 10)));
          received -= heads;
          response
            .writeHead(204, { 'upload-offset': Number(request.headers['upload-offset']) + sent - heads })
            .end();
          return;
        }
        const header = String(request.headers['repr-digest']);
        sha256 = Buffer.from(header.slice('sha-256=:'.length, -1), 'base64').toString('hex');
        answer(response, 201, { file_id: 'f', run_number: 1, round: 1, weighting: 3, sha256 });
      });
      return true;
    };
    await client.fileUpload(path, { onProgress: ({ bytesDone }) => look(bytesDone, received) });
    assert.is(received, length);

    server.overrides['/aggregations/'] = (_, response) => {
      answer(response, 200, {
        aggregation_id: A,
        branch_id: 'b',
        run_number: 1,
        round: 1,
        leaves: 1,
        total_weighting: 3,
        byte_length: length,
        sha256,
        created_at: 0,
        download_url: `${server.url}/cambium/v1/files/${A}`,
      });
      return true;
    };
    server.overrides['/files/'] = (_, response) => {
      const file = createReadStream(path);
      file.on('data', (chunk) => {
        sent += chunk.length;
      });
      file.pipe(response);
      return true;
    };
    let sent = 0;
    const to = join(folder, 'copy.npy');
    await client.fileDownload(A, { to, onProgress: ({ bytesDone }) => look(sent, bytesDone) });
    assert.is(sent, length);
    console.log(
      `      at most ${ahead / 2 ** 20} MiB under way, resident memory grew by ${resident >> 20} MiB`,
    );
    assert.ok(ahead < 32 << 20, `${ahead} bytes under way: the file is kept in memory`);
  }));

/** An update of one array of zeros; answers its length. */
async function writeLargeUpdate(path: string, elements: number): Promise<number> {
  const { byteLength, literals } = await encodeWeights({
    format: 'npy-object',
    weighting: 3,
    tensors: [{ name: null, dtype: 'float32', shape: [elements] }],
  });
  const handle = await open(path, 'w');
  try {
    for (const { offset, bytes } of literals) await handle.write(bytes, 0, bytes.byteLength, offset);
    await handle.truncate(byteLength);
  } finally {
    await handle.close();
  }
  return byteLength;
}

test('reads credentials files; errors name the path and never the token', () =>
  withClient(async (_, server, folder) => {
    const path = join(folder, 'leaf.json');
    await writeFile(path, JSON.stringify(server.credentials));
    assert.equal(await readCredentials(path), server.credentials);
    const table: readonly [content: string, code: string][] = [
      ['{"session_token": "secret"', 'credentials-invalid'],
      ['null', 'credentials-invalid'],
      ['{"session_token": "secret"}', 'credentials-missing'],
    ];
    for (const [content, code] of table) {
      await writeFile(path, content);
      const error = await failsWith(code, () => readCredentials(path));
      assert.ok(error.message.includes(path));
      assert.not.match(`${error.message} ${error.cause}`, /secret/);
    }
    await failsWith('file-not-found', () => readCredentials(join(folder, 'none.json')));
  }));

test.run();
