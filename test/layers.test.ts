// The table of folders as data: what may import what. A folder uses what stands below it, never sideways or up.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const LAYERS = [
  'cli',
  'web',
  'server',
  'node',
  'browser',
  'federated',
  'dlr',
  'client',
  'wire',
  'transport',
  'privacy',
  'aggregate',
  'formats',
  'tensor',
  'core',
];

/** Peers that never know each other, although one stands above the other. */
const STRANGERS = [['server', ['client', 'federated', 'dlr', 'browser', 'web']]] as const;

/** The wire is read by both sides and knows neither: nothing but errors. */
const ONLY_ERRORS = ['wire', 'core'];

/** Folders that may use Node's own modules. */
const NODE_FOLDERS = ['node', 'server', 'cli'];

/** The commands are the top: they wire everything, the doors re-export. */
const DOORS = ['index.ts', 'browser.ts', 'edge.ts', 'cli.ts', 'common.ts', 'tensorflow.ts'];

const src = fileURLToPath(new URL('../src', import.meta.url));
const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter((file) => /\.tsx?$/.test(file));

function importsOf(file: string): string[] {
  const text = readFileSync(join(src, file), 'utf8');
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map((match) => match[1]!);
}

const folderOf = (file: string) => (file.includes('/') ? file.slice(0, file.indexOf('/')) : '');

/** What is wrong with an import, or undefined. */
function complaint(file: string, target: string): string | undefined {
  const from = folderOf(file);
  if (target.startsWith('node:')) {
    return NODE_FOLDERS.includes(from) || file === 'cli.ts' ? undefined : `uses ${target}`;
  }
  if (!target.startsWith('.')) return undefined;
  const path = relative(src, resolve(src, dirname(file), target));
  if (path === 'errors.ts' || path === '../assembly/abi.ts') return undefined;
  const to = folderOf(path);
  if (from === '' || from === to) return undefined;
  if (to === '') return DOORS.includes(path) ? `imports the door ${path}` : `imports ${path}`;
  if (ONLY_ERRORS.includes(from)) return `imports ${path}, but ${from}/ stands on errors only`;
  if (!LAYERS.includes(from) || !LAYERS.includes(to)) return `${from}/ or ${to}/ is no layer`;
  if (LAYERS.indexOf(to) < LAYERS.indexOf(from)) return `imports ${path}, which stands above it`;
  if (STRANGERS.some(([one, others]) => one === from && (others as readonly string[]).includes(to))) {
    return `imports ${path}: ${from}/ and ${to}/ are strangers`;
  }
  return undefined;
}

const test = suite('layers');

test('every folder of src/ is a layer', () => {
  for (const file of files) {
    if (file.includes('/')) assert.ok(LAYERS.includes(folderOf(file)), `${file} is in no layer`);
    else assert.ok([...DOORS, 'errors.ts'].includes(file), `${file} is no door`);
  }
});

test('imports go down', () => {
  const complaints = files.flatMap((file) =>
    importsOf(file)
      .map((target) => complaint(file, target))
      .filter((text) => text !== undefined)
      .map((text) => `${file} ${text}`),
  );
  assert.equal(complaints, []);
});

test('the rules bite', () => {
  assert.ok(complaint('client/client.ts', '../server/serve.ts'));
  assert.ok(complaint('server/serve.ts', '../client/client.ts'));
  assert.ok(complaint('aggregate/plan.ts', 'node:fs'));
  assert.ok(complaint('tensor/dtypes.ts', '../formats/npy.ts'));
  assert.ok(complaint('wire/cambium.ts', '../transport/http.ts'));
  assert.ok(complaint('node/files.ts', '../index.ts'));
  assert.is(complaint('server/serve.ts', '../node/files.ts'), undefined);
});

test.run();
