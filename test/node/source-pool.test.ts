// More files than may be open: pools that close and open again, and a whole command under a small limit.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { encodeWeights } from '../../src/formats/encode.ts';
import { SourcePool } from '../../src/node/source-pool.ts';
import { failsWith } from '../helpers/errors.ts';
import { Random } from '../helpers/random.ts';

const test = suite('source pool');
const folder = mkdtempSync(join(tmpdir(), 'cambium-pool-'));
const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const seed = Number(process.env.CAMBIUM_SEED ?? 11);
console.log(`seed ${seed}`);

test.after(() => rmSync(folder, { recursive: true, force: true }));

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

test('a pipe is refused at once', async () => {
  const pipe = join(folder, 'pipe');
  spawnSync('mkfifo', [pipe]);
  await failsWith('file-not-regular', () => new SourcePool().open(pipe));
});

test('reads any of many files with few of them open', () => {
  const paths = Array.from({ length: 20 }, (_, i) => join(folder, `file-${i}`));
  for (const [i, path] of paths.entries()) writeFileSync(path, Uint8Array.of(i, i + 1, i + 2));
  const before = process.platform === 'linux' ? openDescriptors() : 0;
  const pool = new SourcePool(3);
  const sources = paths.map((path) => pool.open(path));
  const random = new Random(seed);
  for (let n = 0; n < 200; n++) {
    const i = random.integer(0, 19);
    const target = new Uint8Array(2);
    assert.is(sources[i]!.readInto(1, target), 2);
    assert.equal([...target], [i + 1, i + 2]);
    assert.is(sources[i]!.handle?.kind, 'pooled');
  }
  if (process.platform === 'linux') assert.ok(openDescriptors() <= before + 3);
  for (const source of sources) source.checkUnchanged?.();
  pool.close();
  if (process.platform === 'linux') assert.ok(openDescriptors() <= before); // fewer, when the host closes one meanwhile
});

test('a file that was replaced or changed while it was closed is noticed', async () => {
  const paths = ['one', 'two'].map((name) => join(folder, name));
  for (const path of paths) writeFileSync(path, 'abcd');
  const pool = new SourcePool(1);
  const [first, second] = paths.map((path) => pool.open(path)) as [ReturnType<SourcePool['open']>, unknown];
  assert.ok(second);
  writeFileSync(paths[0]!, 'efgh');
  utimesSync(paths[0]!, 1, 1);
  await failsWith('file-changed', () => first.readInto(0, new Uint8Array(4)));
  rmSync(paths[0]!);
  await failsWith('file-not-found', () => first.readInto(0, new Uint8Array(4)));
  pool.close();
});

test('a hundred inputs under a limit of 64 open files, on two threads', async () => {
  const tensors = [{ name: null, dtype: 'float32' as const, shape: [100_000] }];
  const encoding = await encodeWeights({ format: 'npy-object', weighting: 2, tensors });
  const paths: string[] = [];
  for (let i = 0; i < 100; i++) {
    const bytes = new Uint8Array(encoding.byteLength).fill(i & 0x3f);
    for (const literal of encoding.literals) bytes.set(literal.bytes, literal.offset);
    paths.push(join(folder, `many-${i}.npy`));
    writeFileSync(paths[i]!, bytes);
  }
  const digests = ['ulimit -n 64', 'true'].map((limit, n) => {
    const output = join(folder, `limited-${n}.npy`);
    const { status, stdout, stderr } = spawnSync(
      'sh',
      [
        '-c',
        `${limit}; exec "$0" "$@"`,
        process.execPath,
        cli,
        'aggregate',
        ...paths,
        '-o',
        output,
        '--json',
      ].concat(['--threads', '2']),
      { encoding: 'utf8' },
    );
    assert.is(status, 0, stderr);
    return JSON.parse(stdout).sha256 as string;
  });
  assert.is(digests[0], digests[1]);
});

test.run();
