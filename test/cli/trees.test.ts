/**
 * Ten leaves, three branches, two levels: on one server and as two servers with relays between them, the file at the root is
 * that of `cambium aggregate` over all ten update files, byte for byte. `trees.long.ts` does all of it from the command
 * line, over three levels, with everything killed on the way.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Jobs } from '../../src/node/jobs.ts';
import { startJobs } from '../../src/node/workers.ts';
import { realTimers } from '../../src/server/timers.ts';
import { type CredentialsBody, type PolicyBody, paths, type RoundBody } from '../../src/wire/cambium.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { JoinedLeaf } from '../helpers/joined.ts';
import { Harness } from '../server/harness.ts';
import { BRANCHES, cambium, writeUpdates } from './trees.ts';

const test = suite('trees');
const folder = mkdtempSync(join(tmpdir(), 'cambium-trees-'));
let jobs: Jobs;
let files: readonly (readonly string[])[];
/** What one aggregation of all ten files gives. */
let flat: Buffer;
const servers: Harness[] = [];

test.before(async () => {
  jobs = startJobs({ workerUrl: new URL('../../dist/worker.js', import.meta.url) });
  // So large that sums go up in many blocks.
  files = await writeUpdates(folder, 20, 150_000);
  await cambium('aggregate', ...files.flat(), '-o', join(folder, 'flat.npy'));
  flat = readFileSync(join(folder, 'flat.npy'));
});
test.after(async () => {
  await JoinedLeaf.endAll();
  for (const server of servers) await server.end();
  await jobs.close();
  rmSync(folder, { recursive: true });
});

async function serve(): Promise<Harness> {
  const server = await new Harness().start({ jobs, timers: realTimers });
  servers.push(server);
  return server;
}

async function make<T>(server: Harness, target: string, body: object): Promise<T> {
  const answer = await server.operate<T>('POST', target, body);
  assert.ok(answer.status < 300, JSON.stringify(answer.body));
  return answer.body;
}

interface NewBranch extends Partial<PolicyBody> {
  readonly tree_id: string;
  readonly parent_id?: string;
}

async function branch(server: Harness, fields: NewBranch, leaves: number) {
  const { id } = await make<{ id: string }>(server, paths.branches(), { name: 'b', ...fields });
  const credentials: CredentialsBody[] = [];
  for (let i = 0; i < leaves; i++) {
    credentials.push(await make(server, paths.leaves(), { name: `leaf-${i}`, branch_id: id }));
  }
  return { id, leaves: credentials };
}

async function upload(server: Harness, leaves: readonly CredentialsBody[], updates: readonly string[]) {
  for (const [i, leaf] of leaves.entries()) {
    assert.is((await server.upload(leaf, readFileSync(updates[i]!))).status, 201);
  }
}

/** The file of the first round of a branch, when it is done, as the command line saves it. */
async function result(server: Harness, branchId: string, name: string): Promise<Buffer> {
  const round = await server.round(branchId, 1, 'done');
  const output = join(folder, name);
  await cambium('round', 'save', round.aggregation_id!, '-o', output, '--data', server.dataDir);
  return readFileSync(output);
}

/** The three branches as leaves of another server, with all their updates. */
async function sendAll(server: Harness): Promise<readonly string[]> {
  const { id: tree_id } = await make<{ id: string }>(server, paths.trees(), { name: 't' });
  const ids: string[] = [];
  for (const [b, count] of BRANCHES.entries()) {
    const fields = { tree_id, aggregation_target: count, upstream: true };
    const { id, leaves } = await branch(server, fields, count);
    await server.run(id, 'start');
    await upload(server, leaves, files[b]!);
    ids.push(id);
  }
  return ids;
}

test('on one server: a root and three branches below it', async () => {
  const server = await serve();
  const { id: tree_id } = await make<{ id: string }>(server, paths.trees(), { name: 't' });
  const root = await branch(server, { tree_id, aggregation_target: 3 }, 0);
  const below = [];
  for (const count of BRANCHES) {
    below.push(await branch(server, { tree_id, parent_id: root.id, aggregation_target: count }, count));
  }
  await server.run(root.id, 'start');
  for (const [b, { leaves }] of below.entries()) await upload(server, leaves, files[b]!);
  sameBytes(await result(server, root.id, 'one.npy'), flat);
});

test('as two servers: relays carry exact sums up and the aggregation down', async () => {
  const [above, below] = [await serve(), await serve()];
  const { id: tree_id } = await make<{ id: string }>(above, paths.trees(), { name: 't' });
  const top = await branch(above, { tree_id, aggregation_target: 3, partial_sums: true }, BRANCHES.length);
  await above.run(top.id, 'start');
  const branches = await sendAll(below);
  const relays = branches.map((id, b) => {
    const credentials = join(folder, `relay-${b}.json`);
    writeFileSync(credentials, JSON.stringify(top.leaves[b]));
    const args = ['--credentials', credentials, '--branch', id, '--data', below.dataDir, '--once'];
    return new JoinedLeaf(args, process.env, 'relay');
  });
  for (const relay of relays) {
    assert.is(await relay.ended(), 0, relay.stderr);
    const [handed] = relay.all('handed-down');
    assert.equal([handed?.leaves, handed?.left_out], [10, null]);
  }
  sameBytes(await result(above, top.id, 'two.npy'), flat);
  for (const [b, id] of branches.entries()) sameBytes(await result(below, id, `below-${b}.npy`), flat);
});

test('by hand: sums are saved, merged, and what comes of them is handed down', async () => {
  const server = await serve();
  const branches = await sendAll(server);
  const sums: string[] = [];
  const rounds: string[] = [];
  for (const [b, id] of branches.entries()) {
    const round = await server.round(id, 1, 'summed');
    const file = join(folder, `${b}.partial.safetensors`);
    await cambium('round', 'save', round.id, '--sum', '-o', file, '--data', server.dataDir);
    rounds.push(round.id);
    sums.push(file);
  }
  const merged = join(folder, 'merged.npy');
  await cambium('merge', ...sums, '-o', merged);
  sameBytes(readFileSync(merged), flat);
  for (const round of rounds) {
    const args = ['round', 'hand-down', round, merged, '--leaves', '10', '--data', server.dataDir];
    assert.is((await cambium<RoundBody>(...args)).status, 'done');
  }
  for (const [b, id] of branches.entries()) sameBytes(await result(server, id, `hand-${b}.npy`), flat);
});

test.run();
