/**
 * `cambium join` over the generations of BranchKey, beside our server and a real RabbitMQ: credentials as the documentation
 * prints them, programs of every format, and the format that the generation takes on the wire.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readTensors } from '../../src/formats/read.ts';
import { Client } from '../../src/node/client.ts';
import type { Jobs } from '../../src/node/jobs.ts';
import { startJobs } from '../../src/node/workers.ts';
import { memorySource } from '../../src/tensor/bytes.ts';
import { type CredentialsBody, type MetricsBody, paths, type RoundBody } from '../../src/wire/cambium.ts';
import { JoinedLeaf } from '../helpers/joined.ts';
import { hasRabbitMq, RabbitMq } from '../helpers/rabbitmq.ts';
import { provisioning, startHarness } from '../server/broker/rig.ts';
import type { Harness } from '../server/harness.ts';

const PROGRAM = fileURLToPath(new URL('join-program.mjs', import.meta.url));
const ROUNDS = 3;

/** What a leaf of each generation is given. */
const AS_PRINTED = {
  login: ({ leaf_name, leaf_password, tree_id, branch_id }: CredentialsBody) => ({
    ...{ leaf_name, leaf_password, tree_id, branch_id, queue_password: 'x' },
  }),
  basic: ({ leaf_name, leaf_id, leaf_session_token, response_host }: CredentialsBody) => ({
    ...{ leaf_name, leaf_id, leaf_session_token, response_host },
  }),
  bearer: ({ id, name, session_token, owner_id, tree_id, branch_id }: CredentialsBody) => ({
    ...{ id, name, session_token, owner_id, tree_id, branch_id },
  }),
} as const;

const CASES: readonly (readonly [generation: keyof typeof AS_PRINTED, format: string])[] = [
  ['login', 'npy-object'],
  ['login', 'torch'],
  ['basic', 'npy-object'],
  ['basic', 'safetensors'],
  ['bearer', 'npz'],
  ['bearer', 'npy-object'],
];

const test = suite('join over the generations');
const folder = mkdtempSync(join(tmpdir(), 'cambium-join-generations-'));
let rabbit: RabbitMq;
let jobs: Jobs;
let harness: Harness;

test.before(async () => {
  rabbit = await RabbitMq.start();
  jobs = startJobs({ workerUrl: new URL('../../dist/worker.js', import.meta.url) });
  harness = await startHarness({ ...provisioning(rabbit), jobs });
});
test.after(async () => {
  await JoinedLeaf.endAll();
  await harness.end();
  await jobs.close();
  await rabbit.end();
  rmSync(folder, { recursive: true, force: true });
});

test('each takes part in rounds, in the format of its program', async () => {
  const joined = await Promise.all(
    CASES.map(async ([generation, format]) => {
      const branch = await harness.branch(1);
      const [credentials] = branch.leaves as [CredentialsBody];
      const path = join(folder, `${generation}-${format}.json`);
      const isOption = generation === 'basic';
      const told = isOption ? {} : { broker_url: rabbit.url };
      writeFileSync(path, JSON.stringify({ ...AS_PRINTED[generation](credentials), ...told }));
      const words = [process.execPath, PROGRAM, 'good', '{global}', '{update}', '{metrics}'];
      const options = ['--server', harness.server.url, '--format', format, '--rounds', String(ROUNDS)];
      if (isOption) options.push('--broker', rabbit.url);
      return {
        generation,
        format,
        branch,
        leaf: new JoinedLeaf(['--credentials', path, ...options, '--', ...words]),
      };
    }),
  );
  for (const { generation, format, branch, leaf } of joined) {
    const name = `${generation}, ${format}`;
    assert.is(await leaf.ended(), 0, `${name}: ${leaf.stderr}\n${JSON.stringify(leaf.lines)}`);
    assert.is(leaf.all('uploaded').length, ROUNDS, name);
    assert.is(leaf.all('failed').length, 0, name);
    assert.equal(
      leaf.all('model').map((line) => line.format),
      Array.from({ length: ROUNDS - 1 }, () => format),
      name,
    );
    const rounds = await harness.operate<{ items: RoundBody[] }>('GET', paths.rounds(branch.id));
    const counted = rounds.body.items.filter(({ updates }) => updates.length > 0);
    assert.is(counted.length, ROUNDS, `${name}: each update counts in a round of its own`);
    // A leaf is done when its last update is on the server, which may not have averaged it yet.
    const { aggregation_id } = await harness.round(branch.id, ROUNDS, 'done');
    // Zeros, and one more in each round: every round began with the model of the one before.
    const client = new Client(branch.leaves[0]!);
    const { bytes } = await client.fileDownload(aggregation_id!);
    await client.close();
    const [tensor] = (await readTensors(memorySource(bytes))).tensors;
    assert.equal([...new Float32Array(tensor!.data.slice().buffer)], [ROUNDS - 1, ROUNDS - 1], name);
    const metrics = await harness.operate<{ items: MetricsBody[] }>('GET', paths.branchMetrics(branch.id));
    const told = metrics.body.items.map(({ mode }) => mode).sort();
    // Nothing can be told of a model before there is one.
    assert.equal(told, [...Array(ROUNDS - 1).fill('test'), ...Array(ROUNDS - 1).fill('train')], name);
  }
});

if (hasRabbitMq()) test.run();
