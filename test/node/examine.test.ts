/** What a look at a file finds, above all in exact partial sums: whatever would make a round fail that it is in. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { crc32 } from 'node:zlib';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { encodeUpdate } from '../../src/aggregate/encode-update.ts';
import { openPartialSum } from '../../src/aggregate/partial-reader.ts';
import { readTensors } from '../../src/formats/read.ts';
import { examine } from '../../src/node/examine.ts';
import { mergeJob } from '../../src/node/merge-job.ts';
import { memorySource } from '../../src/tensor/bytes.ts';
import { failsWith } from '../helpers/errors.ts';

const test = suite('examine');
const folder = mkdtempSync(join(tmpdir(), 'cambium-examine-'));
const path = join(folder, 'sum.partial.safetensors');
const never = { throwIfAborted() {} };
test.after(() => rmSync(folder, { recursive: true }));

const fixture = (leaf: string) =>
  fileURLToPath(new URL(`../fixtures/fedavg/tiny/${leaf}.npy`, import.meta.url));

const look = (sums: boolean, checkFinite = true) =>
  examine(
    { type: 'examine', path, name: 'sum', checkFinite, model: undefined, sums, maxUnpackedBytes: undefined },
    never,
  );

/** Writes the sum of three leaves; `change` may spoil it and has its checksum made right again. */
async function write(
  change?: (bytes: Buffer, places: { sums: number; ends: number }) => void,
): Promise<void> {
  const leaves = ['leaf-0000', 'leaf-0001', 'leaf-0002'];
  const inputs = leaves.map((leaf) => ({ path: fixture(leaf), leaf }));
  await mergeJob({ inputs, output: path, to: 'sum' }, never, undefined);
  if (change === undefined) return;
  const bytes = readFileSync(path);
  const { byteOffsets, endsOffset } = await openPartialSum(memorySource(bytes, 'sum'));
  change(bytes, { sums: byteOffsets[0]!, ends: endsOffset });
  const header = bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE(0))).toString();
  const metadata = JSON.parse(header).__metadata__ as Record<
    'tensors' | 'leaves' | 'total' | 'crc32',
    string
  >;
  const seed = crc32(`${metadata.tensors}\n${metadata.leaves}\n${metadata.total}`);
  const right = crc32(bytes.subarray(8 + header.length), seed)
    .toString(16)
    .padStart(8, '0');
  bytes.write(header.replace(metadata.crc32, right), 8);
  writeFileSync(path, bytes);
}

test('a sum tells its leaves and the layout of their mean, to those who ask for sums', async () => {
  await write();
  await failsWith('weights-partial-sum', () => look(false));
  const plain = await examine(
    {
      type: 'examine',
      path: fixture('leaf-0000'),
      name: 'a',
      checkFinite: true,
      model: undefined,
      sums: true,
      maxUnpackedBytes: 0,
    },
    never,
  );
  for (const checkFinite of [false, true]) {
    const { layout, nonFinite, sum } = await look(true, checkFinite);
    assert.equal(nonFinite, []);
    assert.equal(
      sum?.map(({ leaf }) => leaf),
      ['leaf-0000', 'leaf-0001', 'leaf-0002'],
    );
    const weightings = sum?.map(({ weighting }) => weighting!) ?? [];
    assert.is(
      layout.weighting,
      weightings.reduce((a, b) => a + b, 0),
    );
    assert.is(layout.byteLength, readFileSync(path).byteLength);
    const shapes = (tensors: typeof layout.tensors) =>
      tensors.map(({ name, dtype, shape, byteLength }) => [name, dtype, shape, byteLength]);
    assert.equal(shapes(layout.tensors), shapes(plain.layout.tensors));
  }
  assert.is(plain.sum, undefined);
});

test('NaN in a sum is found, and what else is wrong is looked for all the same', async () => {
  await write((bytes, { sums }) => bytes.writeDoubleLE(Number.NaN, sums));
  const { nonFinite } = await look(true);
  assert.equal(
    nonFinite.map(({ tensor, index }) => [tensor, index]),
    [[0, 0]],
  );
  await write((bytes, { sums, ends }) => {
    bytes.writeDoubleLE(Number.NaN, sums);
    bytes.writeBigUInt64LE(1n << 40n, ends);
  });
  await failsWith('partial-form', () => look(true));
});

test('damage and sums that no leaves have are refused by name', async () => {
  await write();
  const bytes = readFileSync(path);
  bytes[bytes.byteLength - 1]! ^= 1;
  writeFileSync(path, bytes);
  await failsWith('partial-crc', () => look(true, false));
  // A mean beyond float32.
  await write((bytes, { sums }) => bytes.writeDoubleLE(1e60, sums));
  await failsWith('partial-range', () => look(true));
});

test('a difference is as long as its elements say, whatever the model is', async () => {
  const { tensors } = await readTensors(memorySource(readFileSync(fixture('leaf-0000')), 'model'));
  const update = await readTensors(memorySource(readFileSync(fixture('leaf-0001')), 'update'));
  const { bytes } = await encodeUpdate(update, { differenceTo: tensors });
  writeFileSync(path, bytes);
  const message = { type: 'examine', path, name: 'a', checkFinite: true, sums: false } as const;
  const lookFrom = (model: string | undefined) =>
    examine({ ...message, model, maxUnpackedBytes: undefined }, never);
  const { norm, isDifference, layout } = await lookFrom(fixture('leaf-0000'));
  assert.ok(isDifference && layout.isDifference);
  assert.ok(norm !== null && norm > 0);
  assert.is((await lookFrom(undefined)).norm, norm);
});

test.run();
