/**
 * `kill -9` of either side in the middle of a transfer, each way: what was there is not sent again, the file is right, and
 * the update counts once. Both sides are the built files, in processes of their own.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { encodeUpdate } from '../../src/client/weights.ts';
import { Client } from '../../src/node/client.ts';
import { tensorOf } from '../../src/tensor/tensor.ts';
import { type CredentialsBody, paths, type RoundBody } from '../../src/wire/cambium.ts';
import { FaultProxy } from '../helpers/fault-proxy.ts';
import { sha256Of } from '../helpers/leaf-server.ts';
import { freePorts } from '../helpers/loopback.ts';
import { Random, testSeed } from '../helpers/random.ts';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const CHILD = fileURLToPath(new URL('kill-child.mjs', import.meta.url));
const MiB = 1 << 20;

/**
 * Where the other side is killed, as a part of the whole: a little behind the end of a request (of 1, 2, 4 and then 8 MiB), so that
 * the server has confirmed most of what was sent.
 */
const KILLED_AT = 0.65;

/** So much more passes before one is killed: the kill then strikes in the middle of a request. */
const HELD_AFTER = MiB;

/**
 * What a kill may cost: a block, and headers. What lies in the sockets of a process dies with it and is the system's; so the line
 * is held, and the kill waits until the process has read what came and written all of it but the block that it fills.
 */
const PER_KILL = MiB + (128 << 10);

const test = suite('killed in the middle');
const folder = mkdtempSync(join(tmpdir(), 'cambium-killed-'));
const dataDir = join(folder, 'data');
const path = join(folder, 'update.npy');
const random = new Random(testSeed());
let port = 0;
let server: ChildProcess | undefined;
let line: FaultProxy;
let operator: string;
let branchId: string;
let leaf: CredentialsBody;
let bytes: Uint8Array;

test.before(async () => {
  const values = Float32Array.from({ length: 6 * MiB }, () => random.integer(-1000, 1000));
  bytes = await encodeUpdate({ weighting: 1, tensors: [tensorOf(values)] });
  writeFileSync(path, bytes);
  [port = 0] = await freePorts(1);
  // Links lead over the line too, because the server is told that it is its address.
  line = await FaultProxy.start(`http://127.0.0.1:${port}`, random, {});
  await startServer();
  operator = (JSON.parse(readFileSync(join(dataDir, 'operator.json'), 'utf8')) as { token: string }).token;
  const tree = await operate<{ id: string }>('POST', paths.trees(), { name: 't' });
  const options = { name: 'b', tree_id: tree.id, aggregation_target: 2 };
  branchId = (await operate<{ id: string }>('POST', paths.branches(), options)).id;
  const leaves = await Promise.all(
    ['a', 'b'].map((name) => operate<CredentialsBody>('POST', paths.leaves(), { name, branch_id: branchId })),
  );
  leaf = { ...leaves[0]!, server: line.url };
  other = { ...leaves[1]!, server: line.url };
  await operate('POST', paths.run(branchId), { run_status: 'start' });
});
let other: CredentialsBody;
test.after(async () => {
  server?.kill('SIGKILL');
  await line.close();
  rmSync(folder, { recursive: true, force: true });
});

async function startServer(): Promise<void> {
  const options = ['--data', dataDir, '--port', String(port), '--public-url', line.url, '--json'];
  server = spawn(process.execPath, [CLI, 'serve', ...options], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(createInterface(server.stdout!), 'line');
}

async function killServer(): Promise<void> {
  const exit = once(server!, 'exit');
  server!.kill('SIGKILL');
  await exit;
}

async function operate<T>(method: string, target: string, body?: object): Promise<T> {
  const response = await fetch(`http://127.0.0.1:${port}${target}`, {
    method,
    headers: { authorization: `Bearer ${operator}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  assert.ok(response.ok, await response.clone().text());
  return (await response.json()) as T;
}

/** A client with as much patience as a server needs to come back. */
function patient(credentials: CredentialsBody): Client {
  return new Client(credentials, { retry: { attempts: 1000, baseMs: 50, maxMs: 200 } });
}

/**
 * From a way's first byte on: the line keeps the rest back until one side is dead.
 *
 * @returns ends when whoever receives has in its file what came over the line, but for a block
 */
function holdTheEnd(way: 'up' | 'down'): () => Promise<void> {
  const before = line[way];
  const most = bytes.byteLength * KILLED_AT + HELD_AFTER;
  line.hold(way, most);
  const parts = way === 'up' ? join(dataDir, 'uploads') : folder;
  return async () => {
    const written = () =>
      readdirSync(parts)
        .filter((name) => name.endsWith('.part'))
        .reduce((sum, name) => sum + statSync(join(parts, name)).size, 0);
    for (let passed = 0; passed < most || passed - written() > PER_KILL; passed = line[way] - before) {
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
}

/** Kills the server once, when a transfer has come far enough, and starts it again. */
function killOnce(way: 'up' | 'down') {
  const arrived = holdTheEnd(way);
  let restarted: Promise<void> | undefined;
  return {
    onProgress: ({ bytesDone }: { bytesDone: number }) => {
      if (bytesDone < bytes.byteLength * KILLED_AT) return;
      restarted ??= arrived()
        .then(killServer)
        .then(() => {
          line.release();
          return startServer();
        });
    },
    async hasHappened() {
      assert.ok(restarted, 'it was not killed');
      await restarted;
    },
  };
}

/** Runs a client and kills it when it has come far enough. */
async function killedClient(way: 'up' | 'down', ...words: readonly string[]): Promise<void> {
  const arrived = holdTheEnd(way);
  const child = spawn(process.execPath, [CHILD, ...words], { stdio: ['ignore', 'pipe', 'inherit'] });
  for await (const text of createInterface(child.stdout)) {
    if (Number(text) < bytes.byteLength * KILLED_AT) continue;
    await arrived();
    child.kill('SIGKILL');
    break;
  }
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  line.release();
  assert.is(child.signalCode, 'SIGKILL');
}

/** Runs a client to its end. */
async function finishedClient(...words: readonly string[]): Promise<void> {
  const child = spawn(process.execPath, [CHILD, ...words], { stdio: ['ignore', 'ignore', 'inherit'] });
  const [code] = (await once(child, 'exit')) as [number];
  assert.is(code, 0);
}

test('the server, while an update goes up', async () => {
  const before = line.up;
  const client = patient(leaf);
  const kill = killOnce('up');
  const receipt = await client.fileUpload(path, { onProgress: kill.onProgress });
  await client.close();
  await kill.hasHappened();
  assert.is(receipt.sha256, sha256Of(bytes));
  const sent = line.up - before;
  assert.ok(sent < bytes.byteLength + PER_KILL, `${sent} bytes sent for ${bytes.byteLength}`);
});

test('the leaf, while an update goes up; and the round has each once', async () => {
  const before = line.up;
  const credentials = JSON.stringify(other);
  await killedClient('up', credentials, 'upload', path);
  await finishedClient(credentials, 'upload', path);
  const sent = line.up - before;
  assert.ok(sent < bytes.byteLength + PER_KILL, `${sent} bytes sent for ${bytes.byteLength}`);
  const { items } = await operate<{ items: RoundBody[] }>('GET', paths.rounds(branchId));
  assert.equal(
    items.map(({ updates }) => updates.length).sort(),
    [0, 2],
    'two updates in the round that closed, none in the open one',
  );
});

test('the server and the leaf, while an aggregation comes down', async () => {
  const client = patient(leaf);
  const id = await client.queue.get();
  const expected = (await client.fileDownload(id)).sha256;

  let before = line.down;
  const kill = killOnce('down');
  const first = join(folder, 'first.npy');
  await client.fileDownload(id, { to: first, onProgress: kill.onProgress });
  await client.close();
  await kill.hasHappened();
  assert.is(sha256Of(readFileSync(first)), expected);
  let sent = line.down - before;
  assert.ok(sent < bytes.byteLength + PER_KILL, `${sent} bytes came for ${bytes.byteLength}`);

  before = line.down;
  const second = join(folder, 'second.npy');
  const words = [JSON.stringify(leaf), 'download', id, second];
  await killedClient('down', ...words);
  assert.throws(() => readFileSync(second), undefined, 'a part is no file');
  await finishedClient(...words);
  assert.is(sha256Of(readFileSync(second)), expected);
  sent = line.down - before;
  assert.ok(sent < bytes.byteLength + PER_KILL, `${sent} bytes came for ${bytes.byteLength}`);
});

test.run();
