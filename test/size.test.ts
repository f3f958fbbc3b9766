// Budgets of what is shipped. The built files are weighed: the core as it is, JavaScript gzipped.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const dist = fileURLToPath(new URL('../dist', import.meta.url));

/** The module goes to edge devices. */
const CORE_BYTES = 24_000;

/** Browser JavaScript without the core, gzipped: codecs, aggregation and client. */
const BROWSER_BYTES = 30_000;

/** A file and the chunks it imports, with their texts. */
function closure(entry: string, seen = new Map<string, string>()): Map<string, string> {
  if (seen.has(entry)) return seen;
  const text = readFileSync(join(dist, entry), 'utf8');
  seen.set(entry, text);
  for (const [, target] of text.matchAll(/(?:from|import)\s*\(?\s*['"](\.[^'"]+)['"]/g)) {
    closure(join(entry, '..', target!), seen);
  }
  return seen;
}

const test = suite('size');

test('the core has no imports and keeps its budget', () => {
  const bytes = readFileSync(join(dist, 'core.wasm'));
  const module = new WebAssembly.Module(bytes);
  assert.equal(WebAssembly.Module.imports(module), []);
  console.log(`core.wasm: ${bytes.length} bytes`);
  assert.ok(bytes.length <= CORE_BYTES, `${bytes.length} bytes`);
});

test('the browser door keeps its budget and knows nothing of Node', () => {
  const files = closure('browser.js');
  let gzipped = 0;
  for (const [name, text] of files) {
    for (const [, target] of text.matchAll(/(?:from|import)\s*\(?\s*['"]([^'"]+)['"]/g)) {
      assert.not.match(target!, /^node:/, `${name} imports ${target}`);
      assert.not.ok(builtinModules.includes(target!), `${name} imports ${target}`);
    }
    if (!name.includes('core-wasm')) gzipped += gzipSync(text, { level: 9 }).length;
  }
  console.log(`browser.js and its chunks without the core: ${gzipped} bytes gzipped`);
  assert.ok(gzipped <= BROWSER_BYTES, `${gzipped} bytes`);
});

test('every file of dist is small enough to be looked at', () => {
  const total = readdirSync(dist, { recursive: true, encoding: 'utf8' })
    .map((file) => statSync(join(dist, file)))
    .reduce((sum, stat) => sum + (stat.isFile() ? stat.size : 0), 0);
  console.log(`dist: ${total} bytes`);
  assert.ok(total <= 6_000_000, `${total} bytes`);
});

test.run();
