/**
 * `kill -9` under load: whatever was acknowledged is in exactly one round afterwards, whatever was retried counts once,
 * and every closed round ends as the exact sum of its members.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type CredentialsBody, paths, type RoundBody, type UploadBody } from '../../src/wire/cambium.ts';
import { Random, testSeed } from '../helpers/random.ts';
import { EventStream, leafToken, padded, toyFile } from './harness.ts';

const KILLS = 5;
const LEAVES = 4;
const TARGET = 3;

const random = new Random(testSeed());

const child = fileURLToPath(new URL('kill-child.ts', import.meta.url));
const dataDir = mkdtempSync(join(tmpdir(), 'cambium-kill-'));
let server: ChildProcess | undefined;
test.after(() => {
  server?.kill('SIGKILL');
  rmSync(dataDir, { recursive: true, force: true });
});

async function start(): Promise<string> {
  server = spawn(process.execPath, [...process.execArgv, child, dataDir], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [url] = (await once(createInterface(server.stdout!), 'line')) as [string];
  return url;
}

async function kill(): Promise<void> {
  const exit = once(server!, 'exit');
  server!.kill('SIGKILL');
  await exit;
}

test('no acknowledged update is lost, none counts twice', async () => {
  let url = await start();
  const operator = JSON.parse(readFileSync(join(dataDir, 'operator.json'), 'utf8')) as { token: string };
  const operate = async <T>(method: string, path: string, body?: object): Promise<T> => {
    const response = await fetch(url + path, {
      method,
      headers: { authorization: `Bearer ${operator.token}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    assert.ok(response.ok, await response.clone().text());
    return (await response.json()) as T;
  };
  const tree = await operate<{ id: string }>('POST', paths.trees(), { name: 't' });
  const branch = await operate<{ id: string }>('POST', paths.branches(), {
    name: 'b',
    tree_id: tree.id,
    aggregation_target: TARGET,
  });
  const leaves: CredentialsBody[] = [];
  for (let i = 0; i < LEAVES; i++) {
    leaves.push(await operate('POST', paths.leaves(), { name: `leaf-${i}`, branch_id: branch.id }));
  }
  await operate('POST', paths.run(branch.id), { run_status: 'start' });

  /** Every upload that was ever tried, by its key; its receipt once there was one. */
  const uploads = new Map<string, UploadBody | undefined>();
  let weighting = 0;
  /** Uploads of one leaf, one after the other, each retried with its key until the server answers; ends with the server. */
  const pending = new Map<string, { key: string; bytes: Buffer }>();
  const work = async (leaf: CredentialsBody, acknowledged: () => void) => {
    for (;;) {
      let upload = pending.get(leaf.id);
      if (upload === undefined) {
        weighting++;
        const file = toyFile(weighting, [{ values: [weighting] }]);
        // Small ones are kept in the database, others as blobs.
        upload = { key: `key-${weighting}`, bytes: weighting % 2 === 0 ? file : padded(file) };
        pending.set(leaf.id, upload);
        uploads.set(upload.key, undefined);
      }
      let response: Response;
      let body: UploadBody & { code?: string };
      try {
        response = await fetch(url + paths.updates(leaf.id), {
          method: 'PUT',
          headers: { authorization: leafToken(leaf), 'idempotency-key': upload.key },
          body: upload.bytes as Uint8Array<ArrayBuffer>,
        });
        body = (await response.json()) as typeof body;
      } catch {
        return; // the server is gone
      }
      if (response.status === 201) {
        uploads.set(upload.key, body);
        pending.delete(leaf.id);
        acknowledged();
      } else {
        // The leaf is in the open round already: the others have to fill it.
        assert.is(body.code, 'update-exists');
        await new Promise(setImmediate);
      }
    }
  };
  for (let i = 0; i < KILLS; i++) {
    const target = random.integer(1, 20);
    let count = 0;
    let isEnough = () => {};
    const enough = new Promise<void>((resolve) => {
      isEnough = resolve;
    });
    const working = leaves.map((leaf) =>
      work(leaf, () => {
        if (++count >= target) isEnough();
      }),
    );
    await enough;
    for (let wait = random.integer(0, 19); wait > 0; wait--) await new Promise(setImmediate);
    await kill();
    await Promise.all(working);
    url = await start();
  }

  const watch = await EventStream.open(url + paths.watch(branch.id), {
    authorization: `Bearer ${operator.token}`,
  });
  let rounds: RoundBody[];
  for (;;) {
    rounds = (await operate<{ items: RoundBody[] }>('GET', paths.rounds(branch.id))).items;
    if (rounds.every((round) => round.status === 'done' || round.status === 'open')) break;
    await watch.event();
  }
  await watch.close();

  const files = rounds.flatMap((round) => round.updates.map((update) => update.file_id));
  assert.is(new Set(files).size, files.length);
  const weightings = rounds.flatMap((round) => round.updates.map((update) => update.weighting));
  assert.is(new Set(weightings).size, weightings.length, 'an update counts twice');
  for (const receipt of uploads.values()) {
    if (receipt === undefined) continue;
    const round = rounds.find((candidate) => candidate.round === receipt.round);
    assert.ok(
      round?.updates.some(({ file_id, sha256 }) => file_id === receipt.file_id && sha256 === receipt.sha256),
      `the update ${receipt.file_id} of round ${receipt.round} is lost`,
    );
  }
  assert.ok(uploads.size >= KILLS);
  rounds.reverse();
  for (const [i, round] of rounds.entries()) {
    assert.is(round.round, i + 1);
    assert.is(new Set(round.updates.map((update) => update.leaf_id)).size, round.updates.length);
    if (round.status === 'open') {
      assert.is(i, rounds.length - 1);
      continue;
    }
    assert.is(round.updates.length, TARGET);
    assert.is(
      round.total_weighting,
      round.updates.reduce((sum, update) => sum + update.weighting, 0),
    );
  }
  await kill();
});

test.run();
