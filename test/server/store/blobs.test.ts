/** Blobs as files, on file systems that know several names of a file and on those that know one. */
import promises, { mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Blobs, fileBlobs } from '../../../src/server/store/blobs.ts';

const test = suite('blobs');
const { link } = promises;
let folder: string;
let blobs: Blobs;

test.before.each(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cambium-blobs-'));
  const shelves = join(folder, 'blobs');
  await mkdir(shelves);
  blobs = fileBlobs(shelves, folder);
});
test.after.each(async () => {
  linksBy(link);
  await rm(folder, { recursive: true });
});

/** Has links made otherwise, in modules that were loaded before too. */
function linksBy(make: typeof link): void {
  promises.link = make;
  syncBuiltinESMExports();
}

/** A file system that refuses links. */
function refusesLinks(code: string): void {
  linksBy(async () => {
    throw Object.assign(new Error(`${code}: no links here`), { code });
  });
}

async function fileWith(text: string, name = 'work'): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, text, { mode: 0o600 });
  return path;
}

const textOf = (id: string) => readFile(blobs.path(id), 'utf8');

for (const code of [undefined, 'EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK']) {
  test(`keep and borrow, ${code === undefined ? 'by links' : `by copies after ${code}`}`, async () => {
    if (code !== undefined) refusesLinks(code);
    const file = await fileWith('one');
    await blobs.keep('ab1', file);
    assert.is(await textOf('ab1'), 'one');
    assert.is(await readFile(file, 'utf8'), 'one');
    const { nlink, mode } = await stat(blobs.path('ab1'));
    assert.is(nlink, code === undefined ? 2 : 1);
    assert.is(mode & 0o777, 0o600);
    // Whoever replaces the file, or removes it, leaves the blob as it is.
    await rename(await fileWith('two', 'next'), file);
    assert.is(await textOf('ab1'), 'one');
    const borrowed = blobs.workPath('ab1');
    await blobs.borrow('ab1', borrowed);
    await rename(file, borrowed);
    assert.is(await textOf('ab1'), 'one');
    // An id has its bytes once and for all.
    const other = await fileWith('three');
    const again = await blobs.keep('ab1', other).catch((error: NodeJS.ErrnoException) => error.code);
    assert.is(again, 'EEXIST');
    assert.is(await textOf('ab1'), 'one');
    await blobs.remove('ab1');
    await blobs.remove('ab1'); // gone already: no error
    assert.is(await readFile(other, 'utf8'), 'three');
  });
}

test('what goes wrong otherwise is told, and leaves nothing', async () => {
  refusesLinks('EIO');
  const file = await fileWith('one');
  const told = await blobs.keep('ab1', file).catch((error: NodeJS.ErrnoException) => error.code);
  assert.is(told, 'EIO');
  const ids: string[] = [];
  for await (const id of blobs.list()) ids.push(id);
  assert.equal(ids, []);
});

test.run();
