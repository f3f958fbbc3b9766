// Exact partial sums as a user makes them: the built command line, from update files to the file of the mean.
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { commandIn } from '../helpers/command.ts';

const folder = mkdtempSync(join(tmpdir(), 'cambium-merge-'));
const test = suite('command line: merge');

test.after(() => rmSync(folder, { recursive: true, force: true }));

const { cambium, report, failsWith } = commandIn(folder);

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

test('inspect tells what a sum is of', async () => {
  await report('aggregate', a, b, '--partial', '-o', 'look.partial.safetensors');
  const { stdout } = await cambium('inspect', 'look.partial.safetensors');
  assert.match(
    stdout,
    /^look\.partial\.safetensors: safetensors, an exact partial sum of 2 leaves, weighting [0-9]+, 2 tensors\n/,
  );
  const { weighting, tensors, leaves } = JSON.parse(
    (await cambium('inspect', 'look.partial.safetensors', '--json')).stdout,
  );
  assert.equal(
    leaves.map((each: { leaf: string }) => each.leaf),
    [a, b].sort(),
  );
  assert.is(
    leaves.reduce((sum: number, each: { weighting: number }) => sum + each.weighting, 0),
    weighting,
  );
  const { tensors: ofLeaf } = JSON.parse((await cambium('inspect', a, '--json')).stdout);
  const shapesOf = (each: { dtype: string; shape: number[] }[]) =>
    each.map(({ dtype, shape }) => [dtype, shape]);
  assert.equal(shapesOf(tensors), shapesOf(ofLeaf));
  // Its elements lie nowhere.
  await failsWith(65, 'weights-partial-sum', 'inspect', 'look.partial.safetensors', '--stats');
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
