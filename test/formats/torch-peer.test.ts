// Real torch on the other side: what it saves is read, and what is written it loads, with weights_only too.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readTensors } from '../../src/formats/read.ts';
import { writeWeights } from '../../src/formats/write.ts';
import { memorySink, memorySource } from '../../src/tensor/bytes.ts';
import { DTYPES, type DType, itemSize } from '../../src/tensor/dtypes.ts';
import { elementCount } from '../../src/tensor/layout.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { hasPythonModule, PYTHON } from '../helpers/peers.ts';
import { Random, testSeed } from '../helpers/random.ts';

const test = suite('formats/torch-peer');
const PEER = fileURLToPath(new URL('torch_peer.py', import.meta.url));

/** Runs torch; an object for each tensor of its state dict. */
function torch(...args: string[]): object[] {
  const { status, stdout, stderr } = spawnSync(PYTHON, [PEER, ...args], { encoding: 'utf8' });
  assert.is(status, 0, stderr);
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as object);
}

const describe = ({ name, dtype, shape, data }: Tensor, i: number) => ({
  name: name ?? `layer_${i}`,
  dtype,
  shape,
  sha256: createHash('sha256').update(data).digest('hex'),
});

if (hasPythonModule('torch')) {
  const folder = mkdtempSync(join(tmpdir(), 'cambium-torch-'));
  test.after(() => rmSync(folder, { recursive: true }));

  test('what torch saves is read: every dtype, views of every kind', async () => {
    const path = join(folder, 'saved.pt');
    const expected = torch('save', path);
    const { tensors, layout } = await readTensors(memorySource(new Uint8Array(readFileSync(path))));
    assert.is(layout.format, 'torch');
    assert.equal(tensors.map(describe), expected);
    assert.ok(expected.length > 15);
  });

  test('what is written torch loads: random state dicts of every dtype that it has', async () => {
    const random = new Random(testSeed());
    const dtypes = (Object.keys(DTYPES) as DType[]).filter(
      (dtype) => !['uint16', 'uint32', 'uint64', 'void16'].includes(dtype),
    );
    const paths: string[] = [];
    const expected: object[] = [];
    for (const count of [0, 1, 40, 1001]) {
      const tensors = Array.from({ length: count }, (_, i): Tensor => {
        const dtype = dtypes[i % dtypes.length]!;
        const shape = Array.from({ length: random.integer(0, 5) }, () => random.integer(i % 9 ? 1 : 0, 7));
        const data = new Uint8Array(elementCount(shape) * itemSize(dtype));
        // Below 64 every byte is a bool, or part of a number that is none of the NaNs.
        for (let at = 0; at < data.byteLength; at++) data[at] = random.bits() & (dtype === 'bool' ? 1 : 63);
        return { name: i % 3 === 0 ? null : `größe.${i}`, dtype, shape, data };
      });
      let sink = memorySink(0);
      await writeWeights(
        (length) => (sink = memorySink(length)),
        { weighting: count || null, tensors },
        { format: 'torch' },
      );
      const path = join(folder, `written-${count}.pt`);
      writeFileSync(path, sink.bytes);
      paths.push(path);
      expected.push(...tensors.map(describe));
      const again = await readTensors(memorySource(sink.bytes));
      assert.equal(again.tensors.map(describe), tensors.map(describe));
    }
    assert.equal(torch('read', ...paths), expected);
  });
}

test.run();
