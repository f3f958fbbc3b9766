// The older generations, against our server and against small ones that misbehave.
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Credentials } from '../../src/client/credentials.ts';
import type { Generation } from '../../src/client/dialect.ts';
import type { ClientOptions, UpdateOptions } from '../../src/client/options.ts';
import { encodeUpdate } from '../../src/client/weights.ts';
import { Client } from '../../src/node/client.ts';
import { startJobs } from '../../src/node/workers.ts';
import { type ModelUpdate, tensorOf } from '../../src/tensor/tensor.ts';
import { type CredentialsBody, paths, type RunBody } from '../../src/wire/cambium.ts';
import { HastyClock } from '../helpers/clock.ts';
import { failsWith } from '../helpers/errors.ts';
import { answer, bodyOf, type Handler, serve } from '../helpers/loopback.ts';
import { Harness } from '../server/harness.ts';

const test = suite('generations');

const UPDATE: ModelUpdate = {
  weighting: 3,
  tensors: [tensorOf(Float32Array.of(1, 2, 3, 4), [2, 2]), tensorOf(Float32Array.of(5))],
};

/** Credentials as the documentation of each generation prints them. */
const AS_PRINTED: readonly [
  generation: 'login' | 'basic' | 'bearer',
  of: (leaf: CredentialsBody) => Credentials,
][] = [
  [
    'login',
    ({ leaf_name, leaf_password, tree_id, branch_id }) => ({
      leaf_name,
      leaf_password,
      tree_id,
      branch_id,
      queue_password: 'x',
    }),
  ],
  [
    'basic',
    ({ leaf_name, leaf_id, leaf_session_token, response_host }) => ({
      leaf_name,
      leaf_id,
      leaf_session_token,
      response_host,
    }),
  ],
  [
    'bearer',
    ({ name, id, session_token, tree_id, branch_id, owner_id }) => ({
      name,
      id,
      session_token,
      tree_id,
      branch_id,
      owner_id,
    }),
  ],
];

for (const [generation, credentialsOf] of AS_PRINTED) {
  test(`${generation}: a round with our server`, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'cambium-generation-'));
    const jobs = startJobs({ threads: 1, workerUrl: new URL('../../dist/worker.js', import.meta.url) });
    const harness = await new Harness().start({ jobs });
    const { id: branch, leaves } = await harness.branch(1);
    const options = { connection: { server: harness.server.url }, clock: new HastyClock() };
    const client = new Client(credentialsOf(leaves[0]!), options);
    try {
      assert.is(client.generation, generation);
      await client.authenticate();
      assert.equal(
        [client.leafId, client.branchId, client.treeId, client.isAuthenticated, client.runStatus],
        [leaves[0]!.id, branch, leaves[0]!.tree_id, true, 'start'],
      );
      const receipt = await client.fileUpload(UPDATE);
      assert.equal([receipt.run, receipt.round, receipt.weighting], [null, null, 3]);
      const own = new Client(leaves[0]!);
      const aggregation = await own.queue.get();
      await own.close();
      const inMemory = await client.fileDownload(aggregation);
      assert.equal(
        inMemory.layout.tensors.map(({ shape }) => shape),
        [[2, 2], [1]],
      );
      const to = join(folder, 'model');
      const onDisk = await client.fileDownload(aggregation, { to });
      assert.is(onDisk.sha256, inMemory.sha256);
      assert.equal(await readdir(folder), ['model']);
      await client.sendPerformanceMetrics('test', { loss: 0.5 }, aggregation);
      const metrics = await harness.operate<{ items: { mode: string; data: unknown }[] }>(
        'GET',
        paths.branchMetrics(branch),
      );
      assert.equal(
        metrics.body.items.map(({ mode, data }) => [mode, data]),
        [['test', { loss: 0.5 }]],
      );
      // From a path, in the format that the generation takes, and in one that it does not take.
      const path = join(folder, 'update.npy');
      const npy = await encodeUpdate({ ...UPDATE, weighting: 4 });
      await writeFile(path, npy);
      if (generation === 'bearer') await failsWith('format-generation', () => client.fileUpload(path));
      else assert.is((await client.fileUpload(path)).weighting, 4);
      const { body } = await harness.operate<RunBody>('GET', paths.run(branch));
      assert.is(body.round, generation === 'bearer' ? 2 : 3);
    } finally {
      await client.close();
      await harness.end();
      await jobs.close();
      await rm(folder, { recursive: true });
    }
  });
}

test('credentials say what they are made for; an option overrides it', () => {
  const doc = { name: 'n', id: 'i', session_token: 't', tree_id: 'a', branch_id: 'b', owner_id: 'o' };
  const table: readonly [Credentials, ClientOptions, Generation][] = [
    [doc, {}, 'bearer'],
    [{ ...doc, server: 'http://x' }, {}, 'cambium'],
    [doc, { connection: { generation: 'cambium', server: 'http://x' } }, 'cambium'],
    [{ leaf_id: 'i', leaf_session_token: 't' }, {}, 'basic'],
    [{ leaf_name: 'n', leaf_password: 'p', tree_id: 'a', branch_id: 'b' }, {}, 'login'],
    [{ id: 'i', session_token: 't' }, { connection: { server: 'http://x' } }, 'cambium'],
  ];
  for (const [credentials, options, generation] of table) {
    assert.is(new Client(credentials, options).generation, generation);
  }
});

test('half credentials name what is missing, and no secret', async () => {
  const table: readonly [Credentials, ClientOptions, RegExp][] = [
    [{ leaf_password: 'secret', leaf_name: 'n' }, {}, /lack tree_id and branch_id/],
    [{ leaf_id: 'i' }, { connection: { generation: 'basic' } }, /session_token/],
    [{ id: 'i', session_token: 'secret' }, { connection: { generation: 'bearer' } }, /branch_id/],
  ];
  for (const [credentials, options, pattern] of table) {
    const error = await failsWith('credentials-missing', () => new Client(credentials, options));
    assert.match(error.message, pattern);
    assert.not.match(error.message, /secret/);
  }
});

/** A basic server written by hand: what `handle` does not answer is answered as it should be. */
async function withBasic(
  handle: (...args: Parameters<Handler>) => boolean | Promise<boolean>,
  work: (client: Client, requests: readonly string[], url: string) => Promise<void>,
  update?: UpdateOptions,
): Promise<void> {
  const server = await serve(async (request, response) => {
    if (await handle(request, response)) return;
    const path = request.url ?? '';
    if (path === '/v1/leaf/authenticate')
      return answer(response, 200, { data: { tree_id: 'a', branch_id: 'b', user_id: 'u' } });
    if (path === '/v1/branch/b/run')
      return answer(response, 200, { data: { run_status: 'start', run_number: 7 } });
    if (path === '/v1/file/download/x')
      return answer(response, 200, { data: { download_url: `${server.url}/file?secret` } });
    answer(response, 404, { error: 'nothing here' });
  });
  const credentials = { leaf_name: 'n', leaf_id: 'i', leaf_session_token: 't' };
  const client = new Client(credentials, {
    connection: { server: server.url },
    clock: new HastyClock(),
    random: () => 0,
    update,
  });
  try {
    await work(client, server.requests, server.url);
  } finally {
    await client.close();
    await server.close();
  }
}

test('an upload looks on the wire as that of the original client', async () => {
  const seen: {
    type?: string | undefined;
    length?: string | undefined;
    text?: string;
    auth?: string | undefined;
  } = {};
  await withBasic(
    async (request, response) => {
      if (request.url !== '/v1/file/upload') return false;
      seen.type = request.headers['content-type'];
      seen.length = request.headers['content-length'];
      seen.auth = request.headers.authorization;
      const body = await bodyOf(request);
      assert.is(String(body.byteLength), seen.length);
      seen.text = body.toString('latin1');
      answer(response, 201, { data: { file_id: 'f' } });
      return true;
    },
    async (client) => {
      assert.is((await client.fileUpload(UPDATE)).fileId, 'f');
      assert.is(seen.auth, `Basic ${Buffer.from('i:t').toString('base64')}`);
      const boundary = /boundary=(\S+)$/.exec(seen.type ?? '')?.[1] ?? 'none';
      const parts = seen.text!.split(`--${boundary}`);
      assert.is(parts.length, 4);
      assert.match(
        parts[1]!,
        /^\r\nContent-Disposition: form-data; name="data"\r\n\r\n\{"leaf_name":"n","metadata":/,
      );
      assert.match(
        parts[2]!,
        /^\r\nContent-Disposition: form-data; name="file"; filename="update\.npy"\r\n\r\n\x93NUMPY/,
      );
      assert.is(parts[3], '--\r\n');
    },
  );
});

test('what is said of an update besides is the placeholder of every client, or what was set', async () => {
  const said: unknown[] = [];
  for (const metadata of [undefined, '{"site":"north"}']) {
    await withBasic(
      async (request, response) => {
        if (request.url !== '/v1/file/upload') return false;
        const [, data] = /\r\n\r\n(.*)\r\n/.exec((await bodyOf(request)).toString('latin1')) ?? [];
        said.push((JSON.parse(data ?? '') as { metadata: unknown }).metadata);
        answer(response, 201, { data: { file_id: 'f' } });
        return true;
      },
      async (client) => void (await client.fileUpload(UPDATE)),
      { metadata },
    );
  }
  assert.equal(said, ["{'key1':'value1', 'key2':'value2'}", '{"site":"north"}']);
});

test('a server of these generations gives out no other format', () =>
  withBasic(
    () => false,
    async (client, requests) => {
      const error = await client.fileDownload('x', { format: 'npz' }).catch((reason: unknown) => reason);
      assert.instance(error, TypeError);
      assert.equal(requests, []);
    },
  ));

test('an upload whose answer is lost is not sent twice; one that was refused for a while is', async () => {
  let uploads = 0;
  let isLost = true;
  await withBasic(
    async (request, response) => {
      if (request.url !== '/v1/file/upload') return false;
      await bodyOf(request);
      uploads++;
      if (isLost) response.destroy();
      else if (uploads === 2) answer(response, 503, { error: 'busy' }, { 'retry-after': '1' });
      else answer(response, 201, { data: { file_id: 'f' } });
      return true;
    },
    async (client) => {
      await failsWith('upload-unconfirmed', () => client.fileUpload(UPDATE));
      assert.is(uploads, 1);
      isLost = false;
      await client.fileUpload(UPDATE);
      assert.is(uploads, 3);
    },
  );
});

const PAGES: readonly [name: string, status: number, type: string, body: string, code: string][] = [
  ['a 404 page', 404, 'application/xml', '<Error><Code>NoSuchKey</Code></Error>', 'protocol-download'],
  ['a page of a portal', 200, 'text/html', '<html>log in</html>', 'protocol-download'],
  ['something else', 200, 'text/plain', 'nothing that is a model', 'format-unknown'],
  ['an empty file', 200, 'application/octet-stream', '', 'format-empty'],
];

for (const [name, status, type, body, code] of PAGES) {
  test(`${name} at the download URL is no model`, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'cambium-generation-'));
    await withBasic(
      (request, response) => {
        if (!request.url?.startsWith('/file')) return false;
        assert.is(request.headers.authorization, undefined);
        response.writeHead(status, { 'content-type': type }).end(body);
        return true;
      },
      async (client) => {
        const to = join(folder, 'model.npy');
        for (const download of [() => client.fileDownload('x'), () => client.fileDownload('x', { to })]) {
          const { message } = await failsWith(code, download);
          assert.not.match(message, /secret|Cambium server/);
          if (code === 'protocol-download') {
            assert.ok(
              message.includes(`download link gave no file: answered ${status} with ${type} (${body})`),
              message,
            );
          }
        }
        assert.equal(await readdir(folder), []);
      },
    );
    await rm(folder, { recursive: true });
  });
}

test('a portal in the way of answers is named', () =>
  withBasic(
    (_, response) => {
      response.writeHead(200, { 'content-type': 'text/html' }).end('<html>log in</html>');
      return true;
    },
    async (client) => {
      const error = await failsWith('protocol-not-json', () => client.authenticate());
      assert.match(error.message, /log-in page/);
    },
  ));

test.run();
