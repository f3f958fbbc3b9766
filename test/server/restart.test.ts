/** What a server knows survives its end, also a sudden one. A killed process is what its data directory holds at that moment. */
import { randomUUID } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { AggregationError } from '../../src/errors.ts';
import { startServer } from '../../src/server/index.ts';
import { type AggregationBody, paths, type RoundBody, type RunBody } from '../../src/wire/cambium.ts';
import { Harness, leafToken, toyFile } from './harness.ts';

/** The data directory of a server that is killed now. */
function killed(harness: Harness): string {
  const copy = mkdtempSync(join(tmpdir(), 'cambium-killed-'));
  cpSync(harness.dataDir, copy, { recursive: true });
  return copy;
}

test('an open round goes on after a restart, with the same operator and the same leaves', async () => {
  const first = await new Harness().start();
  const { id, leaves } = await first.branch(2);
  const [a, b] = [leaves[0]!, leaves[1]!];
  const receipt = await first.upload(a, toyFile(1, [{ values: [2, 4] }]));
  await first.server.close();

  const second = await new Harness(first.dataDir).start();
  assert.is(second.operator.token, first.operator.token);
  assert.is(second.operator.server, second.server.url);
  const run = await second.operate<RunBody>('GET', paths.run(id));
  assert.is(run.body.updates, 1);
  const again = await second.upload(a, toyFile(1, [{ values: [2, 4] }]));
  assert.is(again.body.file_id, receipt.body.file_id);
  assert.is(again.body.duplicate, true);
  await second.upload(b, toyFile(3, [{ values: [6, 8] }]));
  const round = await second.round(id, 1, 'done');
  assert.is(round.total_weighting, 4);
  await second.end();
});

test('a kill during an aggregation: it is done again under the same id, once', async () => {
  const first = await new Harness().start();
  const { id, leaves } = await first.branch(2);
  first.jobs.gate = new Promise(() => {}); // never ends
  for (const [i, leaf] of leaves.entries()) {
    await first.upload(leaf, toyFile(1, [{ values: [i, i] }]));
  }
  const before = await first.round(id, 1, 'aggregating');
  const dataDir = killed(first);
  writeFileSync(join(dataDir, 'spool', `${before.aggregation_id}.work`), 'half');
  await first.end(); // and a close does not wait for a job that never ends

  const second = await new Harness(dataDir).start();
  const after = await second.round(id, 1, 'done');
  assert.is(after.aggregation_id, before.aggregation_id);
  assert.is(second.jobs.requests.length, 1);
  const { body } = await second.call<AggregationBody>('GET', paths.aggregation(after.aggregation_id!), {
    headers: { authorization: leafToken(leaves[0]!) },
  });
  assert.is(await (await fetch(body.download_url)).text(), toyFile(2, [{ values: [0.5, 0.5] }]).toString());
  await second.server.close();

  const third = await new Harness(dataDir).start();
  const rounds = await third.operate<{ items: RoundBody[] }>('GET', paths.rounds(id));
  assert.equal(
    rounds.body.items.map((round) => round.status),
    ['open', 'done'],
  );
  assert.is(third.jobs.requests.length, 0);
  await third.end();
});

test('a kill between the blob and its row, or between a row and its blob’s end, leaves nothing', async () => {
  const first = await new Harness().start();
  const { id, leaves } = await first.branch(2);
  await first.upload(leaves[0]!, toyFile(1));
  const { blobs } = await first.stored();
  const dataDir = killed(first);
  await first.end();
  const orphan = '0b0b0b0b-0000-4000-8000-000000000000';
  mkdirSync(join(dataDir, 'blobs', '0b'), { recursive: true });
  writeFileSync(join(dataDir, 'blobs', '0b', orphan), 'x');
  writeFileSync(join(dataDir, 'spool', 'half-an-upload'), 'x');
  const second = await new Harness(dataDir).start();
  assert.equal(await second.stored(), { spool: [], blobs });
  assert.is((await second.operate<RunBody>('GET', paths.run(id))).body.updates, 1);
  await second.end();
});

test('a failed round keeps its updates over a restart; an operator retries or discards it', async () => {
  const first = await new Harness().start();
  const { id, leaves } = await first.branch(1);
  first.jobs.failure = new AggregationError('average-shape', 'they do not fit', { tensor: 3 });
  await first.upload(leaves[0]!, toyFile(1));
  const failed = await first.round(id, 1, 'failed');
  assert.equal(failed.failure, {
    error: 'they do not fit',
    message: 'they do not fit',
    code: 'average-shape',
    details: { tensor: 3 },
  });
  await first.server.close();

  const second = await new Harness(first.dataDir).start();
  assert.is((await second.stored()).blobs.length, 1);
  assert.is(second.jobs.requests.length, 0);
  const retried = await second.operate<RoundBody>('POST', paths.roundRetry(failed.id));
  assert.is(retried.status, 200);
  assert.is(retried.body.status, 'aggregating');
  const done = await second.round(id, 1, 'done');
  assert.is(done.aggregation_id, failed.aggregation_id);
  assert.is((await second.operate('POST', paths.roundRetry(failed.id))).body.code, 'round-not-failed');

  second.jobs.failure = new Error('a defect');
  await second.upload(leaves[0]!, toyFile(1, [{ values: [7, 7] }]));
  const other = await second.round(id, 2, 'failed');
  assert.is(other.failure?.code, 'internal');
  assert.not.match(other.failure!.message, /defect/);
  const discarded = await second.operate<RoundBody>('POST', paths.roundDiscard(other.id));
  assert.is(discarded.body.status, 'discarded');
  const { blobs } = await second.stored();
  assert.ok(blobs.includes(done.aggregation_id!));
  assert.is(blobs.length, 2); // the aggregation and the update that made it
  await second.end();
});

test('a round that a pause kept is there after a restart', async () => {
  const first = await new Harness().start();
  const { id, leaves } = await first.branch(2);
  await first.upload(leaves[0]!, toyFile(1));
  await first.run(id, 'pause');
  await first.server.close();
  const second = await new Harness(first.dataDir).start();
  const { body } = await second.run(id, 'start');
  assert.equal([body.run_number, body.round, body.updates], [1, 1, 1]);
  await second.run(id, 'stop');
  const next = await second.run(id, 'start');
  assert.equal([next.body.run_number, next.body.round, next.body.updates], [2, 1, 0]);
  await second.end();
});

test('a kill between operator.json and the operator’s row: the file’s token works', async () => {
  const harness = new Harness();
  const file = { server: 'http://127.0.0.1:1', id: randomUUID(), role: 'operator', token: 'a-token' };
  writeFileSync(join(harness.dataDir, 'operator.json'), JSON.stringify(file));
  await harness.start();
  assert.equal(harness.operator, { ...file, server: harness.server.url } as unknown);
  assert.is((await harness.operate('GET', paths.trees())).status, 200);
  await harness.server.close();

  await rm(harness.server.operatorFile);
  const server = await startServer({
    dataDir: harness.dataDir,
    port: 0,
    jobs: harness.jobs,
    logger: harness.log,
  });
  await server.close();
  assert.not.ok(existsSync(server.operatorFile)); // who took it away does not want another one
  await rm(harness.dataDir, { recursive: true, force: true });
});

test('a second server on the same data is refused, the first goes on', async () => {
  const first = await new Harness().start();
  try {
    await new Harness(first.dataDir).start();
    assert.unreachable('two servers on one directory');
  } catch (error) {
    assert.is((error as { code?: string }).code, 'data-locked');
  }
  assert.is((await first.call<{ status: string }>('GET', paths.health())).body.status, 'ok');
  const file = JSON.parse(readFileSync(first.server.operatorFile, 'utf8'));
  assert.equal(file, first.operator);
  await first.end();
  await rm(first.dataDir, { recursive: true, force: true });
});

test.run();
