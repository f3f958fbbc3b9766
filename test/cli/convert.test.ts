// `cambium convert`, and `inspect` and `aggregate` over the formats it makes: the built command line in a process.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { encodeWeights } from '../../src/formats/encode.ts';
import { readTensors } from '../../src/formats/read.ts';
import { memorySource } from '../../src/tensor/bytes.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { Random, testSeed } from '../helpers/random.ts';
import { fileOf } from '../helpers/round-trips.ts';

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'cambium-convert-'));
const test = suite('command line: convert');
const random = new Random(testSeed());

test.after(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function cambium(env: NodeJS.ProcessEnv, ...args: string[]): Promise<Ended> {
  const options = { cwd: folder, env: { ...process.env, ...env } };
  return new Promise((resolve) => {
    execFile(process.execPath, [cli, ...args], options, (error, stdout, stderr) => {
      resolve({
        code: typeof error?.code === 'number' ? error.code : error === null ? 0 : -1,
        stdout,
        stderr,
      });
    });
  });
}

/** The report of a command that must work. */
async function report(...args: string[]) {
  const { code, stdout, stderr } = await cambium({}, ...args, '--json');
  assert.is(code, 0, stderr);
  return JSON.parse(stdout);
}

async function failsWith(exitCode: number, code: string, ...args: string[]) {
  const { code: actual, stdout } = await cambium({}, ...args, '--json');
  assert.is(JSON.parse(stdout).code, code, stdout);
  assert.is(actual, exitCode);
}

const readUpdate = (name: string) =>
  readTensors(memorySource(new Uint8Array(readFileSync(join(folder, name)))));

/** Compares names, dtypes, shapes and elements; tensors with names may be in another order. */
function sameTensors(actual: readonly Tensor[], expected: readonly Tensor[]) {
  assert.is(actual.length, expected.length);
  for (const [i, tensor] of expected.entries()) {
    const other = tensor.name === null ? actual[i]! : actual.find(({ name }) => name === tensor.name)!;
    assert.equal([other.name, other.dtype, other.shape], [tensor.name, tensor.dtype, tensor.shape]);
    sameBytes(other.data, tensor.data, `tensor ${i}`);
  }
}

test('a weight file goes through every format and comes back', async () => {
  // With names and without; the weighting of the second is no whole number.
  for (const source of ['weights/np1-named-pairs.npy', 'weights/np1-mixed.npy']) {
    const original = await readTensors(memorySource(new Uint8Array(readFileSync(fixture(source)))));
    let input = fixture(source);
    for (const [format, output] of [
      ['safetensors', 'a.safetensors'],
      ['npz', 'a.npz'],
      ['torch', 'a.pt'],
      ['npy-object', 'a.npy'],
      ['npz', 'b.npz'],
      ['safetensors', 'b.safetensors'],
      ['npy-object', 'b.npy'],
    ] as const) {
      const made = await report('convert', input, output);
      assert.equal(Object.keys(made), [
        'input',
        'output',
        'format',
        'weighting',
        'isDifference',
        'tensors',
        'parameters',
        'bytesRead',
        'seconds',
        'sha256',
      ]);
      assert.equal([made.input, made.output, made.format], [input, output, format]);
      assert.equal([made.weighting, made.tensors], [original.weighting, original.tensors.length]);
      const file = readFileSync(join(folder, output));
      assert.is(made.sha256, createHash('sha256').update(file).digest('hex'));
      const update = await readUpdate(output);
      assert.is(update.weighting, original.weighting);
      sameTensors(update.tensors, original.tensors);
      input = output;
    }
  }
});

test('big endian and Fortran order become little endian and C order, over many blocks', async () => {
  // 3 × 300,001 float64, big endian, columns first: 7 MB, read in blocks of 256 KiB.
  const [rows, columns] = [3, 300_001];
  const values = Float64Array.from({ length: rows * columns }, () => random.gauss());
  values[7] = Number.NaN;
  const stored = Buffer.alloc(values.byteLength);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) stored.writeDoubleBE(values[r * columns + c]!, 8 * (c * rows + r));
  }
  const dict = `{'descr': '>f8', 'fortran_order': True, 'shape': (${rows}, ${columns}), }`.padEnd(117);
  const head = Buffer.from(`\x93NUMPY\x01\0\x76\0${dict}\n`, 'latin1');
  writeFileSync(join(folder, 'fortran.npy'), Buffer.concat([head, stored]));
  const made = await report('convert', 'fortran.npy', 'c.safetensors', '--weighting', '0.5');
  assert.is(made.parameters, rows * columns);
  const { tensors, weighting } = await readUpdate('c.safetensors');
  assert.is(weighting, 0.5);
  assert.equal([tensors[0]!.name, tensors[0]!.shape], [null, [rows, columns]]);
  sameBytes(tensors[0]!.data, values);
  await report('convert', 'c.safetensors', 'plain.npy', '--format', 'npy');
  const plain = await readUpdate('plain.npy');
  assert.is(plain.layout.format, 'npy');
  sameBytes(plain.tensors[0]!.data, values);
});

test('a file may become itself', async () => {
  const bytes = readFileSync(fixture('safetensors/half.safetensors'));
  writeFileSync(join(folder, 'self.safetensors'), bytes);
  await report('convert', 'self.safetensors', 'self.safetensors', '--weighting', '7');
  const { weighting, tensors } = await readUpdate('self.safetensors');
  assert.is(weighting, 7);
  sameTensors(tensors, (await readTensors(memorySource(new Uint8Array(bytes)))).tensors);
});

test('what NumPy wrote is written again byte for byte, also where it shares bytes by value', async () => {
  const input = fixture('weights/np1-mixed.npy');
  const bytes = new Uint8Array(readFileSync(input));
  await report('convert', input, 'same.npy');
  sameBytes(new Uint8Array(readFileSync(join(folder, 'same.npy'))), bytes);
  await report('aggregate', input, '-o', 'alone.npy');
  sameBytes(new Uint8Array(readFileSync(join(folder, 'alone.npy'))), bytes);
});

test('archives are deflated and object arrays aligned on request', async () => {
  const input = fixture('weights/np1-mixed.npy');
  const original = await readTensors(memorySource(new Uint8Array(readFileSync(input))));
  const stored = await report('convert', input, 'stored.npz');
  const packed = await report('convert', input, 'packed.npz', '--compress');
  const file = readFileSync(join(folder, 'packed.npz'));
  assert.is(packed.sha256, createHash('sha256').update(file).digest('hex'));
  assert.is.not(packed.sha256, stored.sha256);
  const { weighting, tensors, layout } = await readUpdate('packed.npz');
  assert.is(weighting, original.weighting);
  sameTensors(tensors, original.tensors);
  assert.ok(layout.tensors.every(({ byteOffset }) => byteOffset === null));

  await report('aggregate', 'packed.npz', 'stored.npz', '-o', 'mean.npz', '--compress');
  sameTensors((await readUpdate('mean.npz')).tensors, original.tensors);

  await report('convert', 'packed.npz', 'aligned.npy', '--align');
  const aligned = await readUpdate('aligned.npy');
  sameTensors(aligned.tensors, original.tensors);
  for (const { byteOffset, byteLength } of aligned.layout.tensors) {
    if (byteLength > 0) assert.is(byteOffset! % 64, 0);
  }

  await failsWith(2, 'output-format', 'convert', input, 'no.npy', '--compress');
  await failsWith(2, 'output-format', 'aggregate', input, '-o', 'no.npz', '--align');
  assert.equal(
    readdirSync(folder).filter((name) => /^no|scratch|part/.test(name)),
    [],
  );
});

test('what compresses well, and what not at all, over many blocks', async () => {
  const zeros = { name: 'zeros', dtype: 'float32', shape: [400_000] } as const;
  const noise = { name: 'noise', dtype: 'uint8', shape: [700_001] } as const;
  const update = {
    weighting: 3,
    tensors: [
      { ...zeros, data: new Uint8Array(1_600_000) },
      { ...noise, data: Uint8Array.from({ length: 700_001 }, () => random.bits() & 255) },
    ],
  };
  writeFileSync(join(folder, 'many.npz'), await fileOf(update, { format: 'npz' }));
  await report('convert', 'many.npz', 'small.npz', '--compress');
  const { byteLength } = readFileSync(join(folder, 'small.npz'));
  assert.ok(byteLength > 700_001 && byteLength < 710_000, `${byteLength} bytes`);
  const read = await readUpdate('small.npz');
  assert.is(read.weighting, 3);
  sameTensors(read.tensors, update.tensors);
});

test('.npy is a plain array for one tensor without a weighting', async () => {
  await report('convert', fixture('safetensors/proto-key.safetensors'), 'one.npy');
  assert.is((await readUpdate('one.npy')).layout.format, 'npy');
  await report('convert', fixture('safetensors/proto-key.safetensors'), 'one.npy', '--weighting', '3');
  const weighted = await readUpdate('one.npy');
  assert.equal(
    [weighted.layout.format, weighted.weighting, weighted.tensors[0]!.name],
    ['npy-object', 3, '__proto__'],
  );
});

test('anonymous elements of two bytes are bfloat16 when the user says so', async () => {
  const source = fixture('npy/bf16-lt-V2.npy');
  await failsWith(65, 'convert-format', 'convert', source, 'v.safetensors');
  await report('convert', source, 'v.safetensors', '--void16', 'bfloat16');
  assert.is((await readUpdate('v.safetensors')).tensors[0]!.dtype, 'bfloat16');
});

test('what cannot be is an error, and leaves nothing behind', async () => {
  const place = join(folder, 'place');
  mkdirSync(place);
  const basic = fixture('safetensors/basic.safetensors');
  const cases: [exitCode: number, code: string, ...args: string[]][] = [
    [2, 'usage', basic],
    [2, 'usage', basic, 'place/x'],
    [2, 'usage', basic, 'place/x.bin'],
    [2, 'usage', basic, 'place/x.npy', '--format', 'hdf5'],
    [2, 'usage', basic, 'place/x.npy', '--weighting', 'many'],
    [2, 'usage', basic, 'place/x.npy', '--void16', 'int16'],
    [65, 'weighting-missing', basic, 'place/x.npy'],
    [65, 'convert-format', basic, 'place/x.npy', '--format', 'npy'],
    [65, 'convert-format', fixture('npy/c16-be.npy'), 'place/x.safetensors'],
    [65, 'st-offsets', fixture('bad-safetensors/short.safetensors'), 'place/x.npy', '--weighting', '1'],
    [74, 'file-not-found', 'absent.npy', 'place/x.safetensors'],
    [74, 'file-not-found', basic, 'absent/x.safetensors'],
  ];
  for (const [exitCode, code, ...args] of cases) await failsWith(exitCode, code, 'convert', ...args);
  assert.equal(readdirSync(place), []);
});

test('a report for people', async () => {
  const { stdout } = await cambium(
    {},
    'convert',
    fixture('safetensors/basic.safetensors'),
    'people.safetensors',
  );
  assert.match(
    stdout,
    /^people\.safetensors: safetensors, weighting none, 2 tensors, 7 parameters\nread 32 B in /,
  );
});

test('means are written in the format of the inputs, or of the name', async () => {
  const inputs = ['0', '1', '2'].map((i) => fixture(`fedavg/tiny/leaf-000${i}.npy`));
  const expected = await report('aggregate', ...inputs, '-o', 'mean.npy');
  const files = await Promise.all(
    inputs.map(
      async (input, i) => (await report('convert', input, `leaf-${i}.safetensors`)).output as string,
    ),
  );
  const mean = await report('aggregate', ...files, '-o', 'mean.safetensors');
  assert.equal([mean.format, mean.totalWeighting], ['safetensors', expected.totalWeighting]);
  const [one, other] = await Promise.all([readUpdate('mean.npy'), readUpdate('mean.safetensors')]);
  assert.is(other.weighting, expected.totalWeighting);
  sameTensors(other.tensors, one.tensors);
  assert.is((await report('aggregate', ...files, '-o', 'mean.out')).format, 'safetensors');
  assert.is((await report('aggregate', ...files, '-o', 'names.npy')).format, 'npy-object');
  sameTensors((await readUpdate('names.npy')).tensors, one.tensors);
  assert.is(
    (await report('aggregate', ...inputs, '-o', 'x', '--format', 'safetensors')).format,
    'safetensors',
  );
  await failsWith(2, 'output-format', 'aggregate', inputs[0]!, files[1]!, '-o', 'mixed.out');
  assert.ok(!existsSync(join(folder, 'mixed.out')));
});

test('inspect tells statistics, with and without digests', async () => {
  const file = fixture('safetensors/basic.safetensors');
  const { tensors } = await report('inspect', file, '--stats');
  assert.is(tensors[1].sha256, createHash('sha256').update(readFileSync(file).subarray(192)).digest('hex'));
  assert.equal([tensors[1].min, tensors[1].max, tensors[1].zeros], [tensors[1].mean, tensors[1].mean, 0]);
  const without = await report('inspect', file, '--stats', '--no-digest');
  const { sha256: _, ...rest } = tensors[1];
  assert.equal(without.tensors[1], rest);
});

test('a conversion takes the same memory for any file', async () => {
  // 400 MB of zeros that the file system need not store.
  const { byteLength, literals } = await encodeWeights({
    format: 'safetensors',
    weighting: 1,
    tensors: [{ name: 'w', dtype: 'float32', shape: [100_000_000] }],
  });
  const path = join(folder, 'large.safetensors');
  writeFileSync(path, literals[0]!.bytes);
  truncateSync(path, byteLength);
  const probe = 'process.on("exit", () => console.error("peak", process.resourceUsage().maxRSS))';
  const { stdout, stderr } = await cambium(
    { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(probe)}` },
    'convert',
    'large.safetensors',
    'large.npy',
    '--json',
  );
  assert.is(JSON.parse(stdout).bytesRead, 400_000_000);
  const peak = Math.max(...[...stderr.matchAll(/peak (\d+)/g)].map(([, kilobytes]) => Number(kilobytes)));
  console.log(`peak ${peak} kB`);
  assert.ok(peak > 0 && peak < 200_000, stderr);
});

test.run();
