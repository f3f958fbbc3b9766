import { mkdtempSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openFileSourceSync } from '../../src/node/files.ts';
import { digestOfWritten, rememberModel } from '../../src/node/written-model.ts';

const folder = mkdtempSync(join(tmpdir(), 'cambium-written-'));
const DIGEST = 'ab'.repeat(32);

/** What is known of a file. */
async function known(path: string): Promise<string | null> {
  const source = openFileSourceSync(path);
  const digest = digestOfWritten(source);
  await source.close();
  return digest;
}

const test = suite('node/written-model');

test('the model that was written last is known by its file, whatever it is called', async () => {
  const path = join(folder, 'model.npy');
  const moved = join(folder, 'moved.npy');
  writeFileSync(path, 'model');
  utimesSync(path, 1, 2); // a time that no write brings back
  assert.is(await known(path), null);
  rememberModel(path, DIGEST);
  assert.is(await known(path), DIGEST);
  renameSync(path, moved);
  assert.is(await known(moved), DIGEST);

  writeFileSync(path, 'model');
  utimesSync(path, 1, 2);
  assert.is(await known(path), null, 'another file of the same content and time');
  writeFileSync(moved, 'madel');
  assert.is(await known(moved), null, 'written to in place');
});

test('a model that is gone is forgotten, and so is the one before the last', async () => {
  const path = join(folder, 'first.npy');
  writeFileSync(path, 'first');
  rememberModel(path, DIGEST);
  rememberModel(join(folder, 'none.npy'), DIGEST);
  assert.is(await known(path), null);
});

test.after(() => rmSync(folder, { recursive: true, force: true }));

test.run();
