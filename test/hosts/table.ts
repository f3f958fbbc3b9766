// npm run hosts: the same aggregations in every host; all must give the same bytes. Writes the table of assembly/README.md
// (--check compares with it instead).
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundleEdge, openBareContext } from '../helpers/bare-context.ts';
import { buildWeightsProgram } from '../helpers/wasm2c.ts';
import { type Case, collect, folder, type Results, type Row, writeCases } from './cases.ts';
import { chromiumRows } from './chromium.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const readme = join(root, 'assembly/README.md');
const BEGIN = '<!-- hosts: written by `npm run hosts` -->';
const END = '<!-- hosts: end -->';

const sha256 = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest('hex');

/** Runs test/hosts/run.mjs. */
function run(command: string, ...args: string[]): Results {
  const [door, mode] = args.splice(-2);
  const all = [...args, 'test/hosts/run.mjs', door!, join(folder, 'cases.json'), mode!];
  const done = spawnSync(command, all, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 24 });
  if (done.status !== 0) throw new Error(`${command} ${all.join(' ')}: ${done.error ?? done.stderr}`);
  return JSON.parse(done.stdout);
}

async function inBareContext(cases: readonly Case[]): Promise<Results> {
  const edge = openBareContext((await bundleEdge()).text);
  const digests: string[] = [];
  for (const { files, strategy } of cases) {
    const inputs = files.map((name) => ({
      name,
      bytes: new Uint8Array(readFileSync(resolve(folder, name))),
    }));
    const work = strategy === undefined ? { inputs } : { inputs, strategy };
    const result = await edge.aggregate(edge, work);
    digests.push(typeof result === 'string' ? result : sha256(result));
  }
  return collect(cases, digests);
}

/** The C program: it knows the mean only. */
function inProgram(program: string, cases: readonly Case[]): Results {
  const room = mkdtempSync(join(tmpdir(), 'cambium-hosts-'));
  const output = join(room, 'output.npy');
  try {
    const means = cases.filter(({ strategy }) => strategy === undefined);
    const digests = means.map(({ files }) => {
      const done = spawnSync(program, ['mean', output, ...files], { cwd: folder, encoding: 'utf8' });
      return done.status === 0 ? sha256(readFileSync(output)) : (JSON.parse(done.stdout).code as string);
    });
    return collect(means, digests);
  } finally {
    rmSync(room, { recursive: true, force: true });
  }
}

async function rowsOf(cases: readonly Case[]): Promise<Row[]> {
  const { MAJORS, nodeOf } = await import('../../.ci/nodes.mjs');
  const own = process.execPath;
  const node = 'dist/index.js';
  const rows: Row[] = MAJORS.map((major: string) => ({
    host: `Node ${major}`,
    results: run(nodeOf(major), node, 'in order'),
  }));
  rows.push(
    { host: 'Node, inputs reversed', results: run(own, node, 'reversed') },
    { host: 'Node, inputs shuffled', results: run(own, node, 'shuffled') },
    { host: 'Node, files, one thread', results: run(own, node, '1') },
    { host: 'Node, files, two threads', results: run(own, node, '2') },
  );
  const noSimd = ['--import', 'tsx', '--import', './test/helpers/no-simd.ts'];
  rows.push(
    { host: 'Node, without SIMD', results: run(own, ...noSimd, node, 'in order') },
    { host: 'edge door, bare context', results: await inBareContext(cases) },
  );
  const bun = join(root, 'node_modules/.bin/bun');
  if (spawnSync(bun, ['--version']).status === 0) {
    rows.push({ host: 'edge door, Bun (JavaScriptCore)', results: run(bun, 'dist/edge.js', 'in order') });
  } else {
    console.log('SKIPPED (missing peer): Bun');
  }
  const program = buildWeightsProgram();
  if (program !== null)
    rows.push({ host: 'no JavaScript: wasm2c and gcc', results: inProgram(program, cases) });
  rows.push(...(await chromiumRows(cases)));
  return rows;
}

/** One digest for all cases of a set. */
function digestOf(cases: readonly Case[], set: string, { host, results }: Row): string | null {
  const given = results[set];
  if (given === undefined) return null;
  const lines = cases
    .filter((one) => one.set === set)
    .map(({ name }) => {
      if (given[name] === undefined) throw new Error(`${host} has no result of ${set}, ${name}`);
      return `${name} ${given[name]}\n`;
    });
  return sha256(lines.join(''));
}

function tableOf(cases: readonly Case[], rows: readonly Row[]): string {
  const sets = [...new Set(cases.map(({ set }) => set))];
  const lines = rows.map((row) => {
    const cells = sets.map((set) => digestOf(cases, set, row)?.slice(0, 16) ?? null);
    return `| ${row.host} | ${cells.map((cell) => (cell === null ? '—' : `\`${cell}\``)).join(' | ')} |`;
  });
  for (const set of sets) {
    for (const row of rows) {
      const [first, other] = [rows[0]!, row].map((of) => digestOf(cases, set, of));
      if (other === null || first === other) continue;
      const names = Object.keys(row.results[set]!).filter(
        (name) => row.results[set]![name] !== rows[0]!.results[set]![name],
      );
      throw new Error(`${row.host} gives other bytes than ${rows[0]!.host} for ${set}: ${names.join(', ')}`);
    }
  }
  return [`| host | ${sets.join(' | ')} |`, `|---|${sets.map(() => '---').join('|')}|`, ...lines, ''].join(
    '\n',
  );
}

const cases = await writeCases();
const table = tableOf(cases, await rowsOf(cases));
console.log(table);
const text = readFileSync(readme, 'utf8');
const begin = text.indexOf(BEGIN) + BEGIN.length;
const end = text.indexOf(END);
if (begin < BEGIN.length || end < begin) throw new Error(`${readme} has no place for the table`);
if (process.argv.includes('--check')) {
  const digests = (of: string) => [...new Set(of.match(/`[0-9a-f]{16}`/g))].sort().join();
  if (digests(text.slice(begin, end)) !== digests(table)) {
    throw new Error(`${readme} has other digests: npm run hosts writes them`);
  }
} else {
  writeFileSync(readme, `${text.slice(0, begin)}\n\n${table}\n${text.slice(end)}`);
}
