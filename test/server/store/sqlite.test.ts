import { spawnSync } from 'node:child_process';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

test('a Node without SQLite and without the package is told what to install', () => {
  const module = new URL('../../../src/server/store/sqlite.ts', import.meta.url).href;
  const hook = `export async function resolve(name, context, next) {
    if (name === 'libsql') throw new Error('not installed');
    return next(name, context);
  }`;
  const script = `
    import { register } from 'node:module';
    register('data:text/javascript,' + encodeURIComponent(${JSON.stringify(hook)}));
    Object.defineProperty(process.versions, 'node', { value: '20.0.0' });
    const { openEngine } = await import(${JSON.stringify(module)});
    await openEngine('/nowhere/x').catch((error) => console.log(error.name, error.code, error.message));
  `;
  const args = ['--import', 'tsx', '--input-type=module', '-e', script];
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  assert.match(stdout, /^UnavailableError unavailable-libsql .*npm install libsql\n$/, stderr);
});

test.run();
