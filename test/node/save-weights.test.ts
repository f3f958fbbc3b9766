import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readTensors } from '../../src/formats/read.ts';
import { Client } from '../../src/node/client.ts';
import { openFileSource } from '../../src/node/files.ts';
import { saveWeights } from '../../src/node/save-weights.ts';
import { type ModelUpdate, tensorOf } from '../../src/tensor/tensor.ts';
import { countAllocations } from '../helpers/allocations.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { Random, testSeed } from '../helpers/random.ts';

const MiB = 1 << 20;

const UPDATE: ModelUpdate = {
  weighting: 600,
  tensors: [tensorOf(new Float32Array(5000).fill(0.5), [50, 100]), tensorOf(Float64Array.of(1, 2))],
};

const test = suite<{ folder: string }>('saveWeights');
test.before.each(async (context) => {
  context.folder = await mkdtemp(join(tmpdir(), 'cambium-save-'));
});
test.after.each(({ folder }) => rm(folder, { recursive: true }));

const NAMES = [
  ['update', undefined, 'update.npz', 'npz'],
  ['update.npz', undefined, 'update.npz', 'npz'],
  ['update.npy', undefined, 'update.npy', 'npy-object'],
  ['update.safetensors', undefined, 'update.safetensors', 'safetensors'],
  ['update.bin', 'npz', 'update.bin', 'npz'],
  ['update', 'npy-object', 'update', 'npy-object'],
] as const;

for (const [name, format, expected, written] of NAMES) {
  test(`${name}, ${format ?? 'no format'}: ${written}`, async ({ folder }) => {
    const saved = await saveWeights(join(folder, name), UPDATE, { format });
    assert.equal([saved.path, saved.format], [join(folder, expected), written]);
    assert.equal(await readdir(folder), [expected]);
    assert.is((await readFile(saved.path)).byteLength, saved.byteLength);
    const source = await openFileSource(saved.path);
    const { weighting, tensors, layout } = await readTensors(source);
    await source.close();
    assert.equal([weighting, layout.format], [600, written]);
    for (const [i, { data }] of tensors.entries()) sameBytes(data, UPDATE.tensors[i]!.data);
  });
}

test('npz is compressed unless told otherwise', async ({ folder }) => {
  const small = await saveWeights(join(folder, 'a'), UPDATE);
  const large = await saveWeights(join(folder, 'b'), UPDATE, { compress: false });
  assert.ok(small.byteLength < 2000 && large.byteLength > 20_000);
});

test('a compressed archive is made, and looked into, without holding it', async ({ folder }) => {
  const random = new Random(testSeed());
  const values = Float32Array.from({ length: 4 << 20 }, () => random.integer(0, 1 << 20));
  const path = join(folder, 'update.npz');
  const saved = await countAllocations(() =>
    saveWeights(path, { weighting: 1, tensors: [tensorOf(values)] }),
  );
  assert.ok(saved.result.byteLength > 4 * MiB, `${saved.result.byteLength} bytes`);
  assert.ok(saved.largest <= MiB, `${saved.largest} bytes at once to save`);
  const client = new Client({ server: 'http://127.0.0.1:1', id: 'leaf', session_token: 'token' });
  const good = await countAllocations(() => client.validateWeights(path, { checkFinite: true }));
  assert.is(good.result.tensors.length, 1);
  values[values.length - 1] = Number.NaN;
  await saveWeights(path, { weighting: 1, tensors: [tensorOf(values)] });
  const bad = await countAllocations(() =>
    failsWith('non-finite', () => client.validateWeights(path, { checkFinite: true })),
  );
  assert.match(bad.result.message, /first at element 4194303$/);
  for (const { largest } of [good, bad]) assert.ok(largest <= 4 * MiB, `${largest} bytes at once to look`);
  await client.close();
  assert.equal(await readdir(folder), ['update.npz']);
});

test('what cannot be saved leaves the old file alone', async ({ folder }) => {
  const path = join(folder, 'update.npz');
  await writeFile(path, 'old');
  await failsWith('output-format', () => saveWeights(join(folder, 'update.txt'), UPDATE));
  await failsWith('file-not-found', () => saveWeights(join(folder, 'none', 'x'), UPDATE));
  for (const weighting of [null, 0, -1, Number.NaN, 2 ** 54]) {
    const refused = await saveWeights(path, { ...UPDATE, weighting }).catch((reason: unknown) => reason);
    assert.ok(refused instanceof RangeError);
  }
  const tensor = { ...UPDATE.tensors[0]!, shape: [3] };
  const unfit = await saveWeights(path, { weighting: 1, tensors: [tensor] }).catch(
    (reason: unknown) => reason,
  );
  assert.ok(unfit instanceof RangeError);
  assert.is(await readFile(path, 'utf8'), 'old');
  assert.equal(await readdir(folder), ['update.npz']);
});

test.run();
