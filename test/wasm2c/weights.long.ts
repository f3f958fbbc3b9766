// Ten inputs of 100 MB each through the program without JavaScript: Node's bytes, in less than 16 MB.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { encodeWeights } from '../../src/formats/encode.ts';
import { Random, testSeed } from '../helpers/random.ts';
import { buildWeightsProgram } from '../helpers/wasm2c.ts';

const MEMORY_BYTES = 16_000_000;
const ELEMENTS = 25_000_000;

/** Elements are written at the begin of every tenth of a file: the rest is zero and takes no room on disk. */
const WRITTEN = 65_536;

const program = buildWeightsProgram();
const test = suite('wasm2c, long');

if (program !== null) {
  test('ten inputs of 100 MB take less than 16 MB', async () => {
    const random = new Random(testSeed());
    const folder = mkdtempSync(join(tmpdir(), 'cambium-wasm2c-'));
    try {
      const files: string[] = [];
      for (let j = 0; j < 10; j++) {
        const file = join(folder, `leaf-${j}.npy`);
        const { byteLength, literals, payloads } = await encodeWeights({
          format: 'npy-object',
          weighting: random.integer(1, 5000),
          tensors: [{ name: null, dtype: 'float32', shape: [ELEMENTS] }],
        });
        const descriptor = openSync(file, 'w');
        ftruncateSync(descriptor, byteLength);
        for (const { offset, bytes } of literals) writeSync(descriptor, bytes, 0, bytes.byteLength, offset);
        for (let part = 0; part < 10; part++) {
          const elements = Float32Array.from({ length: WRITTEN }, () => random.gauss());
          const at = payloads[0]!.offset + part * 4 * (ELEMENTS / 10);
          writeSync(descriptor, new Uint8Array(elements.buffer), 0, elements.byteLength, at);
        }
        closeSync(descriptor);
        files.push(file);
      }
      const [ours, theirs] = [join(folder, 'program.npy'), join(folder, 'node.npy')];
      const done = spawnSync(program, ['mean', ours, ...files], { encoding: 'utf8' });
      assert.is(done.status, 0, done.stdout);
      const { peakBytes } = JSON.parse(done.stdout) as { peakBytes: number };
      console.log(`peak memory ${(peakBytes / 1e6).toFixed(1)} MB`);
      assert.ok(peakBytes > 0 && peakBytes < MEMORY_BYTES, `${peakBytes} bytes`);
      const node = spawnSync(process.execPath, ['dist/cli.js', 'aggregate', ...files, '-o', theirs]);
      assert.is(node.status, 0, String(node.stderr));
      const [a, b] = [ours, theirs].map((file) =>
        createHash('sha256').update(readFileSync(file)).digest('hex'),
      );
      assert.is(a, b);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
}

test.run();
