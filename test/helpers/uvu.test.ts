// A suite that fails tells why.
import { spawnSync } from 'node:child_process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const test = suite('helpers/uvu');

/** What a suite of its own prints. */
function outputOf(script: string): string {
  const preload = new URL('preload.mjs', import.meta.url).href;
  const source = `import { suite } from 'uvu'; const test = suite('inner'); ${script} test.run();`;
  const args = ['--import', preload, '--input-type=module', '-e', source];
  return spawnSync(process.execPath, args, { encoding: 'utf8' }).stdout;
}

test('a failed test prints the causes of its error', () => {
  const output = outputOf(`test('call', () => fetch('http://127.0.0.1:1'));`);
  assert.match(output, /"call"\n +fetch failed\n/);
  assert.match(output, /Error: bad port/);
  assert.match(outputOf(`test('call', () => { throw 'a string'; });`), /"call"\n +'a string'\n/);
});

for (const hook of ['before', 'before.each', 'after.each', 'after']) {
  test(`a hook that throws is printed: ${hook}`, () => {
    const output = outputOf(`
      test.${hook}(() => { throw new Error('outer', { cause: new Error('inner') }); });
      test('good', () => {});`);
    assert.match(output, /Error: outer[\s\S]*\[cause\]: Error: inner/);
  });
}

test.run();
