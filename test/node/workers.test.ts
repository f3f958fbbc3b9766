// Jobs on worker threads. Threads run built files only, so this suite uses the built door.
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { aggregateFiles, encodeWeights, openFileSink, startJobs, strategies } from '../../dist/index.js';
import { failsWith } from '../helpers/errors.ts';

const test = suite('workers');
const folder = mkdtempSync(join(tmpdir(), 'cambium-workers-'));
const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));
const tiny = ['leaf-0000', 'leaf-0001', 'leaf-0002'].map((leaf) => ({
  path: fixture(`fedavg/tiny/${leaf}.npy`),
}));

test.after(() => rmSync(folder, { recursive: true, force: true }));

/** A weight file with one float32 tensor of zeros. */
async function writeZeros(name: string, length: number): Promise<string> {
  const path = join(folder, name);
  const tensors = [{ name: null, dtype: 'float32' as const, shape: [length] }];
  const encoding = await encodeWeights({ format: 'npy-object', weighting: 1, tensors });
  const sink = await openFileSink(path);
  await sink.write(encoding.byteLength - 1, Uint8Array.of(0));
  for (const { offset, bytes } of encoding.literals) await sink.write(offset, bytes);
  await sink.commit();
  return path;
}

test('examine tells the layout, and non-finite elements when asked', async () => {
  const jobs = startJobs();
  const [good, bad] = await Promise.all([
    jobs.examine(tiny[0]!.path),
    jobs.examine(fixture('fedavg/non-finite/leaf-0002.npy'), { checkFinite: true, name: 'leaf' }),
  ]);
  assert.is(good.layout.weighting, 1329);
  assert.equal(good.nonFinite, []);
  assert.equal(bad.nonFinite, [
    { tensor: 0, index: 3, leaf: 'leaf' },
    { tensor: 0, index: 4, leaf: 'leaf' },
  ]);
  await jobs.close();
});

test('examine tells the norm, alone and as the distance to a model', async () => {
  const jobs = startJobs({ threads: 1 });
  const path = tiny[0]!.path;
  const alone = await jobs.examine(path, { checkFinite: true });
  const same = await jobs.examine(path, { checkFinite: true, model: path });
  const other = await jobs.examine(path, { checkFinite: true, model: tiny[1]!.path });
  const not = await jobs.examine(path, { model: path });
  assert.equal([same.norm, same.isDifference, not.norm, not.isDifference], [0, true, null, false]);
  assert.ok(alone.norm! > 0 && !alone.isDifference && other.norm! > 0 && other.norm !== alone.norm);
  await failsWith('file-not-found', () =>
    jobs.examine(path, { checkFinite: true, model: join(folder, 'none') }),
  );
  await jobs.close();
});

test('inputs may be in memory, alone and beside files, compressed ones too', async () => {
  const jobs = startJobs({ threads: 1 });
  const here = (path: string) => ({
    path: join(folder, 'nowhere'),
    bytes: new Uint8Array(readFileSync(path)),
  });
  const digests: (string | null)[] = [];
  for (const held of [0, 1, 3]) {
    const inputs = tiny.map(({ path }, i) => ({ ...(i < held ? here(path) : { path }), leaf: `leaf-${i}` }));
    const output = join(folder, 'held.npy');
    digests.push((await jobs.aggregate({ inputs, output })).sha256);
    digests.push((await jobs.merge({ inputs, output, to: 'mean', format: 'npy-object' })).sha256);
  }
  assert.is(new Set(digests).size, 1);
  for (const file of [tiny[0]!.path, fixture('npz/savez-compressed.npz')]) {
    const { path, bytes } = here(file);
    const options = { checkFinite: true, name: 'held' };
    assert.equal(await jobs.examine(path, { ...options, bytes }), await jobs.examine(file, options));
  }
  await failsWith('npy-truncated', () => jobs.examine(folder, { bytes: new Uint8Array(0) }));
  assert.not.ok(readdirSync(folder).some((name) => name.startsWith('.')));
  rmSync(join(folder, 'held.npy'));
  await jobs.close();
});

test('archives are unpacked, compared and written', async () => {
  const jobs = startJobs({ threads: 1 });
  const { layout } = await jobs.examine(fixture('npz/savez-compressed.npz'), { checkFinite: true });
  assert.is(layout.tensors.length, 12);
  assert.is(layout.tensors[0]!.byteOffset, null);
  for (const [file, code] of [
    ['crc', 'zip-crc'],
    ['deflate-garbage', 'zip-deflate'],
    ['bomb-lying-size', 'zip-size'],
  ]) {
    const path = fixture(`bad-npz/${file}.npz`);
    await failsWith(code!, () => jobs.examine(path, { checkFinite: true }));
    const output = join(folder, 'never.npz');
    await failsWith(code!, () => jobs.aggregate({ inputs: [{ path }], output }));
  }
  const mixed = ['leaf-a.npy', 'leaf-b.npz', 'leaf-c.npy'].map((leaf) => ({
    path: fixture(`fedavg/container-mix/${leaf}`),
  }));
  const output = join(folder, 'mean.npz');
  const report = await jobs.aggregate({ inputs: mixed, output });
  assert.is(report.format, 'npz');
  const bytes = readFileSync(output);
  assert.is(report.sha256, createHash('sha256').update(bytes).digest('hex'));
  const again = await jobs.aggregate({ inputs: [{ path: output }], output: join(folder, 'again') });
  assert.is(again.format, 'npz');
  assert.is(again.sha256, report.sha256);
  assert.equal(
    readdirSync(folder).filter((name) => name.startsWith('.') || name.startsWith('never')),
    [],
  );
  await jobs.close();
});

test('more jobs than threads wait in line', async () => {
  const jobs = startJobs({ threads: 2 });
  const reports = await Promise.all(
    Array.from({ length: 9 }, (_, i) =>
      jobs.aggregate({ inputs: tiny, output: join(folder, `mean-${i}.npy`) }),
    ),
  );
  assert.is(new Set(reports.map((report) => report.sha256)).size, 1);
  await jobs.close();
});

test('wrong arguments are refused before anything is read', async () => {
  const good = { inputs: tiny, output: join(folder, 'wrong.npy') };
  const refusals: readonly (readonly [type: typeof Error, wrong: Record<string, unknown>])[] = [
    [TypeError, { inputs: undefined }],
    [TypeError, { inputs: tiny.map(({ path }) => path) }],
    [TypeError, { inputs: tiny.map(({ path }) => ({ path, weighting: '1' })) }],
    [TypeError, { output: undefined }],
    [RangeError, { threads: 0 }],
    [RangeError, { threads: '2' }],
    [RangeError, { nonFinite: 'ignore' }],
    [RangeError, { to: 'median' }],
  ];
  const jobs = startJobs({ threads: 1 });
  const rejection = (work: Promise<unknown>) => work.then(() => undefined).catch((error: unknown) => error);
  for (const [type, wrong] of refusals) {
    for (const work of 'to' in wrong ? [jobs.merge] : [jobs.aggregate, jobs.merge]) {
      const error = await rejection(work({ ...good, to: 'mean', ...wrong } as never));
      assert.ok(error instanceof type, `${Object.keys(wrong)}: ${error}`);
    }
  }
  const input = tiny[0]!.path;
  for (const wrong of [{ weighting: -1 }, { weighting: Number.NaN }, { encode: { quantise: 'int4' } }]) {
    assert.ok(
      (await rejection(jobs.convert({ input, output: good.output, ...wrong } as never))) instanceof
        RangeError,
    );
  }
  await failsWith('output-format', () => jobs.convert({ input, output: join(folder, 'nameless') }));
  for (const strategy of ['median', null, strategies.median, strategies.fedAvgM({ momentum: 0.1 })]) {
    await failsWith('strategy-unknown', () => jobs.aggregate({ ...good, strategy: strategy as never }));
  }
  // What no thread can be told leaves the thread free for the next job.
  const untold = await rejection(jobs.aggregate({ ...good, digest: (() => true) as never }));
  assert.is((untold as DOMException).name, 'DataCloneError');
  assert.is((await jobs.aggregate({ ...good, strategy: { name: 'median' } })).strategy, 'median');
  await jobs.close();
});

test('what a callback throws ends its job and is what the job is rejected with', async () => {
  const jobs = startJobs({ threads: 1 });
  const thrown = new Error('thrown by a callback');
  const onProgress = () => {
    throw thrown;
  };
  const request = { inputs: tiny, output: join(folder, 'called-back.npy') };
  await jobs.aggregate(request, { onProgress }).then(
    () => assert.unreachable('it was not rejected'),
    (error: unknown) => assert.is(error, thrown),
  );
  await jobs.aggregate(request);
  await jobs.close();
});

test('errors keep their class, code and place', async () => {
  writeFileSync(join(folder, 'words.npy'), 'words');
  const error = await failsWith('format-unknown', () =>
    aggregateFiles({
      inputs: [{ path: join(folder, 'words.npy'), leaf: 'a leaf' }],
      output: join(folder, 'x.npy'),
    }),
  );
  assert.is(error.name, 'FormatError');
  assert.match(error.message, /a leaf/);
});

test('an aborted job stops, tidies up and leaves its thread usable', async () => {
  // So large (and sparse) that it is not over before this thread hears that it has begun.
  const path = await writeZeros('large.npy', 500_000_000);
  const jobs = startJobs({ threads: 1 });
  const controller = new AbortController();
  const reason = new Error('enough');
  const job = jobs.aggregate(
    { inputs: [{ path }], output: join(folder, 'never.npy') },
    { signal: controller.signal, onProgress: () => controller.abort(reason) },
  );
  let caught: unknown;
  await job.catch((error) => {
    caught = error;
  });
  assert.is(caught, reason);
  assert.equal(
    readdirSync(folder).filter((file) => /never/.test(file)),
    [],
  );
  const report = await jobs.aggregate({ inputs: tiny, output: join(folder, 'after.npy') });
  assert.is(report.leaves, 3);
  await jobs.close();
});

test('closing rejects what is under way and what waits', async () => {
  const path = await writeZeros('larger.npy', 20_000_000);
  const jobs = startJobs({ threads: 1 });
  const request = { inputs: [{ path }], output: join(folder, 'closed.npy') };
  const pending = [jobs.aggregate(request), jobs.aggregate(request)].map((job) =>
    failsWith('internal-worker', () => job),
  );
  await jobs.close();
  await Promise.all(pending);
  await failsWith('internal-closed', () => jobs.examine(path));
});

test('threads share an aggregation, with the same bits', async () => {
  const jobs = startJobs({ threads: 1 });
  const path = join(folder, 'random.npy');
  const tensors = [{ name: null, dtype: 'float32' as const, shape: [5_000_000] }];
  const encoding = await encodeWeights({ format: 'npy-object', weighting: 3, tensors });
  const paths: string[] = [];
  for (let k = 0; k < 3; k++) {
    const bytes = new Uint8Array(encoding.byteLength);
    const view = new DataView(bytes.buffer);
    const { offset, byteLength } = encoding.payloads[0]!;
    for (let at = 0; at < byteLength; at += 4)
      view.setInt32(offset + at, 0x3d00_0000 + ((at * (k + 3)) % 0xff_ffff), true);
    for (const { offset, bytes: literal } of encoding.literals) bytes.set(literal, offset);
    paths.push(`${path}.${k}`);
    writeFileSync(paths[k]!, bytes);
  }
  const inputs = paths.map((path, k) => ({ path, weighting: k + 1 }));
  for (const format of ['npy-object', 'npz'] as const) {
    const digests: (string | null)[] = [];
    for (const threads of [1, 2, 4]) {
      const output = join(folder, `threads-${threads}.${format}`);
      const report = await jobs.aggregate({ inputs, output, threads, format });
      assert.is(report.bytesRead, 3 * 20_000_000);
      assert.is(report.sha256, createHash('sha256').update(readFileSync(output)).digest('hex'));
      digests.push(report.sha256);
    }
    assert.is(new Set(digests).size, 1, `${digests}`);
    const { layout } = await jobs.examine(join(folder, `threads-2.${format}`), { checkFinite: true });
    assert.is(layout.tensors.length, 1);
  }
  await jobs.close();
});

test.run();
