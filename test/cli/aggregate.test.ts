// The commands on files, as a user runs them: the built command line in a process of its own.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'cambium-cli-'));
const test = suite('command line: files');

test.after(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function cambium(...args: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(process.execPath, [cli, ...args], { cwd: folder }, (error, stdout, stderr) => {
      resolve({
        code: typeof error?.code === 'number' ? error.code : error === null ? 0 : -1,
        stdout,
        stderr,
      });
    });
  });
}

const tiny = ['leaf-0000', 'leaf-0001', 'leaf-0002'].map((leaf) => fixture(`fedavg/tiny/${leaf}.npy`));

/** The error of a command that must fail, from its JSON; stderr holds one line for people. */
async function failsWith(exitCode: number, code: string, ...args: string[]) {
  const { code: actual, stdout, stderr } = await cambium(...args, '--json');
  const body = JSON.parse(stdout);
  assert.is(body.code, code, stdout);
  assert.is(actual, exitCode);
  assert.is(body.error, body.message);
  assert.is(stderr.trim().split('\n').length, 1, stderr);
}

test('inspect tells the layout as JSON', async () => {
  const { code, stdout } = await cambium('inspect', '--json', tiny[0]!);
  const entry = JSON.parse(stdout);
  assert.is(code, 0);
  assert.is(entry.file, tiny[0]);
  assert.is(entry.format, 'npy-object');
  assert.is(entry.weighting, 1329);
  assert.equal(Object.keys(entry.tensors[0]), [
    'name',
    'dtype',
    'shape',
    'order',
    'byteOffset',
    'byteLength',
  ]);
  assert.equal(entry.tensors[0].shape, [2, 3]);
});

test('inspect of several files puts errors in their places', async () => {
  writeFileSync(join(folder, 'none.npy'), 'no weights at all, only words');
  const { code, stdout } = await cambium('inspect', '--json', tiny[0]!, 'none.npy', tiny[1]!);
  const entries = JSON.parse(stdout);
  assert.is(code, 65);
  assert.is(entries.length, 3);
  assert.is(entries[1].file, 'none.npy');
  assert.is(entries[1].code, 'format-unknown');
  assert.is(entries[2].format, 'npy-object');
});

test('inspect --stats digests elements in C order, little endian', async () => {
  const stats = async (name: string) => {
    const { stdout } = await cambium(
      'inspect',
      '--json',
      '--stats',
      fixture(`fedavg/storage-orders/${name}`),
    );
    return JSON.parse(stdout).tensors[0];
  };
  const names = readdirSync(fixture('fedavg/storage-orders'));
  const all = await Promise.all(names.map(stats));
  for (const tensor of all) {
    assert.match(tensor.sha256, /^[0-9a-f]{64}$/);
    assert.ok(tensor.min <= tensor.mean && tensor.mean <= tensor.max);
    assert.is(tensor.nan, 0);
  }
});

test('inspect prints a table for people', async () => {
  const { code, stdout } = await cambium('inspect', tiny[0]!);
  assert.is(code, 0);
  assert.match(stdout, /npy-object, weighting 1329, 2 tensors/);
  assert.match(stdout, /float32 +\(2, 3\)/);
});

test('aggregate writes the mean and reports on it', async () => {
  const { code, stdout } = await cambium('aggregate', ...tiny, '-o', 'mean.npy', '--json');
  assert.is(code, 0);
  const report = JSON.parse(stdout);
  const file = readFileSync(join(folder, 'mean.npy'));
  assert.equal(Object.keys(report), [
    'output',
    'format',
    'strategy',
    'leaves',
    'totalWeighting',
    'tensors',
    'parameters',
    'bytesRead',
    'seconds',
    'sha256',
  ]);
  assert.is(report.sha256, createHash('sha256').update(file).digest('hex'));
  assert.is(report.format, 'npy-object');
  assert.is(report.totalWeighting, 3915);
  assert.is(report.tensors, 2);
  assert.is(report.parameters, 9);
});

test('aggregate gives the same bytes in any order of its arguments', async () => {
  const digests = [];
  for (const order of [tiny, [...tiny].reverse()]) {
    const { stdout } = await cambium('aggregate', ...order, '-o', 'order.npy', '--json');
    digests.push(JSON.parse(stdout).sha256);
  }
  assert.is(digests[0], digests[1]);
});

test('aggregate takes weightings and ids in the order of the files', async () => {
  const { stdout } = await cambium(
    'aggregate',
    ...tiny,
    '-o',
    'w.npy',
    '--weights',
    '1,2,0',
    '--ids',
    'c,b,a',
    '--json',
  );
  const report = JSON.parse(stdout);
  assert.is(report.totalWeighting, 3);
  assert.is(report.leaves, 2);
});

test('tensors are given names', async () => {
  const output = join(folder, 'named.safetensors');
  await cambium('aggregate', ...tiny, '-o', output, '--names', 'kernel,bias');
  const { stdout } = await cambium('inspect', output, '--json');
  assert.equal(
    JSON.parse(stdout)
      .tensors.map(({ name }: { name: string }) => name)
      .sort(),
    ['bias', 'kernel'],
  );
  await failsWith(65, 'aggregate-names', 'aggregate', ...tiny, '-o', output, '--names', 'kernel');
});

test('errors have the codes and exit codes of the documentation', async () => {
  await failsWith(2, 'usage', 'aggregate', tiny[0]!);
  await failsWith(2, 'usage', 'aggregate', tiny[0]!, tiny[0]!, '-o', 'x.npy');
  await failsWith(2, 'usage', 'aggregate', ...tiny, '-o', 'x.npy', '--weights', '1,2');
  await failsWith(2, 'strategy-unknown', 'aggregate', ...tiny, '-o', 'x.npy', '--strategy', 'mode');
  const twice = 'trimmed-mean:trim=0.1,trim=0.2';
  await failsWith(2, 'usage', 'aggregate', ...tiny, '-o', 'x.npy', '--strategy', twice);
  for (const [code, ...options] of [
    ['strategy-model-unused', '--model', tiny[0]!],
    ['strategy-model-unused', '--model', tiny[0]!, '--strategy', 'median'],
    ['strategy-state-unused', '--state', 's.safetensors'],
    ['strategy-state-unused', '--state', 's', '--strategy', 'fedavg:learningRate=1', '--model', tiny[0]!],
    ['strategy-parameter', '--strategy', 'buffered', '--model', tiny[0]!],
    ['strategy-parameter', '--strategy', 'fednova', '--model', tiny[0]!],
    ['strategy-parameter', '--strategy', 'median', '--per-leaf', '1,2,3'],
    ['output-format', '--partial'],
    ['output-format', '--names', 'w', '--format', 'npy'],
    ['output-taken', '--strategy', 'fedavgm', '--model', tiny[0]!, '--state', './x.npy'],
  ] as const) {
    await failsWith(2, code, 'aggregate', ...tiny, '-o', 'x.npy', ...options);
  }
  for (const [code, ...options] of [
    ['output-format', 'x.npy', '--weighting', '3', '--format', 'npy'],
    ['output-taken', 'x.safetensors', '--top-k', '0.5', '--residual', './x.safetensors'],
    ['output-taken', 'x.safetensors', '--top-k', '0.5', '--residual', fixture('npy/f4-c-2x3.npy')],
  ] as const) {
    await failsWith(2, code, 'convert', fixture('npy/f4-c-2x3.npy'), ...options);
  }
  await failsWith(74, 'file-is-folder', 'aggregate', ...tiny, '-o', '.', '--format', 'npy-object');
  await failsWith(2, 'usage', 'nonsense');
  await failsWith(65, 'average-nan-weight', 'aggregate', ...tiny, '-o', 'x.npy', '--weights', '1,nan,1');
  await failsWith(65, 'average-negative-weight', 'aggregate', ...tiny, '-o', 'x.npy', '--weights', '1,-1,1');
  await failsWith(65, 'non-finite', 'aggregate', ...inputsOf('non-finite'), '-o', 'x.npy');
  await failsWith(65, 'average-shape', 'aggregate', ...inputsOf('error-shape'), '-o', 'x.npy');
  await failsWith(65, 'aggregate-format', 'aggregate', ...tiny, '-o', 'x.npy', '--format', 'npy');
  await failsWith(74, 'file-not-found', 'aggregate', 'absent.npy', '-o', 'x.npy');
  await failsWith(74, 'file-not-found', 'aggregate', ...tiny, '-o', 'absent/x.npy');
  await failsWith(
    69,
    'unavailable-server',
    'run',
    'show',
    'x',
    '--server',
    'http://127.0.0.1:1',
    '--token',
    'x',
  );
  assert.ok(!existsSync(join(folder, 'x.npy')));
});

test('without a command it shows its help', async () => {
  const { code, stderr } = await cambium();
  assert.is(code, 2);
  assert.match(stderr, /^Usage: cambium/);
  assert.not.match(stderr, /outputHelp/);
});

test('the help of commands that take a rule names all parameters', async () => {
  for (const words of [['aggregate'], ['branch', 'create'], ['branch', 'set']]) {
    const { code, stdout } = await cambium(...words, '--help');
    assert.is(code, 0);
    for (const rule of [
      'trimmed-mean:trim=…',
      'multi-krum:byzantine=…,select=…',
      'fedadam:learningRate=…,beta1=0.9,beta2=0.99,tau=0.001',
      'fednova  (local steps of each leaf)',
      'buffered:learningRate=1,exponent=0.5  (staleness of each leaf)',
    ]) {
      assert.ok(stdout.includes(`  ${rule}\n`), `${words.join(' ')}: ${rule}`);
    }
  }
});

test('a failed aggregation leaves nothing behind', async () => {
  const place = join(folder, 'place');
  mkdirSync(place);
  await cambium('aggregate', ...inputsOf('non-finite'), '-o', 'place/x.npy');
  assert.equal(readdirSync(place), []);
});

function inputsOf(set: string): string[] {
  return readdirSync(fixture(`fedavg/${set}`)).map((file) => fixture(`fedavg/${set}/${file}`));
}

test.run();
