// An update of 1 GB up to a server of ours and an aggregation of 1 GB down, beside curl doing the same in the same run: as it
// is, and with what our client does besides: the SHA-256, which it checks or tells (here OpenSSL over the file), and of what
// comes down, that it is on the disk when the call ends (here sync). Nothing is aggregated while a transfer is timed. Prints
// times, their ratios, and the most memory that the client's process had resident. MIB=64 makes it small.
import { execFile, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Client, encodeWeights } from '../dist/index.js';

const MIB = Number(process.env.MIB ?? 1024);
const ROUNDS = 3;
const run = promisify(execFile);

if (process.argv[2] === 'client') await beClient();
else await main();

/** A process of its own, so that its memory is the client's alone. */
async function beClient() {
  const { credentials, upload, download, to } = JSON.parse(process.argv[3]);
  const client = new Client(credentials);
  const begunAt = performance.now();
  if (upload) await client.fileUpload(upload);
  else await client.fileDownload(download, { to });
  const seconds = (performance.now() - begunAt) / 1000;
  await client.close();
  process.send({ seconds, resident: (process.resourceUsage().maxRSS * 1024) / 1e6 });
}

function inChild(request) {
  return new Promise((resolve, reject) => {
    const child = fork(fileURLToPath(import.meta.url), ['client', JSON.stringify(request)]);
    child.once('message', resolve);
    child.once('exit', (code) => code !== 0 && reject(new Error(`the client exited with ${code}`)));
  });
}

async function main() {
  const folder = await mkdtemp(join(tmpdir(), 'cambium-transfer-'));
  const cli = fileURLToPath(new URL('../dist/cli.js', import.meta.url));
  const dataDir = join(folder, 'data');
  const server = fork(cli, ['serve', '--data', dataDir, '--port', '0', '--json'], {
    stdio: ['ignore', 'pipe', 'ignore', 'ipc'],
  });
  try {
    await new Promise((resolve) => server.stdout.once('data', resolve));
    const { server: url, token } = JSON.parse(await readFile(join(dataDir, 'operator.json'), 'utf8'));
    const operate = async (method, path, body) => {
      const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
      const answer = await fetch(`${url}/cambium/v1${path}`, { method, headers, body: JSON.stringify(body) });
      return answer.json();
    };
    const tree = await operate('POST', '/trees', { name: 'tree' });
    const branch = await operate('POST', '/branches', { name: 'b', tree_id: tree.id, aggregation_target: 1 });
    const leaf = await operate('POST', '/leaves', { name: 'leaf', branch_id: branch.id });
    await operate('POST', `/branches/${branch.id}/run`, { run_status: 'start' });
    const authorization = `Bearer ${leaf.id}:${leaf.session_token}`;
    const path = join(folder, 'update.npy');
    console.log(
      `# ${MIB} MiB, median of ${ROUNDS}; Node ${process.version}, ${cpus()[0].model}, ${cpus().length} cores`,
    );
    const times = { up: [], curlUp: [], digestUp: [], down: [], curlDown: [], digestDown: [] };
    const digest = (file) => timed(() => run('openssl', ['dgst', '-sha256', file]));
    const resident = { up: 0, down: 0 };
    for (let round = 0; round < ROUNDS; round++) {
      // Another update for each, or the server would know it.
      await writeUpdate(path);
      const target = `${url}/cambium/v1/leaves/${leaf.id}/updates`;
      const curlArguments = ['-sf', '-T', path, '-H', `authorization: ${authorization}`, target];
      times.curlUp.push(await timed(() => run('curl', curlArguments)));
      times.digestUp.push(await digest(path));
      await newest(operate, branch.id);
      await writeUpdate(path);
      const up = await inChild({ credentials: leaf, upload: path });
      times.up.push(up.seconds);
      const id = await newest(operate, branch.id);
      const headers = { authorization };
      const aggregation = await (await fetch(`${url}/cambium/v1/aggregations/${id}`, { headers })).json();
      const copy = join(folder, 'copy.npy');
      await freshenMemory(folder);
      times.curlDown.push(await timed(() => run('curl', ['-sf', '-o', copy, aggregation.download_url])));
      const flush = await timed(() => run('sync', ['-d', copy]));
      times.digestDown.push(flush + (await digest(copy)));
      await rm(copy);
      await freshenMemory(folder);
      const down = await inChild({ credentials: leaf, download: id, to: copy });
      times.down.push(down.seconds);
      await rm(copy);
      resident.up = Math.max(resident.up, up.resident);
      resident.down = Math.max(resident.down, down.resident);
    }
    for (const [name, ours, curl, besides, digests] of [
      ['up', times.up, times.curlUp, 'digest', times.digestUp],
      ['down', times.down, times.curlDown, 'sync and digest', times.digestDown],
    ]) {
      const [a, b] = [median(ours), median(curl)];
      const both = b + median(digests);
      console.log(
        `${name}: ${a.toFixed(2)} s (least ${Math.min(...ours).toFixed(2)}); ` +
          `curl ${b.toFixed(2)} s (${Math.min(...curl).toFixed(2)}), ratio ${(a / b).toFixed(2)}; ` +
          `curl with ${besides} ${both.toFixed(2)} s, ratio ${(a / both).toFixed(2)}`,
      );
    }
    console.log(
      `client resident at most: up ${resident.up.toFixed(0)} MB, down ${resident.down.toFixed(0)} MB`,
    );
  } finally {
    server.kill();
    await new Promise((resolve) => server.once('exit', resolve));
    await rm(folder, { recursive: true });
  }
}

/** The newest aggregation, once the update before last is folded. */
async function newest(operate, branchId) {
  for (;;) {
    const { items } = await operate('GET', `/branches/${branchId}/rounds`);
    if (!items.some(({ status }) => status === 'aggregating')) {
      return items.find(({ status }) => status === 'done').aggregation_id;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/**
 * Takes and gives up as much memory as a copy needs. A virtual machine gets its memory from its host when it is first touched, and
 * gives back what is free: who writes first would pay for all.
 */
async function freshenMemory(folder) {
  const path = join(folder, 'ballast');
  const handle = await open(path, 'w');
  const block = Buffer.alloc(1 << 20);
  for (let i = 0; i < MIB; i++) await handle.write(block);
  await handle.close();
  await rm(path);
}

/** Zeros, which are fast to make, but for a few elements that make it another file each time. */
async function writeUpdate(path) {
  const tensors = [{ name: null, dtype: 'float32', shape: [MIB << 18] }];
  const spec = { format: 'npy-object', weighting: 1, tensors };
  const { byteLength, literals, payloads } = await encodeWeights(spec);
  const handle = await open(path, 'w');
  for (const { offset, bytes } of literals) await handle.write(bytes, 0, bytes.byteLength, offset);
  await handle.write(new Uint8Array(Float32Array.from(randomBytes(64)).buffer), 0, 256, payloads[0].offset);
  await handle.truncate(byteLength);
  await handle.close();
}

async function timed(work) {
  const begunAt = performance.now();
  await work();
  return (performance.now() - begunAt) / 1000;
}

function median(values) {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}
