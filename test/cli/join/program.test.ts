/** What the words of `cambium join` become, and what of them is refused. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readMetricsFile, readMetricsLine } from '../../../src/cli/join/metrics.ts';
import { checkPlaceholders, type ProgramFacts, runProgram } from '../../../src/cli/join/program.ts';
import { failsWith } from '../../helpers/errors.ts';

const test = suite('program of join');

const FACTS: ProgramFacts = { global: '/g', update: '/u', metrics: '/m', round: 7, run: 2 };

/** Runs a script, and says what it has said. */
async function linesOf(script: string, ...words: readonly string[]): Promise<string[]> {
  const lines: string[] = [];
  await runProgram([process.execPath, '-e', script, '--', ...words], FACTS, {
    signal: new AbortController().signal,
    onLines: (said) => void lines.push(...said),
  });
  return lines;
}

test('placeholders are filled in, twofold braces are single ones, and other braces stay', async () => {
  const words: readonly (readonly [word: string, becomes: string])[] = [
    ['{global}', '/g'],
    ['--out={update}.{round}/{run}', '--out=/u.7/2'],
    ['{metrics}{metrics}', '/m/m'],
    ['{{global}}', '{global}'],
    ['{{print}} $1', '{print} $1'],
    [`cp $\{HOME}/x $\{global}`, `cp $\{HOME}/x $\{global}`],
    ['{"lr":{"a":0.1}}', '{"lr":{"a":0.1}}'],
    ['a{2,3}{0}{}{ x }{a,b}', 'a{2,3}{0}{}{ x }{a,b}'],
  ];
  const given = words.map(([word]) => word);
  checkPlaceholders(given);
  assert.equal(
    await linesOf('for (const word of process.argv.slice(1)) console.log(word)', ...given),
    words.map(([, becomes]) => becomes),
  );
});

test('a placeholder that there is none of is refused, and the sentence says which there are', async () => {
  for (const word of ['{globl}', '--in={global}/{Update}', '{global_model}', '{print}']) {
    const error = await failsWith('usage', async () => checkPlaceholders(['python3', word]));
    assert.match(error.message, /: there are \{global\}, \{update\}, \{metrics\}, \{round\}, \{run\};/);
    assert.match(error.message, /write \{\{\w+\}\}$/);
  }
});

test('lines end as they like, and one without an end comes in parts', async () => {
  assert.equal(await linesOf("process.stdout.write('a\\r\\nb\\n\\nc\\rd\\r')"), ['a', 'b', '', 'c', 'd']);
  const split = "process.stdout.write('a\\r'); setTimeout(() => process.stdout.write('\\nb é'), 50)";
  assert.equal(await linesOf(split), ['a', 'b é']);
  const parts = await linesOf(
    "for (let i = 0; i < 1000; i++) process.stdout.write('0123456789'.repeat(100))",
  );
  assert.is(parts.join(''), '0123456789'.repeat(100_000));
  assert.ok(parts.every(({ length }) => length < 200_000));
});

test('a process that left the group and holds the pipe holds nothing up', async () => {
  const pipes = () => process.getActiveResourcesInfo().filter((name) => name === 'PipeWrap').length;
  const before = pipes();
  const [pid = ''] = await linesOf(
    `const child = require('child_process').spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'],
      { detached: true, stdio: 'inherit' });
    process.stdout.write(child.pid + '\\n', () => process.exit());`,
  );
  assert.match(pid, /^\d+$/);
  process.kill(Number(pid), 'SIGKILL');
  for (let turn = 0; turn < 10 && pipes() > before; turn++) await new Promise(setImmediate); // handles close later
  assert.is(pipes(), before);
});

test('the program ends with the process that runs it, however that ends', async () => {
  const module = new URL('../../../src/cli/join/program.ts', import.meta.url);
  const trains = "console.log('trains'); setTimeout(() => console.error('alone'), 10_000)";
  const script = `import { runProgram } from '${module}';
    await runProgram([process.execPath, '-e', ${JSON.stringify(trains)}], {}, {
      signal: new AbortController().signal,
      onLines: () => process.exit(),
    });`;
  const args = ['--import', 'tsx', '--input-type=module', '-e', script];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  // Which the program holds too.
  await once(child.stderr, 'close');
  assert.is(said, '');
});

test('metrics are JSON, or what Python writes for it', async () => {
  const path = join(mkdtempSync(join(tmpdir(), 'cambium-metrics-')), 'metrics.json');
  const table: readonly (readonly [text: string, metrics: unknown])[] = [
    [
      '{"loss": NaN, "low": -Infinity, "high": Infinity}',
      { loss: 'NaN', low: '-Infinity', high: 'Infinity' },
    ],
    [
      '{"metrics": {"note": "NaN \\" Infinity", "loss": [NaN, 1]}}',
      { note: 'NaN " Infinity', loss: ['NaN', 1] },
    ],
  ];
  for (const [text, metrics] of table) {
    writeFileSync(path, text);
    assert.equal([...(await readMetricsFile(path))], [['train', metrics]]);
  }
  assert.equal(readMetricsLine(table[1]![0]), ['train', table[1]![1]]);
  for (const text of ['{"loss": nan}', '{"loss": NaN', '{"loss": "NaN}']) {
    writeFileSync(path, text);
    await failsWith('metrics-invalid', () => readMetricsFile(path));
    assert.is(readMetricsLine(text), undefined);
  }
  rmSync(dirname(path), { recursive: true });
});

test.run();
