// The demo as a user runs it: the built command line, its server and its leaves in processes of their own.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { RoundReport } from '../../src/cli/demo/federation.ts';
import { INSTALL_COMMAND } from '../../src/cli/demo/packages.ts';

type Line = RoundReport & { readonly server: string; readonly folder: string };

interface Running {
  readonly pid: number;
  /** What it printed so far. */
  readonly output: { stdout: string; stderr: string };
  /** Ends when a line on stdout or stderr contains the words. */
  says(words: string): Promise<string>;
  kill(signal: NodeJS.Signals): void;
  /** The exit code. */
  readonly ended: Promise<number | null>;
}

const root = fileURLToPath(new URL('../..', import.meta.url));
const built = join(root, 'dist/cli.js');
const temporary = mkdtempSync(join(tmpdir(), 'cambium-demo-test-'));
const test = suite('cli/demo');

test.after(() => rmSync(temporary, { recursive: true, force: true }));

let folders = 0;
const newFolder = () => join(temporary, `demo-${folders++}`);

function start(args: readonly string[], cli = built): Running {
  const child = spawn(process.execPath, [cli, 'demo', ...args], {
    cwd: temporary,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output = { stdout: '', stderr: '' };
  const waiting = new Set<(line: string) => void>();
  for (const name of ['stdout', 'stderr'] as const) {
    createInterface({ input: child[name] }).on('line', (line) => {
      output[name] += `${line}\n`;
      for (const look of waiting) look(line);
    });
  }
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  return {
    pid: child.pid!,
    output,
    says: (words) =>
      new Promise((resolve, reject) => {
        waiting.add((line) => line.includes(words) && resolve(line));
        ended.then(() =>
          reject(new Error(`ended without saying "${words}":\n${output.stdout}${output.stderr}`)),
        );
      }),
    kill: (signal) => child.kill(signal),
    ended,
  };
}

/** Runs a demo to its good end. */
async function run(...args: string[]): Promise<Line[]> {
  const { ended, output } = start([...args, '--json', '--data', newFolder()]);
  assert.is(await ended, 0, output.stderr);
  assert.is(output.stderr, '');
  return output.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}

/** The processes that one has started; Linux tells. */
function childrenOf(pid: number): number[] {
  const file = `/proc/${pid}/task/${pid}/children`;
  return existsSync(file) ? readFileSync(file, 'utf8').trim().split(' ').filter(Boolean).map(Number) : [];
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

const sha256 = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');

test('five leaves get further together than any of them alone', async () => {
  const lines = await run();
  assert.equal(
    lines.map((line) => line.round),
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
  );
  const last = lines.at(-1)!;
  assert.equal(
    last.leaves.map((leaf) => leaf.samples),
    [200, 450, 700, 950, 1200],
  );
  for (const line of lines) {
    assert.is(line.updates, 5);
    assert.is(line.totalWeighting, 3500);
    assert.ok(line.aggregationSeconds > 0);
    for (const { accuracy } of [...line.leaves, line, { accuracy: line.centralised }])
      assert.ok(accuracy >= 0 && accuracy <= 1);
  }
  const best = Math.max(...last.leaves.map((leaf) => leaf.accuracy));
  const told = `together ${last.accuracy}, best leaf alone ${best}, all data ${last.centralised}`;
  assert.ok(last.accuracy > best + 0.08 && last.accuracy > lines[0]!.accuracy, told);
  assert.ok(last.accuracy > 0.8 && last.centralised > 0.85, told);
});

const SMALL = ['--rounds', '2', '--leaves', '2', '--seed'];
let small: Promise<Line[]> | undefined;
/** A federation that several tests look at. */
const smallDemo = () => {
  small ??= run(...SMALL, '3');
  return small;
};

test('the files stay: credentials, updates, and the global model as every leaf has it', async () => {
  const lines = await smallDemo();
  assert.is(lines.length, 2);
  const { folder } = lines[0]!;
  for (const { round, model } of lines) {
    assert.is(model, join(folder, 'global', `round-0${round}.npy`));
    for (const leaf of ['leaf-1', 'leaf-2']) {
      assert.is(sha256(join(folder, 'leaves', leaf, `global-0${round}.npy`)), sha256(model));
      assert.ok(existsSync(join(folder, 'leaves', leaf, `update-0${round}.npy`)));
      assert.ok(existsSync(join(folder, 'leaves', leaf, 'credentials.json')));
    }
  }
  assert.equal(readdirSync(folder).sort(), ['global', 'leaves', 'server', 'server.log']);
});

test('the same seed gives the same bits, whoever is first', async () => {
  const [one, same] = await Promise.all([smallDemo(), run(...SMALL, '3')]);
  const digests = (lines: readonly Line[]) => lines.map((line) => sha256(line.model));
  assert.equal(digests(one), digests(same));
  const figures = (lines: readonly Line[]) => lines.map((line) => [line.accuracy, line.leaves]);
  assert.equal(figures(one), figures(same));
});

test('people get a table, and with another seed another model', async () => {
  const folder = newFolder();
  const { ended, output } = start([...SMALL, '4', '--data', folder]);
  assert.is(await ended, 0, output.stderr);
  assert.is(output.stderr, '');
  for (const part of ['leaf-2     1200 digits, mostly', 'averaged in', 'After 2 rounds', 'round-*.npy'])
    assert.ok(output.stdout.includes(part), output.stdout);
  const { model } = (await smallDemo())[0]!;
  assert.is.not(sha256(join(folder, 'global/round-01.npy')), sha256(model));
});

test('with --serve the server goes on until it is interrupted', async () => {
  const demo = start(['--rounds', '1', '--leaves', '2', '--serve', '--json', '--data', newFolder()]);
  const line = demo.says('"round":1'); // on another stream, so perhaps heard later
  await demo.says('goes on at');
  const { server }: Line = JSON.parse(await line);
  assert.is((await fetch(`${server}/cambium/v1/health`)).status, 200);
  assert.equal(childrenOf(demo.pid), []);
  demo.kill('SIGINT');
  assert.is(await demo.ended, 0);
});

test('an interrupt ends everything', async () => {
  const demo = start(['--rounds', '100', '--leaves', '2', '--json', '--data', newFolder()]);
  await demo.says('"round":1');
  const children = childrenOf(demo.pid);
  assert.is(children.length, process.platform === 'linux' ? 3 : 0);
  demo.kill('SIGINT');
  assert.is(await demo.ended, 130);
  assert.equal(children.filter(isAlive), []);
});

test('a leaf that is lost ends the demo, with its name', async () => {
  const demo = start(['--rounds', '100', '--leaves', '2', '--json', '--data', newFolder()]);
  await demo.says('"round":1');
  const children = childrenOf(demo.pid);
  if (children.length === 0) demo.kill('SIGKILL');
  if (children.length === 0) return;
  process.kill(children[1]!, 'SIGKILL');
  assert.is(await demo.ended, 70);
  assert.equal(children.filter(isAlive), []);
  const { code, message } = JSON.parse(demo.output.stdout.trim().split('\n').at(-1)!);
  assert.is(code, 'internal-process');
  assert.match(message, /^leaf-2: the process ended with signal SIGKILL/);
});

test('without training libraries it says what installs them', async () => {
  const alone = join(temporary, 'alone');
  cpSync(join(root, 'dist'), join(alone, 'dist'), { recursive: true });
  writeFileSync(join(alone, 'package.json'), '{"type":"module"}');
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  for (const name of Object.keys(dependencies)) {
    mkdirSync(join(alone, 'node_modules', name, '..'), { recursive: true });
    symlinkSync(join(root, 'node_modules', name), join(alone, 'node_modules', name));
  }
  const { ended, output } = start(['--json'], join(alone, 'dist/cli.js'));
  assert.is(await ended, 69, output.stderr);
  const { code, message } = JSON.parse(output.stdout);
  assert.is(code, 'unavailable-training');
  assert.ok(message.includes(INSTALL_COMMAND), message);
  assert.is(output.stderr.trim().split('\n').length, 1);
});

for (const [what, args] of [
  ['one leaf', ['--leaves', '1']],
  ['too many leaves', ['--leaves', '21']],
  ['no rounds', ['--rounds', '0']],
  ['a seed that is no number', ['--seed', 'x']],
  ['a folder with something in it', ['--data', root]],
] as const) {
  test(`wrong usage: ${what}`, async () => {
    const { ended, output } = start([...args, '--json']);
    assert.is(await ended, 2);
    assert.is(JSON.parse(output.stdout).code, 'usage');
  });
}

test.run();
