// Encoded updates and differences as a user makes and averages them: the built command line.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { average } from '../../src/aggregate/average.ts';
import { addModel } from '../../src/aggregate/differences.ts';
import { decodeUpdate, type EncodeOptions, encodeUpdate } from '../../src/aggregate/encode-update.ts';
import { readTensors } from '../../src/formats/read.ts';
import { writeWeights } from '../../src/formats/write.ts';
import { openFileSink } from '../../src/node/files.ts';
import { memorySource } from '../../src/tensor/bytes.ts';
import { type ModelUpdate, type Tensor, tensorOf } from '../../src/tensor/tensor.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { commandIn } from '../helpers/command.ts';
import { Random, testSeed } from '../helpers/random.ts';

const folder = mkdtempSync(join(tmpdir(), 'cambium-encoded-'));
const test = suite('command line: encoded updates');
const random = new Random(testSeed());

test.after(() => rmSync(folder, { recursive: true, force: true }));

const { report, failsWith } = commandIn(folder);

const read = async (name: string) => readTensors(memorySource(readFileSync(join(folder, name)), name));
const bytesOf = (list: readonly Tensor[]) => Buffer.concat(list.map(({ data }) => data));

async function write(name: string, update: ModelUpdate): Promise<void> {
  await writeWeights(await openFileSink(join(folder, name)), update, { format: 'safetensors' });
}

function update(weighting: number, n: number): ModelUpdate {
  return {
    weighting,
    tensors: [
      tensorOf(
        new Float32Array(n).map(() => random.gauss()),
        [n],
        'w',
      ),
      tensorOf(Int32Array.of(weighting, 7), [2], 'steps'),
      tensorOf(Float32Array.of(1, -2, 3), [3], 'bias'),
    ],
  };
}

const N = 70_000;
const model = update(1, N);
const leaves = [update(3, N), update(5, N), update(11, N)];
await write('model.safetensors', model);
for (const [i, leaf] of leaves.entries()) await write(`leaf-${i}.safetensors`, leaf);

test('convert makes what encodeUpdate does, and keeps what is left over', async () => {
  const kinds: readonly [string[], EncodeOptions][] = [
    [['--quantise', 'int8'], { quantise: 'int8' }],
    [['--quantise', 'int8-block:64'], { quantise: 'int8-block', block: 64 }],
    [['--top-k', '0.05'], { topK: 0.05 }],
  ];
  for (const [i, [args, options]] of kinds.entries()) {
    const rest = `rest-${i}.safetensors`;
    const more = ['--difference-to', 'model.safetensors', '--residual', rest];
    let residual: readonly Tensor[] | undefined;
    for (const round of [0, 1]) {
      const [from, out] = [`leaf-${round}.safetensors`, `sent-${i}.safetensors`];
      const { sha256, format, weighting } = await report('convert', from, out, ...args, ...more);
      // The file has an order of its own.
      const own = await read(from);
      const differenceTo = (await read('model.safetensors')).tensors;
      const expected = await encodeUpdate(own, { ...options, differenceTo, residual });
      residual = expected.residual;
      sameBytes(readFileSync(join(folder, out)), expected.bytes, args.join(' '));
      sameBytes(bytesOf((await read(rest)).tensors), bytesOf(residual), `${args.join(' ')}: the rest`);
      assert.equal([format, weighting, sha256.length], ['safetensors', leaves[round]!.weighting, 64]);
    }
  }
  assert.equal(
    readdirSync(folder).filter((name) => name.startsWith('.')),
    [],
  );
});

test('the average of differences is added to the model, whoever says that they are some', async () => {
  const plain: string[] = [];
  const marked: string[] = [];
  for (const i of leaves.keys()) {
    marked.push(`diff-${i}.safetensors`);
    const how = [['--quantise', 'int8-block'], ['--top-k', '0.1'], []][i]!;
    await report(
      'convert',
      `leaf-${i}.safetensors`,
      marked[i]!,
      ...how,
      '--difference-to',
      'model.safetensors',
    );
    // Another format cannot say what the numbers are.
    plain.push(`diff-${i}.npz`);
    await report('convert', marked[i]!, plain[i]!);
  }
  const decoded = await Promise.all(marked.map((name) => decodeUpdate(readFileSync(join(folder, name)))));
  for (const strategy of ['mean', 'median']) {
    const { strategies } = await import('../../src/aggregate/strategies/index.ts');
    const mean = await average(decoded, { strategy: strategies[strategy as 'mean' | 'median'] });
    const expected = bytesOf(await addModel(mean.tensors, (await read('model.safetensors')).tensors));
    for (const threads of strategy === 'mean' ? ['1', '2'] : ['2']) {
      const more = ['--model', 'model.safetensors', '--strategy', strategy, '--threads', threads];
      await report('aggregate', ...marked, '-o', 'next.safetensors', ...more);
      sameBytes(bytesOf((await read('next.safetensors')).tensors), expected, strategy);
      await report('aggregate', ...plain, '-o', 'next.npz', '--differences', ...more);
      sameBytes(bytesOf((await read('next.npz')).tensors), expected, `${strategy}, plain`);
    }
  }
  const [lone] = marked as [string];
  await report('convert', lone, 'again.safetensors', '--add-to', 'model.safetensors');
  const again = bytesOf(await addModel(decoded[0]!.tensors, model.tensors));
  sameBytes(bytesOf((await read('again.safetensors')).tensors), again);
  await report('aggregate', lone, '-o', 'lone.safetensors', '--model', 'model.safetensors');
  sameBytes(bytesOf((await read('lone.safetensors')).tensors), again, 'a lone input');
});

test('what holds a difference without saying so is told', async () => {
  const difference = ['--quantise', 'int8', '--difference-to', 'model.safetensors'];
  const kinds: readonly (readonly [from: string, to: string, isDifference: boolean, ...string[]])[] = [
    ['leaf-0.safetensors', 'told.safetensors', true, ...difference],
    ['told.safetensors', 'told.npy', true],
    ['told.safetensors', 'told.npz', false, '--add-to', 'model.safetensors'],
    ['leaf-0.safetensors', 'told.npz', false],
  ];
  for (const [from, to, isDifference, ...more] of kinds) {
    assert.is((await report('convert', from, to, ...more)).isDifference, isDifference, `${from} to ${to}`);
  }
});

test('only the encoded bytes are read, on two threads too', async () => {
  const n = 4_000_000;
  const names: string[] = [];
  for (const [i, how] of [
    ['--quantise', 'int8-block'],
    ['--quantise', 'float16'],
    ['--top-k', '0.01'],
  ].entries()) {
    await write('big.safetensors', {
      weighting: 1,
      tensors: [
        tensorOf(
          new Float32Array(n).map((_, j) => ((i + j) % 977) - 488),
          [n],
          'w',
        ),
      ],
    });
    names.push(`big-${i}.safetensors`);
    await report('convert', 'big.safetensors', names[i]!, ...how);
  }
  const encoded = names.reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
  const digests = new Set<string>();
  for (const threads of ['1', '2']) {
    const { bytesRead, sha256 } = await report('aggregate', ...names, '-o', 'big.npy', '--threads', threads);
    assert.ok(bytesRead > 0.98 * encoded && bytesRead < 1.05 * encoded, `${bytesRead} of ${encoded}`);
    digests.add(sha256);
  }
  assert.is(digests.size, 1);
});

test('what makes no sense is refused, and nothing is written', async () => {
  const out = 'none.safetensors';
  const usage: string[][] = [
    ['--quantise', 'int4'],
    ['--quantise', 'int8:64'],
    ['--quantise', 'int8-block:17'],
    ['--quantise', 'int8', '--top-k', '0.1'],
    ['--top-k', '1.5'],
    ['--residual', 'rest'],
    ['--quantise', 'int8', '--add-to', 'model.safetensors'],
  ];
  for (const args of usage) await failsWith(2, 'usage', 'convert', 'leaf-0.safetensors', out, ...args);
  await failsWith(2, 'output-format', 'convert', 'leaf-0.safetensors', 'none.npz', '--top-k', '0.1');
  const difference = ['--difference-to', 'model.safetensors'];
  await report('convert', 'leaf-0.safetensors', 'one.safetensors', '--quantise', 'int8', ...difference);
  await failsWith(
    65,
    'aggregate-difference',
    'convert',
    'one.safetensors',
    out,
    '--top-k',
    '0.1',
    ...difference,
  );
  const other = ['--difference-to', 'one.safetensors'];
  await failsWith(65, 'aggregate-difference', 'convert', 'leaf-0.safetensors', out, ...other);
  await failsWith(
    65,
    'aggregate-difference',
    'convert',
    'leaf-0.safetensors',
    out,
    '--add-to',
    'one.safetensors',
  );
  const message = await failsWith(2, 'strategy-model-missing', 'aggregate', 'one.safetensors', '-o', out);
  assert.match(message, /one\.safetensors is a difference to a global model: give that model/);
  const mixed = [
    'aggregate',
    'one.safetensors',
    'leaf-1.safetensors',
    '-o',
    out,
    '--model',
    'model.safetensors',
  ];
  await failsWith(65, 'aggregate-difference', ...mixed);
  await write('small.safetensors', update(1, 5));
  await failsWith(
    65,
    'average-shape',
    'convert',
    'leaf-0.safetensors',
    out,
    '--difference-to',
    'small.safetensors',
  );
  const rest = ['--top-k', '0.1', '--residual', 'small.safetensors'];
  await failsWith(65, 'average-shape', 'convert', 'leaf-0.safetensors', out, ...rest);
  const nan = update(1, 70_000);
  new Float32Array(nan.tensors[0]!.data.buffer)[69_999] = Number.NaN;
  await write('nan.safetensors', nan);
  for (const how of [
    ['--quantise', 'int8'],
    ['--quantise', 'float16'],
    ['--top-k', '0.1'],
  ]) {
    const said = await failsWith(65, 'non-finite', 'convert', 'nan.safetensors', out, ...how);
    assert.match(said, /tensor "w"\[69999\] is NaN/);
  }
  writeFileSync(join(folder, 'no'), 'no weights');
  await failsWith(65, 'format-unknown', 'convert', 'leaf-0.safetensors', out, '--difference-to', 'no');
  await failsWith(74, 'file-not-found', 'convert', 'leaf-0.safetensors', out, '--difference-to', 'gone');
  assert.not.ok(existsSync(join(folder, out)));
});

test.run();
