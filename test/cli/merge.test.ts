// Exact partial sums as a user makes them: the built command line, from update files to the file of the mean.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'cambium-merge-'));
const test = suite('command line: merge');

test.after(() => rmSync(folder, { recursive: true, force: true }));

function cambium(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [cli, ...args], { cwd: folder }, (error, stdout, stderr) => {
      const code = typeof error?.code === 'number' ? error.code : error === null ? 0 : -1;
      resolve({ code, stdout, stderr });
    });
  });
}

/** The report of a command that must succeed. */
async function report(...args: string[]) {
  const { code, stdout, stderr } = await cambium(...args, '--json');
  assert.is(code, 0, stderr);
  return JSON.parse(stdout);
}

async function failsWith(exitCode: number, code: string, ...args: string[]) {
  const { code: actual, stdout } = await cambium(...args, '--json');
  assert.is(JSON.parse(stdout).code, code, stdout);
  assert.is(actual, exitCode);
}

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/fedavg/${name}`, import.meta.url));
const [a, b, c] = ['leaf-0000', 'leaf-0001', 'leaf-0002'].map((leaf) => fixture(`tiny/${leaf}.npy`)) as [
  string,
  string,
  string,
];

test('a tree of sums and updates gives the mean of one aggregation, and takes leaves out again', async () => {
  const flat = await report('aggregate', a, b, c, '-o', 'flat.npy');
  const ab = await report('aggregate', a, b, '--partial', '-o', 'ab.partial.safetensors');
  assert.is(ab.format, 'partial-sum');
  assert.is(ab.leaves, 2);
  assert.equal(ab.ids, [a, b]);
  assert.is(ab.total, String(BigInt(ab.totalWeighting) << 116n));
  assert.is(ab.bytesPerParameter, ab.byteLength / ab.parameters);
  const file = readFileSync(join(folder, 'ab.partial.safetensors'));
  assert.is(ab.byteLength, file.byteLength);
  assert.is(ab.sha256, createHash('sha256').update(file).digest('hex'));
  for (const format of ['npy', 'npz', 'safetensors', 'pt']) {
    const mixed = await report('merge', 'ab.partial.safetensors', c, '-o', `mixed.${format}`);
    const expected = await report('aggregate', a, b, c, '-o', `expected.${format}`);
    assert.is(mixed.sha256, expected.sha256, format);
  }
  const all = await report('merge', c, 'ab.partial.safetensors', '-o', 'abc.partial.safetensors');
  const mean = await report('merge', 'abc.partial.safetensors', '-o', 'mean.npy');
  assert.is(mean.sha256, flat.sha256);
  assert.is(mean.leaves, 3);
  assert.is(mean.residues, null);
  assert.is(all.residues, 0);
  await report('aggregate', c, '--partial', '-o', 'c.safetensors');
  const left = await report(
    'merge',
    'abc.partial.safetensors',
    '--without',
    'c.safetensors',
    '-o',
    'left',
    '--partial',
  );
  assert.is(left.sha256, ab.sha256);
});

test('merge prints what there is to know, for people', async () => {
  await report('aggregate', a, b, '--partial', '-o', 'people.partial.safetensors');
  const { stdout } = await cambium(
    'merge',
    'people.partial.safetensors',
    c,
    '-o',
    'people.partial.safetensors',
  );
  assert.match(stdout, /exact sum of 3 leaves, total weighting 3915, 2 tensors, 9 parameters/);
  assert.match(stdout, /a parameter\), 0 residues/);
});

test('what does not fit is refused, and nothing is written', async () => {
  await report('aggregate', a, b, '--partial', '-o', 'one.safetensors');
  await report('aggregate', c, '--partial', '-o', 'two.safetensors');
  const out = ['-o', 'none.npy'];
  await failsWith(
    65,
    'partial-leaf-unknown',
    'merge',
    'one.safetensors',
    '--without',
    'two.safetensors',
    ...out,
  );
  await failsWith(65, 'partial-leaf-duplicate', 'merge', 'one.safetensors', a, ...out);
  await failsWith(65, 'partial-empty', 'merge', 'one.safetensors', '--without', 'one.safetensors', ...out);
  await failsWith(65, 'partial-not-a-sum', 'merge', 'one.safetensors', '--without', a, ...out);
  await failsWith(65, 'weights-partial-sum', 'aggregate', 'one.safetensors', c, ...out);
  const other = fixture('float64/leaf-0000.npy');
  await failsWith(65, 'average-count', 'merge', 'one.safetensors', other, ...out);
  await failsWith(2, 'output-format', 'merge', 'one.safetensors', '-o', 'none');
  await failsWith(2, 'usage', 'aggregate', a, '--partial', '--strategy', 'median', '-o', 'none');
  await failsWith(2, 'usage', 'merge', a, '--partial', '--format', 'npz', '-o', 'none');
  await failsWith(74, 'file-not-found', 'merge', 'missing.safetensors', ...out);
  const damaged = readFileSync(join(folder, 'one.safetensors'));
  damaged[damaged.byteLength - 1]! ^= 1;
  writeFileSync(join(folder, 'damaged.safetensors'), damaged);
  await failsWith(65, 'partial-crc', 'merge', 'damaged.safetensors', ...out);
  assert.not.ok(existsSync(join(folder, 'none.npy')));
  assert.not.ok(existsSync(join(folder, 'none')));
});

test.run();
