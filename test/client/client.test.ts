import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Client } from '../../src/client/client.ts';
import type { ClientOptions } from '../../src/client/options.ts';
import type { UploadSource } from '../../src/client/upload.ts';
import { encodeUpdate } from '../../src/client/weights.ts';
import { type AggregationError, RefusedError } from '../../src/errors.ts';
import { type ModelUpdate, type Tensor, tensorOf } from '../../src/tensor/tensor.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { HastyClock, ManualClock } from '../helpers/clock.ts';
import { failsWith } from '../helpers/errors.ts';
import {
  aggregationId,
  BRANCH_ID,
  LEAF_ID,
  LeafServer,
  reprDigestOf,
  sha256Of,
} from '../helpers/leaf-server.ts';
import { answer, refuse } from '../helpers/loopback.ts';

const UPDATE: ModelUpdate = {
  weighting: 3,
  tensors: [tensorOf(Float32Array.of(1, -0, 3.5, 4), [2, 2]), tensorOf(Float64Array.of(Math.PI))],
};

const A = aggregationId(1);

/** Runs `work` with a server and a client whose pauses take no time. */
async function withClient(
  work: (client: Client, server: LeafServer) => Promise<void>,
  options: ClientOptions = {},
): Promise<void> {
  const server = await LeafServer.start();
  const client = new Client(server.credentials, { clock: new HastyClock(), random: () => 0, ...options });
  try {
    await work(client, server);
  } finally {
    await client.close();
    await server.close();
  }
}

test('authenticates: who it is, how the run stands, and notices begin', () =>
  withClient(async (client, server) => {
    assert.is(client.isAuthenticated, false);
    assert.equal([client.runStatus, client.runNumber, client.branchId], [null, null, null]);
    assert.equal(server.requests, []);
    const listening = server.listening();
    await client.authenticate();
    await listening;
    assert.is(client.isAuthenticated, true);
    assert.equal(
      [client.leafId, client.leafName, client.branchId, client.treeId, client.userId],
      [LEAF_ID, 'north', BRANCH_ID, 'tree', 'user'],
    );
    assert.equal([client.runStatus, client.runNumber], ['start', 1]);
  }));

test('a wrong token is refused with the code of the server', async () => {
  const server = await LeafServer.start();
  const client = new Client({ ...server.credentials, session_token: 'wrong' });
  try {
    const error = await failsWith('token-invalid', () => client.authenticate());
    assert.ok(error instanceof RefusedError && error.status === 401);
    await failsWith('token-invalid', () => client.queue.get());
    await failsWith('token-invalid', () => client.queue.get());
    assert.is(client.isAuthenticated, false);
  } finally {
    await client.close();
    await server.close();
  }
});

test('a token of another leaf is a conflict', () =>
  withClient(async (client, server) => {
    const body = { leaf_id: 'other', leaf_name: 'x', branch_id: 'b', tree_id: 't', user_id: 'u' };
    server.overrides['/leaves/me'] = (_, response) => {
      answer(response, 200, body);
      return true;
    };
    await failsWith('credentials-conflict', () => client.authenticate());
  }));

test('answers of the wrong shape are named', () =>
  withClient(async (client, server) => {
    server.overrides['/branches/'] = (_, response) => {
      answer(response, 200, { run_status: 'running', run_number: 1 });
      return true;
    };
    const error = await failsWith('protocol-shape', () => client.getRunDetails());
    assert.match(error.message, /"run_status"/);
  }));

test('run details, asked for without authenticating first', () =>
  withClient(async (client) => {
    assert.equal(await client.getRunDetails(), {
      runStatus: 'start',
      runNumber: 1,
      round: 1,
      updates: 0,
      aggregationTarget: 2,
      aggregationId: null,
      givenUpRound: null,
    });
  }));

const SOURCES: readonly [name: string, source: (bytes: Uint8Array) => UploadSource][] = [
  ['tensors', () => UPDATE],
  ['bytes', (bytes) => bytes],
  [
    'a view into a larger buffer',
    (bytes) => Buffer.concat([Buffer.alloc(3), bytes, Buffer.alloc(5)]).subarray(3, -5),
  ],
  ['a Blob', (bytes) => new Blob([bytes as BlobPart])],
];

for (const [name, source] of SOURCES) {
  test(`uploads ${name}, with digest, key and round`, () =>
    withClient(async (client, server) => {
      const bytes = await encodeUpdate(UPDATE);
      const done: number[] = [];
      const receipt = await client.fileUpload(source(bytes), {
        round: 4,
        onProgress: ({ bytesDone, bytesTotal }) => {
          assert.is(bytesTotal, bytes.byteLength);
          done.push(bytesDone);
        },
      });
      assert.equal(receipt, {
        fileId: 'file-1',
        run: 1,
        round: 1,
        weighting: 3,
        sha256: sha256Of(bytes),
        isDuplicate: false,
      });
      const [upload] = server.uploads;
      sameBytes(upload!.bytes, bytes);
      assert.is(upload!.query, '?round=4');
      assert.is(upload!.headers['repr-digest'], reprDigestOf(bytes));
      assert.match(String(upload!.headers['idempotency-key']), /^[0-9a-f]{32}$/);
      assert.is(upload!.headers['content-length'], String(bytes.byteLength));
      assert.is(done[0], 0);
      assert.is(done.at(-1), bytes.byteLength);
    }));
}

test('an upload whose answer is lost is sent again under the same key', () =>
  withClient(async (client, server) => {
    let left = 2;
    const keys: unknown[] = [];
    server.overrides[`/leaves/${LEAF_ID}/updates`] = (request, response) => {
      keys.push(request.headers['idempotency-key']);
      if (left === 0) return false;
      if (left-- === 2) request.resume().once('end', () => response.destroy());
      else refuse(response, 503, 'overloaded', { 'retry-after': '1' });
      return true;
    };
    await client.fileUpload(UPDATE);
    assert.is(server.uploads.length, 1);
    assert.is(new Set(keys).size, 1);
    assert.is(keys.length, 3);
    await client.fileUpload(UPDATE);
    assert.is(new Set(keys).size, 2);
  }));

test('a server that stored other bytes is found out', () =>
  withClient(async (client, server) => {
    server.overrides[`/leaves/${LEAF_ID}/updates`] = (request, response) => {
      request.resume().once('end', () =>
        answer(response, 201, {
          file_id: 'f',
          run_number: 1,
          round: 1,
          weighting: 3,
          sha256: '0'.repeat(64),
        }),
      );
      return true;
    };
    await failsWith('protocol-digest', () => client.fileUpload(UPDATE));
  }));

const WEIGHTINGS: readonly [weighting: number | null, code: string][] = [
  [null, 'weighting-missing'],
  [0, 'weighting-zero'],
  [-1, 'weighting-negative'],
  [Number.NaN, 'weighting-nan'],
  [Number.POSITIVE_INFINITY, 'weighting-infinite'],
  [2 ** 53 + 2, 'weighting-range'],
  [2 ** -65, 'weighting-range'],
];

test('what is no valid update is refused before anything is sent', () =>
  withClient(async (client, server) => {
    for (const [weighting, code] of WEIGHTINGS) {
      await failsWith(code, () => client.fileUpload({ ...UPDATE, weighting }));
    }
    await failsWith('layout-empty', () => client.fileUpload({ weighting: 1, tensors: [] }));
    const bytes = await encodeUpdate(UPDATE);
    for (const broken of [new Uint8Array(0), Buffer.from('<html>'), bytes.subarray(0, -1)]) {
      const error = await client.fileUpload(broken).catch((reason: unknown) => reason);
      assert.is((error as Error).name, 'FormatError');
    }
    const wrong = await client.fileUpload(7 as unknown as UploadSource).catch((reason: unknown) => reason);
    assert.ok(wrong instanceof TypeError);
    const path = await client.fileUpload('weights.npy').catch((reason: unknown) => reason);
    assert.ok(path instanceof TypeError, 'paths need file access');
    assert.equal(server.requests, []);
  }));

const [FIRST, SECOND] = UPDATE.tensors as [Tensor, Tensor];

/** What is no update of a model with the tensors of UPDATE, and where. */
const UNLIKE: readonly [code: string, tensors: readonly Tensor[], tensor: string | number | undefined][] = [
  ['layout-count', [FIRST], undefined],
  ['layout-shape', [tensorOf(new Float32Array(4), [4]), SECOND], 0],
  ['layout-dtype', [FIRST, tensorOf(new Float32Array(1))], 1],
  ['non-finite', [FIRST, tensorOf(Float64Array.of(Number.NaN))], 1],
];

test('validateWeights looks at what fileUpload would send, and compares it with a model', () =>
  withClient(
    async (client, server) => {
      const layout = await client.validateWeights(UPDATE);
      assert.equal([layout.format, layout.weighting, layout.tensors.length], ['npz', 3, 2]);
      await client.validateWeights(await encodeUpdate(UPDATE), { like: layout, checkFinite: true });
      for (const [code, tensors, tensor] of UNLIKE) {
        const update = { weighting: 3, tensors };
        const error = await failsWith(code, () =>
          client.validateWeights(update, { like: layout, checkFinite: true }),
        );
        assert.is((error as AggregationError).tensor, tensor);
      }
      assert.equal(server.requests, []);
    },
    { update: { format: 'npz' } },
  ));

test('with update.checkFinite nothing is sent that holds NaN', () =>
  withClient(
    async (client, server) => {
      const update = { weighting: 3, tensors: [tensorOf(Float32Array.of(1, Number.POSITIVE_INFINITY))] };
      const error = await failsWith('non-finite', () => client.fileUpload(update));
      assert.match(error.message, /tensor 0 holds NaN or infinity, first at element 1/);
      assert.equal(server.requests, []);
    },
    { update: { checkFinite: true } },
  ));

test('an upload to a paused run is refused without sending the body', () =>
  withClient(async (client, server) => {
    server.runStatus = 'pause';
    await failsWith('run-paused', () => client.fileUpload(UPDATE));
    server.runStatus = 'stop';
    await failsWith('run-stopped', () => client.fileUpload(UPDATE));
    assert.not(server.requests.some((request) => request.startsWith('PUT')));
  }));

test('with run.wait an upload waits for the notice', () =>
  withClient(
    async (client, server) => {
      server.runStatus = 'pause';
      const listening = server.listening();
      const uploading = client.fileUpload(UPDATE);
      await listening;
      server.setRun('start');
      assert.is((await uploading).fileId, 'file-1');
    },
    { run: { wait: true }, clock: new ManualClock() },
  ));

test('with run.wait an upload that is caught by a pause waits and is sent again', () =>
  withClient(
    async (client, server) => {
      await client.getRunDetails();
      server.runStatus = 'pause';
      const listening = server.listening();
      const uploading = client.fileUpload(UPDATE);
      await listening;
      server.setRun('start');
      await uploading;
      assert.is(server.requests.filter((request) => request.startsWith('PUT')).length, 2);
    },
    { run: { wait: true }, clock: new ManualClock() },
  ));

test('a wait for the run asks the server too: no notice is needed', async () => {
  const clock = new ManualClock();
  await withClient(
    async (client, server) => {
      server.runStatus = 'stop';
      const waiting = client.waitForRun();
      for (let i = 1; i <= 3; i++) {
        await clock.asked(i, 777);
        if (i === 3) server.runStatus = 'start';
        clock.pass(777);
      }
      await waiting;
      assert.is(client.runStatus, 'start');
    },
    { clock, run: { checkIntervalMs: 777 }, timeouts: { idleMs: 1e9, responseMs: 1e9 } },
  );
});

test('a wait for the run ends when its time is over', async () => {
  const clock = new ManualClock();
  await withClient(
    async (client, server) => {
      server.runStatus = 'pause';
      const outcome = failsWith('timeout', () => client.waitForRun({ timeoutMs: 1000 }));
      await clock.asked(1, 777);
      clock.pass(777);
      await clock.asked(2, 777);
      clock.pass(222);
      assert.is(
        await Promise.race([outcome, new Promise((resolve) => setImmediate(resolve, 'waits'))]),
        'waits',
      );
      clock.pass(1);
      assert.match((await outcome).message, /within 1000 ms/);
    },
    { clock, run: { checkIntervalMs: 777 }, timeouts: { idleMs: 1e9, responseMs: 1e9 } },
  );
});

test('a clock that is put back, or ahead, changes nothing about how long the run is waited for', async () => {
  for (const jumpMs of [-86_400_000, 86_400_000]) {
    const clock = new ManualClock();
    await withClient(
      async (client, server) => {
        server.runStatus = 'pause';
        const outcome = failsWith('timeout', () => client.waitForRun({ timeoutMs: 1000 }));
        await clock.asked(1, 777);
        clock.jump(jumpMs);
        clock.pass(777);
        await clock.asked(2, 777);
        clock.pass(223);
        await outcome;
      },
      { clock, run: { checkIntervalMs: 777 }, timeouts: { idleMs: 1e9, responseMs: 1e9 } },
    );
  }
});

test('a wait for the run ends by its signal and by close', () =>
  withClient(
    async (client, server) => {
      server.runStatus = 'pause';
      const controller = new AbortController();
      const aborted = client.waitForRun({ signal: controller.signal }).catch((reason: unknown) => reason);
      const closed = client.waitForRun();
      const outcome = failsWith('client-closed', () => closed);
      controller.abort('enough');
      assert.is(await aborted, 'enough');
      await client.close();
      await outcome;
    },
    { clock: new ManualClock() },
  ));

test('run status is kept current by notices', () =>
  withClient(async (client, server) => {
    const listening = server.listening();
    await client.authenticate();
    await listening;
    server.runNumber = 2;
    server.setRun('pause');
    server.announce(A);
    assert.is(await client.queue.get(), A);
    assert.equal([client.runStatus, client.runNumber], ['pause', 2]);
  }));

for (const [queue, expected] of [
  ['all', [1, 2, 3, 4, 5]],
  ['newest', [5]],
] as const) {
  test(`a burst of notices with the policy ${queue}`, () =>
    withClient(
      async (client, server) => {
        let asked = 0;
        server.overrides['/branches/'] = () => {
          server.runStatus = ++asked < 2 ? 'pause' : 'start';
          return false;
        };
        const listening = server.listening();
        const waiting = client.waitForRun();
        await listening;
        for (let n = 1; n <= 5; n++) server.announce(aggregationId(n));
        // The client asks again when it hears this, so then it has heard all the others.
        server.setRun('start');
        await waiting;
        const ids: string[] = [];
        while (!client.queue.empty()) ids.push(await client.queue.get());
        assert.equal(ids, expected.map(aggregationId));
      },
      { notices: { queue }, clock: new ManualClock() },
    ));
}

test('notices go on after a cut, without repetition, and after a bad one', () =>
  withClient(async (client, server) => {
    let listening = server.listening();
    const first = client.queue.get();
    await listening;
    server.announce(A);
    assert.is(await first, A);
    listening = server.listening();
    server.cut();
    await listening;
    const bad = client.queue.get();
    server.sendEvent('id: 2\nevent: aggregation_status\ndata: no JSON\n\n');
    await failsWith('protocol-shape', () => bad);
    server.sendEvent('id: 3\nevent: news\ndata: {"message_type":"news","body":{}}\n\n');
    server.announce(aggregationId(2));
    assert.is(await client.queue.get(), aggregationId(2));
  }));

test('a queue whose notices failed connects again at the next get', () =>
  withClient(
    async (client, server) => {
      let left = 1;
      server.overrides[`/leaves/${LEAF_ID}/notices`] = (_, response) => {
        if (left-- <= 0) return false;
        response.writeHead(200, { 'content-type': 'text/html' }).end('<html>');
        return true;
      };
      await failsWith('protocol-not-events', () => client.queue.get());
      const listening = server.listening();
      const next = client.queue.get();
      await listening;
      server.announce(A);
      assert.is(await next, A);
    },
    { notices: { carrier: 'events' } },
  ));

test('close ends a waiting get, the stream, and every call after it', () =>
  withClient(async (client, server) => {
    const listening = server.listening();
    const waiting = client.queue.get();
    await listening;
    const outcome = failsWith('client-closed', () => waiting);
    await client.close();
    await outcome;
    await client.close();
    await failsWith('client-closed', () => client.queue.get());
    await failsWith('client-closed', () => client.authenticate());
    await failsWith('client-closed', () => client.fileUpload(UPDATE));
    assert.is(client.isAuthenticated, false);
  }));

test('is closed by `await using`', async () => {
  const server = await LeafServer.start();
  const client = new Client(server.credentials);
  await client[Symbol.asyncDispose]();
  await failsWith('client-closed', () => client.authenticate());
  await server.close();
});

test('downloads into memory, checked', () =>
  withClient(async (client, server) => {
    const bytes = Buffer.from(await encodeUpdate(UPDATE));
    server.aggregations.set(A, bytes);
    const done: number[] = [];
    const download = await client.fileDownload(A, { onProgress: ({ bytesDone }) => done.push(bytesDone) });
    sameBytes(download.bytes, bytes);
    const { bytes: _, layout, ...rest } = download;
    assert.equal(rest, {
      aggregationId: A,
      run: 1,
      round: 1,
      leaves: 2,
      totalWeighting: 7,
      byteLength: bytes.byteLength,
      sha256: sha256Of(bytes),
    });
    assert.equal(
      layout.tensors.map(({ shape }) => shape),
      [[2, 2], [1]],
    );
    assert.is(done[0], 0);
    assert.is(done.at(-1), bytes.byteLength);
  }));

test('a cut download is fetched again, with a fresh link', () =>
  withClient(async (client, server) => {
    const bytes = Buffer.from(await encodeUpdate(UPDATE));
    server.aggregations.set(A, bytes);
    let left = 2;
    server.overrides['/files/'] = (_, response) => {
      if (left === 0) return false;
      // Once as a broken connection, once as a clean end without a length.
      if (left-- === 2) {
        response.writeHead(200, { 'content-length': bytes.byteLength });
        response.write(bytes.subarray(0, 50), () => response.destroy());
      } else {
        response.write(bytes.subarray(0, 70));
        response.end();
      }
      return true;
    };
    sameBytes((await client.fileDownload(A)).bytes, bytes);
    assert.is(server.requests.filter((request) => request === `GET /aggregations/${A}`).length, 3);
  }));

const BAD_DOWNLOADS: readonly [
  name: string,
  code: string,
  respond: (bytes: Buffer, ...args: Parameters<LeafServer['overrides'][string]>) => void,
][] = [
  [
    'a page with 404',
    'protocol-download',
    (_, _request, response) => {
      response.writeHead(404, { 'content-type': 'text/html' }).end('<html>Not found</html>');
    },
  ],
  [
    'a page of a portal',
    'protocol-download',
    (_, _request, response) => {
      response
        .writeHead(200, { 'content-type': 'text/html; charset=utf-8' })
        .end(`<html>${'log in '.repeat(1000)}`);
    },
  ],
  ['a refusal', 'link-expired', (_, _request, response) => refuse(response, 403, 'link-expired')],
  [
    'an always truncated body',
    'protocol-length',
    (bytes, _request, response) => {
      response.write(bytes.subarray(0, -1));
      response.end();
    },
  ],
  [
    'a longer body',
    'protocol-length',
    (bytes, _request, response) => {
      response.write(bytes);
      response.end('x');
    },
  ],
  [
    'another length announced',
    'protocol-length',
    (bytes, _request, response) => {
      response.writeHead(200, { 'content-length': bytes.byteLength + 1 });
      response.end(Buffer.concat([bytes, Buffer.from('x')]));
    },
  ],
  [
    'other bytes',
    'protocol-digest',
    (bytes, _request, response) => {
      const changed = Buffer.from(bytes);
      changed[changed.byteLength - 1]! ^= 1;
      response.end(changed);
    },
  ],
  [
    'another digest in the header',
    'protocol-digest',
    (bytes, _request, response) => {
      response.setHeader('repr-digest', reprDigestOf(Buffer.from('other')));
      response.end(bytes);
    },
  ],
];

for (const [name, code, respond] of BAD_DOWNLOADS) {
  test(`a download that brings ${name} is refused`, () =>
    withClient(async (client, server) => {
      const bytes = Buffer.from(await encodeUpdate(UPDATE));
      server.aggregations.set(A, bytes);
      server.overrides['/files/'] = (request, response) => {
        respond(bytes, request, response);
        return true;
      };
      const error = await failsWith(code, () => client.fileDownload(A));
      assert.not.match(error.message, /secret|Cambium server/);
      assert.ok(error.message.length < 500, 'a page is shown in part');
    }));
}

test('an aggregation that is empty is named so', () =>
  withClient(async (client, server) => {
    server.aggregations.set(A, Buffer.alloc(0));
    const error = await failsWith('format-empty', () => client.fileDownload(A));
    assert.match(error.message, /file is empty/);
  }));

test('an aggregation that is no weights file is refused', () =>
  withClient(async (client, server) => {
    server.aggregations.set(A, Buffer.from('<?xml version="1.0"?><Error>NoSuchKey</Error>'));
    const error = await client.fileDownload(A).catch((reason: unknown) => reason);
    assert.is((error as Error).name, 'FormatError');
  }));

test('unknown aggregations and ids that are none', () =>
  withClient(async (client, server) => {
    await failsWith('aggregation-unknown', () => client.fileDownload(A));
    const before = server.requests.length;
    for (const id of ['', '..', '../leaves/me', A.toUpperCase().replace('33', 'AB'), `${A}/metrics`]) {
      const error = await client.fileDownload(id).catch((reason: unknown) => reason);
      assert.ok(error instanceof TypeError, id);
      const metrics = await client.sendPerformanceMetrics('test', 1, id).catch((reason: unknown) => reason);
      assert.ok(metrics instanceof TypeError, id);
    }
    assert.is(server.requests.length, before);
  }));

test('a transfer ends by its signal, in the middle', () =>
  withClient(async (client, server) => {
    const bytes = Buffer.from(await encodeUpdate(UPDATE));
    server.aggregations.set(A, bytes);
    const controller = new AbortController();
    server.overrides['/files/'] = (_, response) => {
      response.writeHead(200, { 'content-length': bytes.byteLength });
      response.write(bytes.subarray(0, 10));
      return true;
    };
    const download = client.fileDownload(A, {
      signal: controller.signal,
      onProgress: ({ bytesDone }) => {
        if (bytesDone > 0) controller.abort('enough');
      },
    });
    assert.is(await download.catch((reason: unknown) => reason), 'enough');

    const other = new AbortController();
    server.overrides[`/leaves/${LEAF_ID}/updates`] = () => {
      other.abort('enough too');
      return true;
    };
    const upload = client.fileUpload(UPDATE, { signal: other.signal });
    assert.is(await upload.catch((reason: unknown) => reason), 'enough too');
  }));

test('sends performance metrics; numbers that JSON lacks become texts', () =>
  withClient(async (client, server) => {
    server.aggregations.set(A, Buffer.from('x'));
    await client.sendPerformanceMetrics('test', { accuracy: 0.5, loss: Number.NaN, all: [-1 / 0] }, A);
    await client.sendPerformanceMetrics('non-federated', 'text', A);
    assert.equal(server.metrics, [
      { mode: 'test', data: { accuracy: 0.5, loss: 'NaN', all: ['-Infinity'] } },
      { mode: 'non-federated', data: 'text' },
    ]);
    const nothing = client.sendPerformanceMetrics('test', undefined, A);
    assert.ok((await nothing.catch((reason: unknown) => reason)) instanceof TypeError);
  }));

test('senseless options are refused, a missing server is named', async () => {
  const credentials = { id: 'leaf', session_token: 'secret' };
  const error = await failsWith('credentials-missing', () => new Client(credentials));
  assert.match(error.message, /server/);
  for (const server of ['127.0.0.1:8740', 'ftp://server', 'http://user:secret@server']) {
    await failsWith('credentials-invalid', () => new Client({ ...credentials, server }));
    assert.throws(
      () => new Client(credentials, { connection: { server } }),
      (reason: unknown) => reason instanceof TypeError,
    );
  }
  const senseless: readonly ClientOptions[] = [
    { run: { checkIntervalMs: 0 } },
    { notices: { pollIntervalMs: Number.NaN } },
    { notices: { queue: 'last' as 'all' } },
    { retry: { attempts: 0 } },
    { retry: { factor: 0.5 } },
    { timeouts: { idleMs: -1 } },
    { circuit: { failures: 0 } },
    { circuit: { pauseMs: 0 } },
    { update: { format: 'torch' as 'npz' } },
  ];
  const connection = { server: 'http://x' };
  for (const options of senseless) {
    assert.throws(
      () => new Client(credentials, { connection, ...options }),
      (reason: unknown) => reason instanceof RangeError,
    );
  }
  const unknown: readonly [object, RegExp][] = [
    [{ connection: { server: 'example.org' } }, /http or https URL/],
    [{ connection, waitForRun: true }, /no option waitForRun$/],
    [{ connection, run: { checkInterval: 5 } }, /no option run\.checkInterval$/],
  ];
  for (const [options, sentence] of unknown) {
    assert.throws(
      () => new Client(credentials, options),
      (reason: unknown) => reason instanceof TypeError && sentence.test(reason.message),
    );
  }
});

test('credentials and options are read once', () =>
  withClient(async (_, server) => {
    const credentials = { ...server.credentials };
    const client = new Client(Object.freeze(credentials));
    await client.getRunDetails();
    await client.close();
  }));

test.run();
