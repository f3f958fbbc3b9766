// Builds dist/: the core (asc), its bytes as modules of src/core, the doors (rollup).
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const coreOnly = process.argv.includes('--core');

function run(name, ...args) {
  const done = spawnSync(process.execPath, [join(root, 'node_modules', name), ...args], {
    cwd: root,
    stdio: 'inherit',
  });
  if (done.status !== 0) process.exit(done.status ?? 1);
}

mkdirSync(join(root, 'build'), { recursive: true });
if (!coreOnly) rmSync(join(root, 'dist'), { recursive: true, force: true });
mkdirSync(join(root, 'dist'), { recursive: true });

/** The same sources without vectors, for hosts that have none. asconfig.json enables SIMD; nothing enables relaxed SIMD. */
const SCALAR = ['--disable', 'simd'];

/** The modules of the core: file in dist/, entry in assembly/, file in src/core/, name of the constant in it. */
const MODULES = [
  ['core.wasm', 'index.ts', 'wasm.ts', 'CORE_WASM_BASE64'],
  ['core.scalar.wasm', 'index.ts', 'scalar-wasm.ts', 'CORE_SCALAR_WASM_BASE64', SCALAR],
  ['strategies.wasm', 'strategies.ts', 'strategies-wasm.ts', 'STRATEGIES_WASM_BASE64'],
  [
    'strategies.scalar.wasm',
    'strategies.ts',
    'strategies-scalar-wasm.ts',
    'STRATEGIES_SCALAR_WASM_BASE64',
    SCALAR,
  ],
];

for (const [file, entry, source, constant, options = []] of MODULES) {
  const text = `build/${file.replace('.wasm', '.wat')}`;
  run(
    'assemblyscript/bin/asc.js',
    ...[`assembly/${entry}`, '--target', 'release', '--outFile', `dist/${file}`, '--textFile', text],
    ...options,
  );
  const base64 = readFileSync(join(root, 'dist', file)).toString('base64');
  writeFileSync(
    join(root, 'src/core', source),
    `// Written by the build from assembly/; not in version control.\nexport const ${constant} =\n  '${base64}';\n`,
  );
}
if (!coreOnly) {
  run('rollup/dist/bin/rollup', '--config', 'rollup.config.mjs');
  run('../.ci/sizes.mjs');
}
