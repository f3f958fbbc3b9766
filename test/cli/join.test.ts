/** `cambium join` as a user runs it, beside a real server: rounds, failures of every kind, and nothing lost. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { encodeUpdate } from '../../src/client/weights.ts';
import { readTensors } from '../../src/formats/read.ts';
import { Client } from '../../src/node/client.ts';
import type { Jobs } from '../../src/node/jobs.ts';
import { startJobs } from '../../src/node/workers.ts';
import { realTimers } from '../../src/server/timers.ts';
import { memorySource } from '../../src/tensor/bytes.ts';
import { tensorOf } from '../../src/tensor/tensor.ts';
import { type CredentialsBody, type MetricsBody, paths, type RoundBody } from '../../src/wire/cambium.ts';
import { JoinedLeaf } from '../helpers/joined.ts';
import { freePorts, serve } from '../helpers/loopback.ts';
import { Harness } from '../server/harness.ts';

const PROGRAM = fileURLToPath(new URL('join-program.mjs', import.meta.url));

const test = suite('join');
let folder: string;
let jobs: Jobs;
let harness: Harness;
const leaves: JoinedLeaf[] = [];
let files = 0;

test.before(async () => {
  jobs = startJobs({ workerUrl: new URL('../../dist/worker.js', import.meta.url) });
  harness = await new Harness().start({ jobs, timers: realTimers });
});
test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), 'cambium-join-'));
});
test.after.each(async () => {
  for (const leaf of leaves.splice(0)) await leaf.end();
  rmSync(folder, { recursive: true, force: true });
});
test.after(async () => {
  await harness.end();
  await jobs.close();
});

function fileOf(credentials: unknown): string {
  const path = join(folder, `leaf-${++files}.json`);
  writeFileSync(path, typeof credentials === 'string' ? credentials : JSON.stringify(credentials));
  return path;
}

const words = (behaviour: string) => [
  process.execPath,
  PROGRAM,
  behaviour,
  '{global}',
  '{update}',
  '{metrics}',
];

function start(
  credentials: CredentialsBody | string,
  behaviour: string | readonly string[],
  ...options: string[]
): JoinedLeaf {
  const path = typeof credentials === 'string' ? credentials : fileOf(credentials);
  const program = typeof behaviour === 'string' ? words(behaviour) : behaviour;
  const leaf = new JoinedLeaf(['--credentials', path, ...options, '--', ...program]);
  leaves.push(leaf);
  return leaf;
}

function update(...values: number[]): Promise<Uint8Array> {
  return encodeUpdate({ weighting: 2, tensors: [tensorOf(Float32Array.from(values))] });
}

async function rounds(branchId: string): Promise<RoundBody[]> {
  return (await harness.operate<{ items: RoundBody[] }>('GET', paths.rounds(branchId))).body.items;
}

test('rounds: the model comes down, the update goes up, metrics belong to the model', async () => {
  const branch = await harness.branch(2);
  const both = branch.leaves.map((leaf) => start(leaf, 'good', '--rounds', '3'));
  for (const leaf of both) {
    assert.is(await leaf.ended(), 0, leaf.stderr);
    assert.match(leaf.stderr, /a line for people/);
    assert.equal(
      leaf.all('uploaded').map(({ run, round, weighting }) => [run, round, weighting]),
      [1, 2, 3].map((round) => [1, round, 2]),
    );
    assert.equal(leaf.all('done'), [leaf.lines.at(-1)]);
    assert.is(leaf.all('failed').length, 0);
  }
  // Which may be averaged only after the leaves are done.
  const { aggregation_id } = await harness.round(branch.id, 3, 'done');
  const client = new Client(branch.leaves[0]!);
  const { tensors } = await readTensors(memorySource((await client.fileDownload(aggregation_id!)).bytes));
  await client.close();
  assert.equal([...new Float32Array(tensors[0]!.data.buffer, tensors[0]!.data.byteOffset, 2)], [2, 2]);
  const metrics = await harness.operate<{ items: MetricsBody[] }>('GET', paths.branchMetrics(branch.id));
  const told = metrics.body.items.map(({ mode, data }) => `${mode} ${JSON.stringify(data)}`).sort();
  // Two rounds began with a model, two leaves tell of each.
  assert.equal(told, [
    ...Array.from({ length: 4 }, () => 'test {"accuracy":0.75}'),
    ...Array.from({ length: 4 }, () => 'train {"loss":0.5}'),
  ]);
});

const FAILURES = [
  ['crash', 'program-exit', 70],
  ['nothing', 'program-no-update', 70],
  ['folder', 'program-no-update', 70],
  ['garbage', 'format-unknown', 65],
  ['nan', 'non-finite', 65],
  ['shape', 'layout-shape', 65],
  ['zero', 'weighting-zero', 65],
  ['plain', 'weighting-missing', 65],
  ['metrics', 'metrics-invalid', 65],
  ['hang', 'program-timeout', 70],
] as const;

test('what a program can do wrong has a code, and nothing of it is sent', async () => {
  const branch = await harness.branch(1, 1 + FAILURES.length);
  const [worker, ...others] = branch.leaves as [CredentialsBody, ...CredentialsBody[]];
  assert.is((await harness.upload(worker, Buffer.from(await update(1, 2)))).status, 201);
  const client = new Client(worker);
  await client.authenticate();
  await client.queue.get();
  await client.close();
  for (const [i, [behaviour, code, exitCode]] of FAILURES.entries()) {
    const limit = behaviour === 'hang' ? '0.3' : '60';
    const leaf = start(others[i]!, behaviour, '--once', '--on-failure', 'stop', '--timeout', limit);
    assert.is(await leaf.ended(), exitCode, `${behaviour}: ${leaf.stderr}`);
    assert.is(leaf.lines.at(-1)?.code, code, behaviour);
    assert.is(leaf.all('uploaded').length, 0);
  }
  assert.equal(
    (await rounds(branch.id)).map(({ status, updates }) => [status, updates.length]),
    [
      ['open', 0],
      ['done', 1],
    ],
  );
});

test('a plain array counts as many samples as --weighting says', async () => {
  const branch = await harness.branch(1);
  const leaf = start(branch.leaves[0]!, 'plain', '--once', '--weighting', '7');
  assert.is(await leaf.ended(), 0, leaf.stderr);
  assert.is(leaf.all('uploaded')[0]!.weighting, 7);
});

test('a program that fails is tried again', async () => {
  const branch = await harness.branch(1);
  const marker = join(folder, 'marker');
  const leaf = start(branch.leaves[0]!, [...words('flaky'), marker], '--once', '--retry-delay', '0');
  assert.is(await leaf.ended(), 0, leaf.stderr);
  assert.equal(
    leaf.all('training').map(({ attempt }) => attempt),
    [1, 2],
  );
  assert.equal(
    leaf.all('failed').map(({ code }) => code),
    ['program-exit'],
  );
});

test('a round that is left out is not the last one', async () => {
  const branch = await harness.branch(1, 2);
  const [worker, lazy] = branch.leaves as [CredentialsBody, CredentialsBody];
  const leaf = start(lazy, 'crash-first', '--rounds', '1', '--on-failure', 'skip');
  // With one round wanted it is an error; so two are, and one of them must be another's.
  assert.is(await leaf.ended(), 70);
  const patient = start(lazy, 'crash-first', '--rounds', '2', '--retries', '1', '--retry-delay', '0');
  await patient.told('skipped');
  assert.is(patient.all('training').length, 2);
  await harness.upload(worker, Buffer.from(await update(1, 2)));
  assert.is((await patient.told('uploaded')).round, 2);
  assert.is((await patient.told('uploaded', 2)).round, 3);
  assert.is(await patient.ended(), 0);
});

test('an update that cannot be sent waits for the server, also over a restart of the leaf', async () => {
  const [port] = await freePorts(1);
  const own = await new Harness().start({ jobs, timers: realTimers, port });
  const branch = await own.branch(1);
  const path = fileOf(branch.leaves[0]!);
  const program = [...words('good'), join(folder, 'marker')];
  const go = join(folder, 'go');
  const whenTold = `const look = setInterval(() => {
    if (!require('fs').existsSync(${JSON.stringify(go)})) return;
    clearInterval(look);
    import(${JSON.stringify(PROGRAM)});
  }, 10)`;
  const first = start(path, [process.execPath, '-e', whenTold, 'x', ...program.slice(2)], '--rounds', '2');
  await first.told('training');
  await own.server.close();
  const waited = first.all('waiting').length;
  writeFileSync(go, '');
  await first.told('waiting', waited + 1);
  await first.end();
  assert.is(first.all('uploaded').length, 0);
  await own.start({ jobs, timers: realTimers, port });
  const second = start(path, program, '--once');
  assert.is(await second.ended(), 0, second.stderr);
  assert.is(second.all('training').length, 0);
  assert.is(second.all('uploaded').length, 1);
  await own.end();
});

test('the run is waited for, a pause is kept', async () => {
  const branch = await harness.branch(1);
  await harness.run(branch.id, 'pause');
  const leaf = start(branch.leaves[0]!, 'good', '--once');
  assert.is((await leaf.told('waiting')).for, 'run');
  await harness.run(branch.id, 'start');
  assert.is(await leaf.ended(), 0, leaf.stderr);
});

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  test(`${signal} ends the program too`, async () => {
    const branch = await harness.branch(1);
    const marker = join(folder, 'marker');
    const leaf = start(branch.leaves[0]!, [...words('hang'), marker]);
    await leaf.told('training');
    let pid = 0;
    while (pid === 0) {
      try {
        pid = Number.parseInt(readFileSync(marker, 'utf8'), 10) || 0;
      } catch {
        await new Promise(setImmediate);
      }
    }
    leaf.child.kill(signal);
    assert.is(await leaf.ended(), 130);
    assert.throws(
      () => process.kill(pid, 0),
      (error: NodeJS.ErrnoException) => error.code === 'ESRCH',
    );
  });
}

test('a login that has not happened yet has no id', async () => {
  const [leaf] = (await harness.branch(1)).leaves as [CredentialsBody];
  const { leaf_name, leaf_password, tree_id, branch_id } = leaf;
  const away = 'http://127.0.0.1:1';
  const login = fileOf({ leaf_name, leaf_password, tree_id, branch_id });
  const joined = start(login, 'good', '--server', away, '--broker', 'amqp://127.0.0.1:1');
  const { leaf: id, name } = await joined.told('joined');
  assert.equal([id, name], [null, leaf_name]);
});

test('a relay finds its credentials in the environment too', async () => {
  const { server, id } = (await harness.branch(1)).leaves[0]!;
  const env = { ...process.env, CAMBIUM_CREDENTIALS: JSON.stringify({ server, id }) };
  const relay = new JoinedLeaf(['--branch', 'b', '--server', server, '--token', 't'], env, 'relay');
  leaves.push(relay);
  assert.is(await relay.ended(), 65, relay.stderr);
  assert.match(relay.stderr, /CAMBIUM_CREDENTIALS: .*session_token/);
});

test('what cannot work is told at once, with its code', async () => {
  const branch = await harness.branch(1);
  const leaf = branch.leaves[0]!;
  const portal = await serve((_, response) => {
    response.writeHead(200, { 'content-type': 'text/html' }).end('<html>Welcome to the hotel</html>');
  });
  const { session_token, leaf_session_token, ...half } = leaf;
  const blocked = join(folder, 'blocked');
  writeFileSync(blocked, '');
  const wrong = { ...leaf, session_token: 'wrong', leaf_session_token: 'wrong' };
  const cases: readonly (readonly [string, readonly string[], string, number])[] = [
    [fileOf('{'), [], 'credentials-invalid', 65],
    [fileOf(half), [], 'credentials-missing', 65],
    [fileOf({ ...leaf, server: '127.0.0.1:8740' }), [], 'credentials-invalid', 65],
    [fileOf(leaf), ['--server', '127.0.0.1:8740'], 'usage', 2],
    [join(folder, 'none.json'), [], 'file-not-found', 74],
    [fileOf(wrong), [], 'token-invalid', 77],
    [fileOf(leaf), ['--server', 'http://127.0.0.1:1', '--once'], 'unavailable-server', 69],
    [fileOf(leaf), ['--server', portal.url, '--once'], 'protocol-not-json', 69],
    [fileOf(leaf), ['--folder', join(blocked, 'x')], 'file-not-found', 74],
    [fileOf(leaf), ['--broker', 'https://broker'], 'broker-url', 2],
    [fileOf(leaf), ['--format', 'csv'], 'usage', 2],
    [fileOf(leaf), ['--once', '--rounds', '2'], 'usage', 2],
    [fileOf(leaf), ['--timeout', 'soon'], 'usage', 2],
  ];
  for (const [path, options, code, exitCode] of cases) {
    const joined = start(path, 'good', ...options);
    assert.is(await joined.ended(), exitCode, `${options.join(' ')}: ${joined.stderr}`);
    assert.is(joined.lines.at(-1)?.code, code, joined.stderr);
  }
  const { leaf_id, leaf_name } = leaf;
  const basic = fileOf({ leaf_id, leaf_name, leaf_session_token });
  for (const [rounds, exitCode] of [
    ['2', 69],
    ['1', 0],
    ['1', 69],
  ] as const) {
    const deaf = start(basic, 'good', '--server', harness.server.url, '--rounds', rounds);
    assert.is(await deaf.ended(), exitCode, deaf.stderr);
    if (exitCode !== 0) assert.is(deaf.lines.at(-1)?.code, 'broker-missing');
  }
  const missing = start(leaf, ['/no/such/program'], '--once');
  assert.is(await missing.ended(), 2);
  assert.is(missing.lines.at(-1)?.code, 'program-missing');
  const bare = new JoinedLeaf(['--credentials', fileOf(leaf), process.execPath, '--out', '{update}']);
  leaves.push(bare);
  assert.is(await bare.ended(), 2);
  assert.match(bare.stderr, /unknown option '--out'; .* behind --/);
  const typo = start(leaf, [process.execPath, PROGRAM, 'good', '{globl}', '{update}', '{metrics}'], '--once');
  assert.is(await typo.ended(), 2);
  assert.match(typo.stderr, /\{globl\}: there are \{global\}/);
  await portal.close();
  assert.ok(
    [session_token, leaf_session_token].every(
      (token) => !leaves.some(({ stderr }) => stderr.includes(token)),
    ),
  );
});

test.run();
