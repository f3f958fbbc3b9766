// assembly/README.md is the reference of hosts without JavaScript: it must have every export with its type, every status,
// and every offset in records, with the numbers of abi.ts.
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as abi from '../../assembly/abi.ts';

const read = (file: string) => readFileSync(new URL(`../../${file}`, import.meta.url), 'utf8');
const readme = read('assembly/README.md');
const rows = readme.split('\n').filter((line) => line.startsWith('|'));

/** The functions that a module exports, with their types as `(i32, f64) → i32`. */
function exportsOf(module: string): ReadonlyMap<string, string> {
  const text = read(`build/${module}.wat`);
  const types = new Map<string, string>();
  for (const [, name, parts] of text.matchAll(/\(func (\$\S+)((?: \((?:param|result) [^)]*\))*)/g)) {
    const params = [...parts!.matchAll(/\(param \$\S+ (\w+)\)/g)].map(([, type]) => type);
    const result = /\(result (\w+)\)/.exec(parts!)?.[1];
    types.set(name!, `(${params.join(', ')})${result === undefined ? '' : ` → ${result}`}`);
  }
  return new Map(
    [...text.matchAll(/\(export "(\w+)" \(func (\$\S+)\)\)/g)].map(([, name, of]) => [
      name!,
      types.get(of!)!,
    ]),
  );
}

const test = suite('abi');

for (const module of ['core', 'strategies']) {
  test(`every export of ${module}.wasm is documented with its type`, () => {
    const functions = exportsOf(module);
    assert.ok(functions.size > 10);
    for (const [name, type] of functions) {
      const row = rows.find((line) => line.startsWith(`| \`${name}\` |`));
      assert.ok(row?.startsWith(`| \`${name}\` | \`${type}\` |`), `${name} ${type}: ${row}`);
    }
    assert.equal([...exportsOf(`${module}.scalar`)].sort(), [...functions].sort());
  });
}

test('every dtype, status, reason, and place in a record has its number', () => {
  const wanted = /^(DTYPE|MEAN|READ|NPY|PICKLE|WEIGHTS|REASON|ANSWER|TENSOR)_/;
  const numbers = Object.entries(abi).filter(([name]) => wanted.test(name));
  assert.ok(numbers.length > 80);
  for (const [name, value] of numbers) {
    if (name === 'ANSWER_BYTES' || name === 'TENSOR_KEY_BYTES') continue; // in the text
    const row = rows.find((line) => line.startsWith(`| \`${name}\` |`));
    assert.is(Number(row?.split('|')[2]?.replaceAll('_', '')), value, name);
  }
  assert.match(readme, `An answer has ${abi.ANSWER_BYTES} bytes`);
  assert.match(readme, `\`TENSOR_KEY_BYTES\` (${abi.TENSOR_KEY_BYTES})`);
});

test.run();
