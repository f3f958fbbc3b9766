// Budgets of what is shipped stand in .ci/sizes.mjs, which weighs the built files: the core as it is, JavaScript gzipped.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DOORS, MODULES, PAGES, weighDoor, weighPage } from '../.ci/sizes.mjs';

const dist = fileURLToPath(new URL('../dist', import.meta.url));

const test = suite('size');

for (const { file, budget } of MODULES) {
  test(`${file} has no imports and keeps its budget`, () => {
    const bytes = readFileSync(join(dist, file));
    assert.equal(WebAssembly.Module.imports(new WebAssembly.Module(bytes)), []);
    assert.ok(bytes.length <= budget, `${bytes.length} bytes of ${budget}`);
  });
}

for (const door of DOORS) {
  test(`${door.file} keeps its budget and knows nothing of Node`, () => {
    const { files, atOnce, inAll } = weighDoor(door);
    for (const [name, text] of files) {
      for (const [, target] of text.matchAll(/(?:from|import)\s*\(?\s*['"]([^'"]+)['"]/g)) {
        assert.match(target!, /^\.\//, `${name} imports ${target}`);
      }
    }
    assert.ok(atOnce <= door.atOnce, `${atOnce} bytes at once of ${door.atOnce}`);
    assert.ok(inAll <= door.inAll, `${inAll} bytes in all of ${door.inAll}`);
  });
}

for (const page of PAGES) {
  test(`${page.name}: a page keeps its budget`, async () => {
    const bytes = await weighPage(page);
    assert.ok(bytes <= page.budget, `${bytes} bytes of ${page.budget}`);
  });
}

test('every file of dist is small enough to be looked at', () => {
  const total = readdirSync(dist, { recursive: true, encoding: 'utf8' })
    .map((file) => statSync(join(dist, file)))
    .reduce((sum, stat) => sum + (stat.isFile() ? stat.size : 0), 0);
  assert.ok(total <= 6_000_000, `${total} bytes`);
});

test.run();
