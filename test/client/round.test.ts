// The client against the real server, with the built worker: what both sides of the wire must agree on.
import { mkdtempSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { digestOfBytes } from '../../src/client/digest.ts';
import type { ClientOptions } from '../../src/client/options.ts';
import { RefusedError } from '../../src/errors.ts';
import { readTensors } from '../../src/formats/read.ts';
import { Client } from '../../src/node/client.ts';
import type { Jobs } from '../../src/node/jobs.ts';
import { startJobs } from '../../src/node/workers.ts';
import type { ServerOptions } from '../../src/server/index.ts';
import { memorySource } from '../../src/tensor/bytes.ts';
import { type ModelUpdate, tensorOf } from '../../src/tensor/tensor.ts';
import { type CredentialsBody, type MetricsBody, paths, type RoundBody } from '../../src/wire/cambium.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { Harness } from '../server/harness.ts';

const test = suite('client and server');
const folder = mkdtempSync(join(tmpdir(), 'cambium-round-'));
let jobs: Jobs;

test.before(() => {
  jobs = startJobs({ workerUrl: new URL('../../dist/worker.js', import.meta.url) });
});

test.after(async () => {
  await jobs.close();
  rmSync(folder, { recursive: true });
});

interface Federation {
  readonly harness: Harness;
  readonly branchId: string;
  readonly credentials: readonly CredentialsBody[];
  /** Makes a client for a leaf; it is closed at the end. */
  readonly join: (leaf: number, options?: ClientOptions) => Client;
}

async function withServer(
  target: number,
  leaves: number,
  work: (federation: Federation) => Promise<void>,
  options: Partial<ServerOptions> = {},
): Promise<void> {
  const harness = await new Harness().start({ jobs, ...options });
  const clients: Client[] = [];
  try {
    const { id, leaves: credentials } = await harness.branch(target, leaves);
    await work({
      harness,
      branchId: id,
      credentials,
      join(leaf, clientOptions) {
        const client = new Client(credentials[leaf]!, { retry: { baseMs: 20, maxMs: 50 }, ...clientOptions });
        clients.push(client);
        return client;
      },
    });
  } finally {
    for (const client of clients) await client.close();
    await harness.end();
  }
}

function updateOf(weighting: number, ...values: number[]): ModelUpdate {
  return { weighting, tensors: [tensorOf(Float32Array.from(values)), tensorOf(Float64Array.of(weighting))] };
}

async function valuesOf(bytes: Uint8Array): Promise<ModelUpdate> {
  return readTensors(memorySource(bytes));
}

test('two rounds: upload, be told, download the exact mean, report', () =>
  withServer(2, 2, async ({ harness, branchId, join: enter }) => {
    const north = enter(0);
    const south = enter(1);
    await Promise.all([north.authenticate(), south.authenticate()]);
    assert.is(north.branchId, branchId);
    assert.equal([north.runStatus, north.runNumber], ['start', 1]);
    for (const round of [1, 2]) {
      harness.now++;
      const receipt = await north.fileUpload(updateOf(1, round, 0), { round });
      assert.equal([receipt.run, receipt.round, receipt.weighting], [1, round, 1]);
      await south.fileUpload(updateOf(3, round + 4, 1), { round });
      const [id, same] = await Promise.all([north.queue.get(), south.queue.get()]);
      assert.is(id, same);
      const { bytes, ...download } = await north.fileDownload(id);
      assert.equal([download.run, download.round, download.leaves], [1, round, 2]);
      assert.is(download.totalWeighting, 4);
      assert.is(download.sha256, await digestOfBytes(bytes));
      const mean = await valuesOf(bytes);
      assert.is(mean.weighting, 4);
      sameBytes(mean.tensors[0]!.data, new Uint8Array(Float32Array.of(round + 3, 0.75).buffer));
      sameBytes(mean.tensors[1]!.data, new Uint8Array(Float64Array.of(2.5).buffer));
      const path = join(folder, `mean-${round}.npy`);
      assert.is((await south.fileDownload(id, { to: path })).sha256, download.sha256);
      sameBytes(await readFile(path), bytes);
      // What comes down can be sent up again.
      await south.sendPerformanceMetrics('test', { accuracy: round / 10, loss: Number.NaN }, id);
    }
    const metrics = await harness.operate<{ items: MetricsBody[] }>('GET', paths.branchMetrics(branchId));
    assert.equal(
      metrics.body.items.map(({ leaf_id, mode, data }) => [leaf_id, mode, data]),
      [1, 2].map((round) => [south.leafId, 'test', { accuracy: round / 10, loss: 'NaN' }]),
    );
    const { round, updates, aggregationTarget } = await north.getRunDetails();
    assert.equal([round, updates, aggregationTarget], [3, 0, 2]);
  }));

test('the same update twice counts once, by path and by tensors', () =>
  withServer(2, 2, async ({ join: enter }) => {
    const client = enter(0);
    const first = await client.fileUpload(updateOf(2, 1));
    const second = await client.fileUpload(updateOf(2, 1));
    assert.equal([first.isDuplicate, second.isDuplicate], [false, true]);
    assert.is(second.fileId, first.fileId);
    assert.is((await client.getRunDetails()).updates, 1);
  }));

test('a paused run: refused, or waited for until the operator goes on', () =>
  withServer(1, 1, async ({ harness, branchId, join: enter }) => {
    const client = enter(0);
    const patient = enter(0, { run: { wait: true } });
    await Promise.all([client.authenticate(), patient.authenticate()]);
    await harness.run(branchId, 'pause');
    await failsWith('run-paused', () => client.fileUpload(updateOf(1, 1)));
    const uploading = patient.fileUpload(updateOf(1, 1));
    await harness.run(branchId, 'start');
    assert.is((await uploading).round, 1);
    assert.is(patient.runStatus, 'start');
    await harness.run(branchId, 'stop');
    await failsWith('run-stopped', () => client.fileUpload(updateOf(1, 1)));
  }));

test('a round that is given up is told as such, and one that is averaged while the run pauses is not', () =>
  withServer(1, 1, async ({ harness, branchId, join: enter }) => {
    const listen = (options: ClientOptions = {}) => {
      const client = enter(0, options);
      const told: unknown[] = [];
      client.on('roundGivenUp', (event) => told.push(event));
      return { client, told };
    };
    const first = listen();
    await first.client.fileUpload(updateOf(1, 1));
    await first.client.queue.get();
    // The newest word of the run is of its second round then, as after one that was given up.
    await harness.run(branchId, 'pause');
    await harness.run(branchId, 'start');
    const second = listen();
    await second.client.authenticate();
    await second.client.queue.get();
    assert.equal(
      [first.told, second.told, (await second.client.getRunDetails()).givenUpRound],
      [[], [], null],
    );
    const { items } = (await harness.operate<{ items: RoundBody[] }>('GET', paths.rounds(branchId))).body;
    await harness.operate('POST', paths.roundDiscard(items[0]!.id));
    const third = listen();
    const poller = listen({ notices: { carrier: 'polling', pollIntervalMs: 5 } });
    await Promise.all([third, poller].map(({ client }) => client.queue.get()));
    await third.client.fileUpload(updateOf(1, 2));
    for (const { client, told } of [first, third, poller]) {
      await client.queue.get();
      assert.equal(told, [{ runNumber: 1, round: 2 }]);
    }
    assert.is((await first.client.getRunDetails()).givenUpRound, 2);
  }));

test('refusals of the server come with its codes and leave the round alone', () =>
  withServer(
    2,
    2,
    async ({ credentials, join: enter }) => {
      const client = enter(0);
      await client.fileUpload(updateOf(1, 1, 2));
      const other = enter(1);
      const table: readonly [code: string, status: number, work: () => Promise<unknown>][] = [
        ['layout-shape', 422, () => other.fileUpload(updateOf(1, 1, 2, 3))],
        ['non-finite', 422, () => other.fileUpload(updateOf(1, Number.NaN, 2))],
        ['upload-too-large', 413, () => other.fileUpload(updateOf(1, ...new Array(4000).fill(0)))],
        ['round-closed', 409, () => other.fileUpload(updateOf(1, 1, 2), { round: 7 })],
        ['aggregation-unknown', 404, () => other.fileDownload('00000000-0000-4000-8000-000000000000')],
      ];
      for (const [code, status, work] of table) {
        const error = await failsWith(code, work);
        assert.ok(error instanceof RefusedError);
        assert.is(error.status, status, code);
      }
      const strangers = [
        ['token-invalid', { session_token: 'wrong' }],
        ['leaf-unknown', { id: '00000000-0000-4000-8000-000000000000' }],
      ] as const;
      for (const [code, wrong] of strangers) {
        const { server, id, session_token } = { ...credentials[0]!, ...wrong };
        const stranger = new Client({ server, id, session_token });
        assert.ok((await failsWith(code, () => stranger.authenticate())) instanceof RefusedError);
        await stranger.close();
      }
      assert.is((await client.getRunDetails()).updates, 1);
    },
    { maxUploadBytes: 10_000 },
  ));

test('an aggregation comes in the format that is asked for', () =>
  withServer(1, 1, async ({ join: enter }) => {
    const client = enter(0);
    await client.fileUpload(updateOf(1, 2));
    const id = await client.queue.get();
    for (const [format, made] of [
      ['npy', 'npy-object'],
      ['npz', 'npz'],
      ['safetensors', 'safetensors'],
    ] as const) {
      const { bytes, layout } = await client.fileDownload(id, { format });
      assert.is(layout.format, made);
      const { path } = await client.fileDownload(id, { format, folder });
      assert.is(path, join(folder, `${id}.${format}`));
      sameBytes(await readFile(path), bytes);
    }
  }));

test('a leaf that was away gets the newest aggregation when it comes back', () =>
  withServer(1, 2, async ({ join: enter }) => {
    const north = enter(0);
    await north.authenticate();
    const ids: string[] = [];
    for (const value of [1, 2]) {
      await north.fileUpload(updateOf(1, value));
      ids.push(await north.queue.get());
    }
    const south = enter(1);
    assert.is(await south.queue.get(), ids[1]);
    assert.ok(south.queue.empty());
  }));

test('a restart of the server is survived: notices go on where they were', () =>
  withServer(1, 1, async ({ harness, join: enter }) => {
    // Patient enough for a server that starts on a busy machine.
    const client = enter(0, { retry: { baseMs: 20, maxMs: 1_000 } });
    await client.authenticate();
    await client.fileUpload(updateOf(1, 1));
    const first = await client.queue.get();
    const waiting = client.queue.get();
    const port = Number(new URL(harness.server.url).port);
    await harness.server.close();
    await harness.start({ jobs, port });
    await client.fileUpload(updateOf(1, 2));
    const second = await waiting;
    assert.is.not(second, first);
    assert.is((await client.fileDownload(second)).round, 2);
    assert.ok(client.queue.empty());
  }));

test('a revoked token ends the notices', () =>
  withServer(1, 1, async ({ harness, credentials, join: enter }) => {
    const client = enter(0);
    await client.authenticate();
    const waiting = client.queue.get();
    const outcome = failsWith('token-revoked|token-invalid', () => waiting);
    await harness.operate('DELETE', paths.leaf(credentials[0]!.id));
    await outcome;
    assert.is(client.isAuthenticated, false);
  }));

test.run();
