import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Where Debian and others put the runtime of wasm2c. */
const RUNTIMES = ['/usr/share/wabt/wasm2c', '/usr/local/share/wabt/wasm2c'];

/**
 * No contraction to fused multiply-add: the core counts on each operation being rounded by itself.
 */
const FLAGS = ['-std=gnu11', '-O2', '-ffp-contract=off', '-fno-strict-aliasing'];

const works = (command: string) => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;

/**
 * Translates the scalar core to C and compiles it with test/wasm2c/weights.c. Answers the path of the program, null on a
 * machine without wasm2c or gcc: the runner counts the line that is printed then, and with CI=true it makes the run fail.
 */
export function buildWeightsProgram(): string | null {
  const runtime = RUNTIMES.find((path) => existsSync(`${path}/wasm-rt-impl.c`));
  if (runtime === undefined || !works('wasm2c') || !works('gcc')) {
    console.log('SKIPPED (missing peer): wasm2c and gcc; Debian: apt-get install wabt gcc libc6-dev');
    return null;
  }
  // One of its own: suites that run at the same time build it too.
  mkdirSync(`${root}build`, { recursive: true });
  const folder = mkdtempSync(`${root}build/wasm2c-`);
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  const run = (command: string, ...args: string[]) => {
    const done = spawnSync(command, args, { cwd: folder, encoding: 'utf8' });
    if (done.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${done.error ?? done.stderr}`);
  };
  const abi = readFileSync(`${root}assembly/abi.ts`, 'utf8');
  const numbers = [...abi.matchAll(/^export const (\w+) = ([\d_]+);$/gm)];
  writeFileSync(
    `${folder}/abi.h`,
    numbers.map(([, name, value]) => `#define ${name} ${value!.replaceAll('_', '')}\n`).join(''),
  );
  run('wasm2c', `${root}dist/core.scalar.wasm`, '-n', 'core', '-o', 'core.c');
  const own = [...FLAGS, '-Wall', '-Wextra', '-Werror', '-I.', `-I${runtime}`];
  run('gcc', ...own, '-c', `${root}test/wasm2c/weights.c`, '-o', 'weights.o');
  const sources = ['weights.o', 'core.c', `${runtime}/wasm-rt-impl.c`];
  run('gcc', ...FLAGS, `-I.`, `-I${runtime}`, ...sources, '-lm', '-o', 'weights');
  return `${folder}/weights`;
}
