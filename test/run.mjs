// Runs every test/**/*.test.ts in a process of its own and cannot be fooled by an empty or crashed run: uvu counts a
// file without `.run()`, a throwing hook and an empty suite as successes. A file passes only if it exits with 0,
// reports a total above zero, and everything in that total passed or was skipped by name.
// Usage: node test/run.mjs [pattern …]   CAMBIUM_LONG=1 adds test/**/*.long.ts
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, transform } from 'esbuild';

/** A suite that takes longer hangs, also on a machine that is slow and busy. */
const timeoutMs = (file) => (file.endsWith('.long.ts') ? 1_800_000 : 900_000);

/**
 * A suite that has told its totals is done; one that still runs has left a process, a server or a client open. Where a test
 * failed that is no wonder, and nobody waits.
 */
const END_MS = 30_000;

/** A suite that is left out on a machine that must have everything hides a failure. */
const IS_CI = /^(1|true)$/i.test(process.env.CI ?? '');

/** The last line that uvu prints. */
const TOTALS = /^\s*Duration:/m;

const folder = fileURLToPath(new URL('.', import.meta.url));
const root = join(folder, '..');
const preload = new URL('helpers/preload.mjs', import.meta.url).href;
const endings = process.env.CAMBIUM_LONG ? ['.test.ts', '.long.ts'] : ['.test.ts'];
const patterns = process.argv.slice(2);
const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  .filter((file) => endings.some((ending) => file.endsWith(ending)))
  .filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern)))
  .sort();

if (files.length === 0) {
  console.error(`no test file matches ${patterns.join(' ')}`);
  process.exit(1);
}

/** Where all TypeScript stands compiled, under the names that it has. */
const compiled = mkdtempSync(join(tmpdir(), 'cambium-compiled-'));
process.on('exit', () => rmSync(compiled, { recursive: true, force: true }));

async function compile() {
  const tsconfigRaw = readFileSync(join(root, 'tsconfig.json'), 'utf8');
  const names = ['assembly', 'src', 'test'].flatMap((part) =>
    readdirSync(join(root, part), { recursive: true, encoding: 'utf8' }).map((name) => join(part, name)),
  );
  const compileFile = async (name) => {
    const options = { loader: 'ts', sourcefile: basename(name), sourcemap: 'inline', sourcesContent: false };
    const { code } = await transform(readFileSync(join(root, name), 'utf8'), { ...options, tsconfigRaw });
    mkdirSync(join(compiled, dirname(name)), { recursive: true });
    writeFileSync(join(compiled, name), code);
  };
  await Promise.all(names.filter((name) => name.endsWith('.ts')).map(compileFile));
  // The one library of hundreds of modules, in one.
  const bundle = { bundle: true, format: 'esm', platform: 'node', logLevel: 'error' };
  await build({
    ...bundle,
    entryPoints: ['kysely'],
    absWorkingDir: root,
    outfile: join(compiled, 'kysely.js'),
  });
}

const sum = { passed: 0, failed: 0, skipped: 0 };
const running = new Set();

/** Kills a suite, and what it has started. */
function end({ pid }) {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if (error.code !== 'ESRCH') throw error; // nothing is left
  }
}

// Suites have groups of their own, which an interrupt at the terminal does not reach.
process.on('exit', () => running.forEach(end));
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

function runFile(file) {
  return new Promise((resolve) => {
    const startedAt = Date.now();
    const child = spawn(process.execPath, ['--import', preload, join(folder, file)], {
      cwd: root,
      env: { ...process.env, CAMBIUM_COMPILED: compiled, FORCE_COLOR: '0', NO_COLOR: '1' },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    running.add(child);
    let output = '';
    const stop = (why) => {
      output += `\n${why}\n`;
      end(child);
    };
    const limit = timeoutMs(file);
    let timer = setTimeout(stop, limit, `stopped after ${limit / 1000} s`);
    const count = (name) => Number(new RegExp(`^\\s*${name}:\\s+(\\d+)`, 'm').exec(output)?.[1] ?? 0);
    let isTold = false;
    child.stdout.on('data', (chunk) => {
      output += chunk;
      if (isTold || !TOTALS.test(output)) return;
      isTold = true;
      clearTimeout(timer);
      if (count('Passed') < count('Total')) return stop('ended at once, as a test has failed');
      timer = setTimeout(
        stop,
        END_MS,
        `stopped ${END_MS / 1000} s after its totals: something was left open`,
      );
    });
    child.stderr.on('data', (chunk) => (output += chunk));
    child.on('exit', () => {
      clearTimeout(timer);
      end(child); // what holds its pipes would keep us
    });
    child.on('close', (code, signal) => {
      running.delete(child);
      const total = count('Total');
      const passed = count('Passed');
      const missing = [...output.matchAll(/^SKIPPED \(missing peer\): .*$/gm)].map((match) => match[0]);
      // uvu leaves skipped tests out of Total when it counts them in Skipped.
      const skipped = count('Skipped') + missing.length;
      const good = code === 0 && total + skipped > 0 && passed === total;
      const refused = IS_CI && skipped > 0;
      sum.passed += passed;
      sum.skipped += skipped;
      sum.failed += good ? 0 : Math.max(1, total - passed);
      if (refused) sum.failed += skipped;
      const seconds = ((Date.now() - startedAt) / 1000).toFixed(1);
      console.log(
        `${good && !refused ? 'ok  ' : 'FAIL'} ${relative('.', file)} ${passed}/${total} (${seconds} s)`,
      );
      for (const line of missing) console.log(`     ${line}`);
      if (!good) console.log(output, `exit code ${code}${signal ? `, signal ${signal}` : ''}`);
      if (refused) console.log('     skipped tests are failures under CI');
      resolve();
    });
  });
}

await compile();
const queue = [...files];
await Promise.all(
  Array.from({ length: Math.min(availableParallelism(), files.length) }, async () => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) await runFile(file);
  }),
);

console.log(
  `\n${sum.passed} passed, ${sum.failed} failed${sum.skipped > 0 ? `, ${sum.skipped} skipped` : ''}`,
);
process.exit(sum.failed === 0 && sum.passed > 0 ? 0 : 1);
