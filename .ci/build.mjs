// Builds dist/: the core (asc), its bytes as a module of src/core, the doors (rollup).
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

run('assemblyscript/bin/asc.js', '--target', 'release');
const base64 = readFileSync(join(root, 'dist/core.wasm')).toString('base64');
writeFileSync(
  join(root, 'src/core/wasm.ts'),
  `// Written by the build from assembly/; not in version control.\nexport const CORE_WASM_BASE64 =\n  '${base64}';\n`,
);
if (!coreOnly) run('rollup/dist/bin/rollup', '--config', 'rollup.config.mjs');
