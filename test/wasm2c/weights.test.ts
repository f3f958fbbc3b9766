// The core without JavaScript: translated to C, compiled, and driven by a small program (weights.c). It must find what
// Node finds in every fixture, and average to the same bytes.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { FormatError } from '../../src/errors.ts';
import { openWeights } from '../../src/formats/open.ts';
import { memorySource } from '../../src/tensor/bytes.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { meanOfFiles } from '../helpers/mean-of-files.ts';
import { buildWeightsProgram } from '../helpers/wasm2c.ts';

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url));
const program = buildWeightsProgram();
const folder = mkdtempSync(join(tmpdir(), 'cambium-wasm2c-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

/** Runs the program: its exit code and the JSON it printed. */
function weights(...args: string[]): { readonly status: number | null; readonly answer: unknown } {
  const { status, stdout, stderr } = spawnSync(program!, args, { encoding: 'utf8', maxBuffer: 64 << 20 });
  assert.is(stderr, '');
  return { status, answer: JSON.parse(stdout) };
}

/** What Node says about a file, in the words of the program. */
async function inNode(file: string): Promise<unknown> {
  try {
    const { layout } = await openWeights(memorySource(readFileSync(file), file));
    return {
      format: layout.format,
      weighting: layout.weighting,
      tensors: layout.tensors.map(({ name, dtype, shape, order, byteOffset, byteLength }) => ({
        ...{ name, dtype, shape, order, byteOffset, byteLength },
      })),
    };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    const { code, offset, tensor } = error;
    // The program reads nothing but .npy, so what Node cannot tell at all is no .npy there.
    if (code === 'format-unknown' || code === 'format-pickle') return { file, code: 'npy-magic', offset: 0 };
    return {
      file,
      code,
      ...(offset === undefined ? {} : { offset }),
      ...(tensor === undefined ? {} : { tensor }),
    };
  }
}

const test = suite('wasm2c');

if (program !== null) {
  for (const group of ['npy', 'weights', 'bad-npy', 'bad-weights', 'bad-pickle']) {
    test(`finds in ${group}/ what Node finds`, async () => {
      const files = readdirSync(`${fixtures}${group}`).filter((file) => file.endsWith('.npy'));
      assert.ok(files.length > 5);
      for (const name of files) {
        const file = `${fixtures}${group}/${name}`;
        const expected = await inNode(file);
        const { status, answer } = weights('inspect', file);
        assert.equal(answer, JSON.parse(JSON.stringify(expected)), name);
        assert.is(status, group.startsWith('bad-') || 'code' in (expected as object) ? 65 : 0, name);
      }
    });
  }

  const { sets } = JSON.parse(readFileSync(`${fixtures}fedavg.json`, 'utf8')) as {
    readonly sets: readonly {
      readonly set: string;
      readonly inputs: readonly { readonly file: string }[];
      readonly outcome: 'ok' | 'error';
      readonly error?: string;
      readonly non_finite?: unknown;
    }[];
  };
  for (const { set, inputs, outcome, error, non_finite } of sets) {
    const files = inputs.map(({ file }) => `${fixtures}${file}`);
    if (!files.every((file) => file.endsWith('.npy'))) continue; // the program reads no archives
    const ours = join(folder, 'program.npy');
    if (outcome === 'error' || non_finite !== undefined) {
      test(`refuses ${set}`, () => {
        const { status, answer } = weights('mean', ours, ...files);
        assert.is((answer as { code: string }).code, error ?? 'non-finite');
        assert.is(status, 65);
      });
    }
    if (outcome === 'error') continue;
    test(`averages ${set} to Node's bytes, in both orders`, async () => {
      const nonFinite = non_finite === undefined ? 'reject' : 'propagate';
      const theirs = await meanOfFiles(files, { nonFinite });
      for (const order of [files, files.toReversed()]) {
        const { status } = weights(
          'mean',
          ...(nonFinite === 'propagate' ? ['--propagate'] : []),
          ours,
          ...order,
        );
        assert.is(status, 0);
        sameBytes(readFileSync(ours), theirs, set);
      }
    });
  }

  test('a file that is cut anywhere is refused as in Node', async () => {
    const whole = readFileSync(`${fixtures}fedavg/tiny/leaf-0000.npy`);
    const file = join(folder, 'cut.npy');
    for (let length = 0; length < whole.byteLength; length += 13) {
      writeFileSync(file, whole.subarray(0, length));
      assert.equal(weights('inspect', file).answer, await inNode(file), `${length} bytes`);
    }
  });
}

test('Node agrees that a cut file is one', async () => {
  const whole = readFileSync(`${fixtures}fedavg/tiny/leaf-0000.npy`);
  await failsWith('pickle-truncated', () => openWeights(memorySource(whole.subarray(0, 300))));
});

test.run();
