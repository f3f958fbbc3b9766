// Every host gives the bytes whose digests stand in assembly/README.md.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const test = suite('hosts, long');

test('the table of assembly/README.md', () => {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const done = spawnSync(process.execPath, ['--import', 'tsx', 'test/hosts/table.ts', '--check'], {
    cwd: root,
    encoding: 'utf8',
  });
  for (const [line] of done.stdout.matchAll(/^SKIPPED .*$/gm)) console.log(line);
  assert.is(done.status, 0, done.stderr);
});

test.run();
