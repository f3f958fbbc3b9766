/** The domain by itself: no HTTP, no port, a clock that stands still. */

import { createHash, randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Aggregator } from '../../../src/server/domain/aggregations.ts';
import type { Domain } from '../../../src/server/domain/domain.ts';
import { createLeaf, type Leaf } from '../../../src/server/domain/leaves.ts';
import { noticesAfter, presentNotices } from '../../../src/server/domain/notices.ts';
import { addOperator, type Operator } from '../../../src/server/domain/operators.ts';
import { markFetched } from '../../../src/server/domain/results.ts';
import { listRounds } from '../../../src/server/domain/round-view.ts';
import { changeRun, getRun } from '../../../src/server/domain/runs.ts';
import { Signals } from '../../../src/server/domain/signals.ts';
import { createBranch, createTree } from '../../../src/server/domain/trees.ts';
import { acceptUpdate, type UpdateOptions } from '../../../src/server/domain/updates.ts';
import { fileBlobs } from '../../../src/server/store/blobs.ts';
import { type DataFolder, openDataFolder } from '../../../src/server/store/folder.ts';
import { failsWith } from '../../helpers/errors.ts';
import { quietLog, ToyJobs, toyFile } from '../harness.ts';

const path = mkdtempSync(join(tmpdir(), 'cambium-domain-'));
const jobs = new ToyJobs();
const operator: Operator = { id: randomUUID(), name: 'o', role: 'operator' };
let folder: DataFolder;
let domain: Domain;
let aggregator: Aggregator;

test.before(async () => {
  folder = await openDataFolder(path);
  domain = {
    db: folder.db,
    blobs: fileBlobs(folder.blobs, folder.spool),
    jobs,
    signals: new Signals(),
    log: quietLog(),
    now: () => 1_700_000_000_000,
    keepUpdates: 1,
    maxUpdateBytes: 1 << 30,
  };
  aggregator = new Aggregator(domain);
  await addOperator(domain.db, { ...operator, token: 'token' }, 0);
});
test.after(async () => {
  await aggregator.close();
  await folder.close();
  rmSync(path, { recursive: true });
});

async function branchWith(target: number, count: number): Promise<{ id: string; leaves: Leaf[] }> {
  const tree = await createTree(domain, operator, 'tree');
  const { id } = await createBranch(domain, { name: 'b', tree_id: tree.id, aggregation_target: target });
  const leaves: Leaf[] = [];
  for (let i = 0; i < count; i++) leaves.push(await createLeaf(domain, { name: `leaf-${i}`, branch_id: id }));
  await changeRun(domain, id, 'start');
  return { id, leaves };
}

async function upload(leaf: Leaf, bytes: Buffer, options?: UpdateOptions) {
  const file = join(folder.spool, randomUUID());
  await writeFile(file, bytes);
  const remove = () => Promise.resolve(rmSync(file, { force: true }));
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  try {
    return await acceptUpdate(
      domain,
      leaf,
      { path: file, byteLength: bytes.byteLength, sha256, receiveMs: null, flushed: async () => {}, remove },
      options,
    );
  } finally {
    await remove();
  }
}

/** Aggregates what waits and returns when it is recorded. */
function aggregated(branchId: string): Promise<void> {
  return new Promise((resolve) => {
    const off = domain.signals.on(`rounds:${branchId}`, () => {
      off();
      resolve();
    });
    aggregator.schedule(branchId);
  });
}

test('the update that meets the target closes the round, the next one is open at once', async () => {
  const { id, leaves } = await branchWith(2, 3);
  assert.is((await upload(leaves[0]!, toyFile(1))).isClosed, false);
  assert.is((await upload(leaves[1]!, toyFile(2))).isClosed, true);
  assert.equal(
    (await listRounds(domain.db, id)).map((round) => [
      round.round,
      round.status,
      round.aggregation_id !== null,
    ]),
    [
      [2, 'open', false],
      [1, 'aggregating', true],
    ],
  );
  // The third comes before the aggregation is done: it is the first of round 2.
  assert.is((await upload(leaves[2]!, toyFile(3))).body.round, 2);
  const [, closed] = await listRounds(domain.db, id);
  await aggregated(id);
  const [, done] = await listRounds(domain.db, id);
  assert.equal(
    [done?.status, done?.total_weighting, done?.aggregation_id],
    ['done', 3, closed?.aggregation_id],
  );
  assert.is((await getRun(domain, id)).aggregation_id, closed?.aggregation_id);
});

test('members are handed over in the order of their ids, with the weightings that were accepted', async () => {
  const { id, leaves } = await branchWith(3, 3);
  const order = [...leaves].sort((a, b) => (a.id < b.id ? 1 : -1));
  for (const [i, leaf] of order.entries()) await upload(leaf, toyFile(i + 1));
  await aggregated(id);
  const { inputs, format, nonFinite, digest } = jobs.requests.at(-1)!;
  assert.equal(
    inputs.map(({ leaf, weighting }) => [leaf, weighting]),
    order.map((leaf, i) => [leaf.id, i + 1]).reverse(),
  );
  assert.equal({ format, nonFinite, digest }, { format: 'npy-object', nonFinite: 'reject', digest: true });
});

test('two rounds that wait are aggregated in their order, and their notices are numbered so', async () => {
  const { id, leaves } = await branchWith(1, 1);
  const leaf = leaves[0]!;
  for (let i = 1; i <= 3; i++) await upload(leaf, toyFile(1, [{ values: [i] }]));
  await Promise.all([aggregated(id), aggregated(id), aggregated(id)]);
  while ((await getRun(domain, id)).aggregation_id !== (await listRounds(domain.db, id))[1]!.aggregation_id) {
    await new Promise(setImmediate);
  }
  const notices = await noticesAfter(domain.db, id, 0);
  assert.equal(
    notices.map(({ number, data }) => [number, data.message_type, data.round]),
    [
      [1, 'run_status', 1],
      [2, 'aggregation_status', 1],
      [3, 'aggregation_status', 2],
      [4, 'aggregation_status', 3],
    ],
  );
  assert.equal(await noticesAfter(domain.db, id, 3), [notices[3]]);
  assert.equal(await presentNotices(domain.db, id), [notices[0], notices[3]]);
});

test('equal bytes after the close: one update until the aggregation was fetched', async () => {
  const { id, leaves } = await branchWith(1, 1);
  const leaf = leaves[0]!;
  const first = await upload(leaf, toyFile(1));
  assert.equal((await upload(leaf, toyFile(1))).body, { ...first.body, duplicate: true });
  await aggregated(id);
  assert.equal((await upload(leaf, toyFile(1))).body, { ...first.body, duplicate: true });
  await markFetched(domain, (await getRun(domain, id)).aggregation_id!, leaf.id);
  await markFetched(domain, (await getRun(domain, id)).aggregation_id!, leaf.id);
  const next = await upload(leaf, toyFile(1));
  assert.equal([next.body.round, next.body.duplicate, next.isClosed], [2, false, true]);
});

test('equal bytes of two leaves are two updates', async () => {
  const { leaves } = await branchWith(2, 2);
  const [a, b] = [await upload(leaves[0]!, toyFile(1)), await upload(leaves[1]!, toyFile(1))];
  assert.is.not(a.body.file_id, b.body.file_id);
  assert.is(b.isClosed, true);
});

test('the contract holds for the run, a new run has its own', async () => {
  const { id, leaves } = await branchWith(1, 1);
  await upload(leaves[0]!, toyFile(1, [{ values: [1] }]));
  await failsWith('layout-shape', () => upload(leaves[0]!, toyFile(1, [{ values: [1, 2] }])));
  await changeRun(domain, id, 'stop');
  await changeRun(domain, id, 'start');
  const other = await upload(leaves[0]!, toyFile(1, [{ values: [1, 2] }]));
  assert.equal([other.body.run_number, other.body.round], [2, 1]);
});

test('a refused first update fixes nothing', async () => {
  const { leaves } = await branchWith(2, 2);
  await failsWith('weighting-total', () => upload(leaves[0]!, toyFile(2 ** 53, [{ values: [1, 2, 3] }])));
  assert.is((await upload(leaves[1]!, toyFile(1))).body.round, 1);
});

test.run();
