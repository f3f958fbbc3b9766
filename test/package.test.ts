// What a user gets: the package, packed and installed alone in an empty project. Each door must import there, the types
// must hold, and the command line must inspect and aggregate.
import { execFile } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { nodeResolve } from '@rollup/plugin-node-resolve';
import { build } from 'esbuild';
import { rollup } from 'rollup';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const run = promisify(execFile);
const root = fileURLToPath(new URL('..', import.meta.url));
const test = suite('package');

let project: string;

/** Runs a command in the project. npm's own variables of an outer run would lead it back to this folder. */
function inProject(command: string, ...args: string[]) {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_/i.test(name)));
  return run(command, args, { cwd: project, env, maxBuffer: 16 << 20 });
}

test.before(async () => {
  project = mkdtempSync(join(tmpdir(), 'cambium-package-'));
  const { stdout } = await run('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', project], {
    cwd: root,
  });
  const packed = JSON.parse(stdout);
  const [entry] = (Array.isArray(packed) ? packed : Object.values(packed)) as { filename: string }[];
  writeFileSync(join(project, 'package.json'), '{ "private": true, "type": "module" }');
  await inProject('npm', 'install', '--no-audit', '--no-fund', '--prefer-offline', `./${entry!.filename}`);
  for (const leaf of ['leaf-0000', 'leaf-0001', 'leaf-0002']) {
    copyFileSync(join(root, `test/fixtures/fedavg/tiny/${leaf}.npy`), join(project, `${leaf}.npy`));
  }
});

test.after(() => rmSync(project, { recursive: true, force: true }));

test('installs little', async () => {
  const { stdout } = await inProject('npm', 'ls', '--all', '--parseable');
  const packages = stdout
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.split('node_modules/').pop());
  assert.equal(packages.sort(), ['@assemblyscript/loader', 'amqplib', 'cambium', 'ky']);
});

for (const [door, names] of [
  ['cambium', ['average', 'aggregateFiles', 'Client']],
  ['cambium/browser', ['average', 'Client', 'blobSource']],
  ['cambium/edge', ['average', 'Aggregation', 'memorySource']],
] as const) {
  test(`${door} imports and averages`, async () => {
    const code = `
      import * as door from '${door}';
      for (const name of ${JSON.stringify(names)}) if (!(name in door)) throw new Error(name);
      const update = (w, ...x) => ({ weighting: w, tensors: [door.tensorOf(Float32Array.from(x))] });
      const { tensors } = await door.average([update(1, 1, 2), update(3, 5, 6)]);
      console.log([...new Float32Array(tensors[0].data.buffer)].join());`;
    const { stdout } = await inProject(process.execPath, '--input-type=module', '-e', code);
    assert.is(stdout.trim(), '4,5');
  });
}

test('the command line inspects and aggregates', async () => {
  const cambium = (...args: string[]) => inProject('npx', '--no-install', 'cambium', ...args);
  const inspected = JSON.parse((await cambium('inspect', '--json', 'leaf-0000.npy')).stdout);
  assert.is(inspected.format, 'npy-object');
  assert.is(inspected.weighting, 1329);
  const files = ['leaf-0000.npy', 'leaf-0001.npy', 'leaf-0002.npy'];
  const report = JSON.parse((await cambium('aggregate', ...files, '-o', 'mean.npy', '--json')).stdout);
  assert.is(report.totalWeighting, 3915);
  assert.is(report.leaves, 3);
  assert.ok(readFileSync(join(project, 'mean.npy')).length > 128);
});

for (const resolution of [
  ['--module', 'esnext', '--moduleResolution', 'bundler'],
  ['--module', 'esnext', '--moduleResolution', 'bundler', '--customConditions', 'browser'],
  ['--module', 'node16', '--moduleResolution', 'node16'],
]) {
  test(`the types hold under strict checking: ${resolution.slice(3).join(' ')}`, async () => {
    writeFileSync(
      join(project, 'use.ts'),
      `import { average, type Client, type Layout, tensorOf } from 'cambium';
       import { aggregateBlobs, blobSource, Client as PageClient } from 'cambium/browser';
       import { memorySource } from 'cambium/edge';
       export const weighting: Promise<number | null> = average([{ weighting: 1, tensors: [tensorOf(new Float32Array(1))] }]).then((update) => update.weighting);
       export type Status = Client['runStatus'] | PageClient['runStatus'];
       export const offsets = (layout: Layout): (number | null)[] => layout.tensors.map((tensor) => tensor.byteOffset);
       export const state: Promise<Blob | undefined> = aggregateBlobs([{ blob: new Blob() }], { state: null }).then((report) => report.state);
       export const length: number = blobSource(new Blob()).byteLength + memorySource(new Uint8Array(8)).byteLength;\n`,
    );
    const tsc = join(root, 'node_modules/typescript/bin/tsc');
    const options = ['--noEmit', '--strict', '--target', 'es2022', ...resolution];
    const libraries = ['--lib', 'es2023,dom,dom.iterable,dom.asynciterable,esnext.disposable'];
    await inProject(process.execPath, tsc, ...options, ...libraries, 'use.ts').catch((error) => {
      assert.unreachable(error.stdout);
    });
  });
}

/** What a page imports, as a bundler sees it. */
const PAGE = `import { aggregateBlobs, Client, readTensors } from 'cambium';
  globalThis.page = { aggregateBlobs, Client, readTensors };`;

test('esbuild and rollup take the browser door, and warn of nothing', async () => {
  writeFileSync(join(project, 'page.js'), PAGE);
  const { metafile, warnings } = await build({
    entryPoints: ['page.js'],
    absWorkingDir: project,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'browser',
    metafile: true,
    outdir: 'out',
    logLevel: 'silent',
  });
  assert.equal(warnings, []);
  const told: string[] = [];
  const bundle = await rollup({
    input: join(project, 'page.js'),
    plugins: [nodeResolve({ browser: true })],
    onwarn: ({ message }) => told.push(message),
  });
  await bundle.close();
  assert.equal(told, []);
  for (const files of [Object.keys(metafile.inputs), bundle.watchFiles]) {
    const names = files
      .filter((file) => file.includes('node_modules/'))
      .map((file) => file.split('/').pop()!);
    assert.ok(names.includes('browser.js'));
    assert.not.ok(names.includes('index.js') || files.some((file) => file.includes('/ky/')), `${names}`);
  }
});

test.run();
