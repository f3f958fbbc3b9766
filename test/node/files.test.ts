import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { fileError } from '../../src/node/file-errors.ts';
import { openFileSink, openFileSinkSync, openFileSource, openFileSourceSync } from '../../src/node/files.ts';
import { fileScratch } from '../../src/node/scratch.ts';
import { failsWith } from '../helpers/errors.ts';

const test = suite('files');
const folder = mkdtempSync(join(tmpdir(), 'cambium-files-'));
const path = (name: string) => join(folder, name);

test.after(() => rmSync(folder, { recursive: true, force: true }));

for (const [name, openSource, openSink] of [
  ['asynchronous', openFileSource, openFileSink],
  ['synchronous', openFileSourceSync, openFileSinkSync],
] as const) {
  test(`${name}: what is written is read, at any position`, async () => {
    const sink = await openSink(path('file'));
    await sink.write(3, Uint8Array.of(4, 5, 6));
    await sink.write(0, Uint8Array.of(1, 2, 3));
    await sink.commit();
    await sink.discard();
    const source = await openSource(path('file'), 'a name');
    assert.is(source.name, 'a name');
    assert.is(source.byteLength, 6);
    const target = new Uint8Array(4);
    assert.is(await source.readInto(1, target), 4);
    assert.equal([...target], [2, 3, 4, 5]);
    assert.is(await source.readInto(5, target), 1);
    await source.close();
  });

  test(`${name}: before commit the old content stays, after discard too`, async () => {
    writeFileSync(path('old'), 'old');
    for (const end of ['discard', 'commit'] as const) {
      const sink = await openSink(path('old'), { durable: true });
      await sink.write(0, Buffer.from('new'));
      assert.is(readFileSync(path('old'), 'utf8'), 'old');
      await sink[end]();
    }
    assert.is(readFileSync(path('old'), 'utf8'), 'new');
    assert.equal(
      readdirSync(folder).filter((file) => file.endsWith('.part')),
      [],
    );
  });

  test(`${name}: errors are ours`, async () => {
    mkdirSync(path(`folder-${name}`));
    await failsWith('file-not-found', () => openSource(path('absent')));
    await failsWith('file-is-folder', () => openSource(path(`folder-${name}`)));
    await failsWith('file-not-found', () => openSink(path('absent/file')));
    for (const folder of [path(`folder-${name}`), '.', '/']) {
      await failsWith('file-is-folder', () => openSink(folder));
    }
    if (process.getuid?.() !== 0) {
      chmodSync(path(`folder-${name}`), 0o500);
      await failsWith('file-access', () => openSink(path(`folder-${name}/file`)));
    }
  });

  test(`${name}: a pipe is refused at once, and stays one`, async () => {
    execFileSync('mkfifo', [path(`pipe-${name}`)]);
    await failsWith('file-not-regular', () => openSource(path(`pipe-${name}`)));
    await failsWith('file-not-regular', () => openSink(path(`pipe-${name}`)));
    assert.ok(statSync(path(`pipe-${name}`)).isFIFO());
  });

  test(`${name}: a link stays one, and what it leads to is replaced`, async () => {
    const [link, target] = [path(`link-${name}`), path(`behind-${name}`)];
    symlinkSync(target, link);
    writeFileSync(target, 'old');
    const sink = await openSink(link);
    await sink.write(0, Buffer.from('new'));
    await sink.commit();
    assert.ok(lstatSync(link).isSymbolicLink());
    assert.is(readFileSync(target, 'utf8'), 'new');
  });

  test(`${name}: the longest name that the file system allows`, async () => {
    const sink = await openSink(path('n'.repeat(255)));
    await sink.commit();
    assert.is(readFileSync(path('n'.repeat(255)), 'utf8'), '');
  });

  test(`${name}: a file that shrinks gives fewer bytes`, async () => {
    writeFileSync(path('shrinking'), 'abcdef');
    const source = await openSource(path('shrinking'));
    truncateSync(path('shrinking'), 2);
    assert.is(await source.readInto(0, new Uint8Array(6)), 2);
    await source.close();
  });
}

test('a full disk has a code of its own', () => {
  const cause = Object.assign(new Error('ENOSPC: no space left on device, write'), {
    code: 'ENOSPC',
    syscall: 'write',
  });
  const error = fileError(cause, 'x', 'write') as Error & { code: string };
  assert.is(error.code, 'disk-full');
  assert.is(error.cause, cause);
});

test('scratch room leaves no name behind', async () => {
  const place = path('scratch');
  mkdirSync(place);
  const scratch = await fileScratch(place)(10);
  await scratch.write(2, Uint8Array.of(7, 8));
  const target = new Uint8Array(2);
  assert.is(await scratch.readInto(2, target), 2);
  assert.equal([...target], [7, 8]);
  assert.equal(readdirSync(place), []);
  await scratch.close();
});

test.run();
