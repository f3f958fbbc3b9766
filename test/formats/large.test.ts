// Layouts of files that are larger than memory: where the tensors are is found by reading a few kilobytes. The files are
// sparse, so that they take no room on the disk.
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { encodeWeights } from '../../src/formats/encode.ts';
import type { WeightsSpec } from '../../src/formats/encoding.ts';
import { openWeights } from '../../src/formats/open.ts';
import { openFileSource } from '../../src/node/files.ts';
import { counted } from '../helpers/pickles.ts';

const test = suite('formats/large');

const MAX_BYTES_READ = 64 * 1024;

let folder: string;
test.before(() => {
  folder = mkdtempSync(join(tmpdir(), 'cambium-large-'));
});
test.after(() => rmSync(folder, { recursive: true, force: true }));

/** Names are in order when they are sorted, as .safetensors has them. */
const float32 = (count: number, shape: readonly number[]) =>
  Array.from({ length: count }, (_, i) => ({ name: `layer.${100 + i}`, dtype: 'float32' as const, shape }));

const cases: { name: string; spec: WeightsSpec; elementBytes: number }[] = [
  {
    name: '10 GB of 200 tensors in an object array',
    spec: { format: 'npy-object', weighting: 7, tensors: float32(200, [12_500, 1_000]) },
    elementBytes: 10e9,
  },
  {
    name: '6 GiB in a stored archive',
    spec: { format: 'npz', weighting: 7, tensors: float32(96, [2 ** 12, 2 ** 12]) },
    elementBytes: 6 * 2 ** 30,
  },
  {
    name: '21 GiB in an archive, with a member that needs zip64',
    spec: {
      format: 'npz',
      weighting: 7,
      tensors: [...float32(1, [2 ** 30, 5]), { name: 'bias', dtype: 'float32', shape: [2 ** 28] }],
    },
    elementBytes: 21 * 2 ** 30,
  },
  {
    name: '6 GiB of safetensors',
    spec: { format: 'safetensors', weighting: 7, tensors: float32(96, [2 ** 12, 2 ** 12]) },
    elementBytes: 6 * 2 ** 30,
  },
];

for (const { name, spec, elementBytes } of cases) {
  test(name, async () => {
    const { byteLength, literals, payloads } = await encodeWeights(spec);
    assert.is(
      payloads.reduce((sum, payload) => sum + payload.byteLength, 0),
      elementBytes,
    );
    const path = join(folder, spec.format);
    const file = openSync(path, 'w');
    try {
      ftruncateSync(file, byteLength);
      for (const { offset, bytes } of literals) writeSync(file, bytes, 0, bytes.byteLength, offset);
    } finally {
      closeSync(file);
    }
    const source = counted(await openFileSource(path));
    try {
      const { layout, unpack } = await openWeights(source);
      assert.is(unpack, null, 'nothing has to be unpacked');
      assert.is(layout.byteLength, byteLength);
      assert.is(layout.weighting, spec.weighting);
      assert.is(layout.tensors.length, spec.tensors.length);
      for (const [i, tensor] of layout.tensors.entries()) {
        assert.is(tensor.name, spec.tensors[i]!.name);
        assert.equal(tensor.shape, spec.tensors[i]!.shape);
        assert.equal({ offset: tensor.byteOffset, byteLength: tensor.byteLength }, payloads[i]);
      }
      const { bytes, calls } = source.count;
      console.log(`${name}: ${bytes} bytes in ${calls} reads`);
      assert.ok(bytes < MAX_BYTES_READ, `${bytes} bytes read`);
    } finally {
      await source.close();
    }
  });
}

test.run();
