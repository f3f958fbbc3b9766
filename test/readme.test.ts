/**
 * The README does what it says: every block of JavaScript and shell in it runs, as it stands there, with the built package,
 * real files and a real server. A block that nobody could run is marked by `<!-- illustration -->` in the line before it.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const run = promisify(execFile);
const root = fileURLToPath(new URL('..', import.meta.url));
const cli = join(root, 'dist/cli.js');

/** Lines that are tested elsewhere. */
const ELSEWHERE = new Map([['npm install cambium', 'test/package.test.ts']]);

/** Commands that go on for ever: what they have said when they have shown that they work. */
const ENDLESS: readonly (readonly [command: RegExp, said: RegExp])[] = [
  [/^cambium run watch /, /\S/],
  [/^cambium join /, /uploaded/],
  [/^cambium relay /, /waiting|joined|relay/],
];

/** What a block of JavaScript takes as given: a name that it uses and does not make. */
const GIVEN: readonly (readonly [name: string, code: string])[] = [
  [
    'client',
    `const { Client: GivenClient, readCredentials: readGiven } = await import('cambium');
     const client = new GivenClient(await readGiven('leaf.json'));
     // A loop over the queue ends with the first metrics.
     const send = client.sendPerformanceMetrics.bind(client);
     client.sendPerformanceMetrics = async (...args) => { await send(...args); await client.close(); };`,
  ],
  [
    'model',
    `const { createRequire } = await import('node:module');
     const require = createRequire(import.meta.url);
     const tf = require('@tensorflow/tfjs-core');
     const given = require('@tensorflow/tfjs-layers');
     require('@tensorflow/tfjs-backend-cpu');
     const model = given.sequential({ layers: [given.layers.dense({ units: 3, inputShape: [2] })] });`,
  ],
];

interface Block {
  readonly language: string;
  readonly line: number;
  readonly text: string;
}

/** The blocks of code that are to run. */
function blocksOf(markdown: string): Block[] {
  const blocks: Block[] = [];
  let open: { language: string; line: number; lines: string[]; isShown: boolean } | undefined;
  let before = '';
  for (const [i, line] of markdown.split('\n').entries()) {
    const fence = /^```(\w*)/.exec(line);
    if (open !== undefined) {
      if (fence === null) open.lines.push(line);
      else {
        if (!open.isShown)
          blocks.push({ language: open.language, line: open.line, text: open.lines.join('\n') });
        open = undefined;
      }
    } else if (fence !== null) {
      open = {
        language: fence[1] ?? '',
        line: i + 1,
        lines: [],
        isShown: before === '<!-- illustration -->',
      };
    }
    if (line.trim() !== '') before = line.trim();
  }
  return blocks;
}

/** A folder of its own for a block, with everything that the README supposes to be there. */
function prepare(name: string): string {
  const folder = join(place, name);
  mkdirSync(join(folder, 'node_modules'), { recursive: true });
  symlinkSync(root, join(folder, 'node_modules/cambium'));
  symlinkSync(join(root, 'node_modules/@tensorflow'), join(folder, 'node_modules/@tensorflow'));
  for (const file of FILES) copyFileSync(join(place, file), join(folder, file));
  return folder;
}

const FILES = [
  ...['a.npy', 'b.npy', 'update.npy', 'global.npy', 'leaf.json', 'leaf-above.json'],
  ...Array.from({ length: 10 }, (_, i) => `leaf-${i}.npy`),
  ...['north.partial.safetensors', 'south.partial.safetensors'],
];

/** What stands for words in capitals, where a block has not made it itself. */
const known = new Map<string, string>();

let place: string;
let env: NodeJS.ProcessEnv;
const started: ChildProcess[] = [];

const cambium = (...args: string[]) => run(process.execPath, [cli, ...args], { cwd: place, env });
const idIn = (text: string) => /[0-9a-f]{8}-[0-9a-f-]{27}/.exec(text)?.[0] ?? '';

/** Runs a block of JavaScript as a module. */
async function runModule({ text, line }: Block, folder: string): Promise<void> {
  const given = GIVEN.filter(([name]) => new RegExp(`(?<!['"\\w])${name}[.,)]`).test(text)).filter(
    ([name]) => !new RegExp(`(const|let) ${name}\\b`).test(text),
  );
  const path = join(folder, `line-${line}.mjs`);
  // Imports are hoisted, so what is given may stand before them.
  const end = given.some(([name]) => name === 'client') ? 'await client.close();' : '';
  writeFileSync(path, `${given.map(([, code]) => code).join('\n')}\n${text}\n${end}\n`);
  await run(process.execPath, [path], { cwd: folder, env: { ...env, CAMBIUM_CREDENTIALS: 'leaf.json' } });
}

/** Runs a block of shell, line by line. */
async function runShell({ text }: Block, folder: string): Promise<void> {
  // Blocks that start no server talk to the one that is there.
  if (!text.includes('cambium serve')) symlinkSync(join(place, 'cambium-data'), join(folder, 'cambium-data'));
  const words = new Map(known);
  for (const raw of text.split('\n')) {
    let line = raw.replace(/\s+#.*$/, '').trim();
    if (line === '' || ELSEWHERE.has(line)) continue;
    for (const [word, id] of words) line = line.replaceAll(new RegExp(`\\b${word}\\b`, 'g'), id);
    if (line.endsWith('&')) {
      await start(line.slice(0, -1), folder, /listens on/);
      continue;
    }
    const endless = ENDLESS.find(([command]) => command.test(line));
    if (endless !== undefined) {
      await stop(await start(line, folder, endless[1]));
      continue;
    }
    const { stdout } = await run('bash', ['-euo', 'pipefail', '-c', line], { cwd: folder, env });
    const made = /^cambium (tree|branch) create/.exec(line)?.[1];
    if (made !== undefined) words.set(made.toUpperCase(), idIn(stdout));
  }
}

/** Starts a command and ends when it has said something. */
function start(line: string, folder: string, said: RegExp): Promise<ChildProcess> {
  const child = spawn('bash', ['-c', `exec ${line}`], {
    cwd: folder,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  started.push(child);
  let heard = '';
  return new Promise((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      createInterface(stream).on('line', (text) => {
        heard += `${text}\n`;
        if (said.test(text)) resolve(child);
      });
    }
    child.once('close', () => reject(new Error(`${line}: it ended\n${heard}`)));
  });
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const closed = once(child, 'close');
  child.kill('SIGINT');
  await closed;
}

const test = suite('readme');

test.before(async () => {
  place = mkdtempSync(join(tmpdir(), 'cambium-readme-'));
  const bin = join(place, 'bin');
  mkdirSync(bin);
  const script = (name: string, text: string) => {
    writeFileSync(join(bin, name), `#!/bin/sh\n${text}\n`);
    chmodSync(join(bin, name), 0o755);
  };
  script('cambium', `exec "${process.execPath}" "${cli}" "$@"`);
  // Stands for a training program: python train.py --in GLOBAL --out UPDATE
  script('python', `test "$2" = --in && test "$4" = --out && cp "${place}/update.npy" "$5"`);
  env = {
    ...process.env,
    PATH: `${bin}${delimiter}${process.env.PATH}`,
    CAMBIUM_PORT: '0',
    NODE_NO_WARNINGS: '1',
  };
  for (const name of ['CAMBIUM_SERVER', 'CAMBIUM_TOKEN', 'CAMBIUM_CREDENTIALS', 'CAMBIUM_CREDENTIALS_FILE']) {
    delete env[name];
  }
  const fixture = (i: number) => join(root, `test/fixtures/fedavg/tiny/leaf-000${i}.npy`);
  for (const [i, name] of ['a', 'b'].entries()) copyFileSync(fixture(i), join(place, `${name}.npy`));
  copyFileSync(fixture(0), join(place, 'update.npy'));
  // Enough of them for every rule.
  for (let i = 0; i < 10; i++) copyFileSync(fixture(i % 3), join(place, `leaf-${i}.npy`));
  await start('cambium serve', place, /listens on/);
  await Promise.all([
    cambium('aggregate', 'a.npy', 'b.npy', '-o', 'global.npy'),
    cambium('aggregate', 'a.npy', '-o', 'north.partial.safetensors', '--partial'),
    cambium('aggregate', 'b.npy', '-o', 'south.partial.safetensors', '--partial'),
  ]);
  const tree = idIn((await cambium('tree', 'create', 'here', '--json')).stdout);
  const branch = idIn((await cambium('branch', 'create', 'all', '--tree', tree, '--target', '1')).stdout);
  await cambium('leaf', 'create', 'leaf', '--branch', branch, '--out', 'leaf.json');
  await cambium('run', 'start', branch);
  const sums = await cambium('branch', 'create', 'above', '--tree', tree, '--target', '1', '--partial-sums');
  await cambium('leaf', 'create', 'above', '--branch', idIn(sums.stdout), '--out', 'leaf-above.json');
  await cambium('run', 'start', idIn(sums.stdout));
  known.set('TREE', tree);
});

test.after(async () => {
  await Promise.all(started.map(stop));
  rmSync(place, { recursive: true, force: true });
});

const RUNNERS: Readonly<Record<string, (block: Block, folder: string) => Promise<void>>> = {
  js: runModule,
  sh: runShell,
};

for (const block of blocksOf(readFileSync(join(root, 'README.md'), 'utf8'))) {
  const title = block.text.trim().split('\n')[0];
  test(`line ${block.line}, ${block.language}: ${title}`, async () => {
    const runner = RUNNERS[block.language];
    if (runner === undefined) {
      assert.unreachable(`a block of "${block.language}" does not run; mark it by <!-- illustration -->`);
    }
    await runner!(block, prepare(`line-${block.line}`));
  });
}

test('finds blocks, and leaves out illustrations', () => {
  const markdown = '```js\n1\n```\n\n<!-- illustration -->\n\n```sh\n2\n```\n```\n3\n```\n';
  assert.equal(blocksOf(markdown), [
    { language: 'js', line: 1, text: '1' },
    { language: '', line: 10, text: '3' },
  ]);
});

test('a block that fails is a failure', async () => {
  const folder = prepare('broken');
  const fails = async (work: Promise<void>) =>
    assert.ok(
      await work.then(
        () => false,
        () => true,
      ),
    );
  await fails(runModule({ language: 'js', line: 0, text: "import { nothing } from 'cambium';" }, folder));
  await fails(runShell({ language: 'sh', line: 0, text: 'cambium inspect none.npy' }, folder));
});

test.run();
