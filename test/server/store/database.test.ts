import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Kysely, SqliteDialect, sql } from 'kysely';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { changesSoFar, openDatabase } from '../../../src/server/store/database.ts';
import { openDataFolder, readOperatorFile, writeOperatorFile } from '../../../src/server/store/folder.ts';
import { getMeta, migrate, SCHEMA_VERSION, setMeta } from '../../../src/server/store/migrations.ts';
import type { Schema } from '../../../src/server/store/schema.ts';
import { openEngine } from '../../../src/server/store/sqlite.ts';
import { failsWith } from '../../helpers/errors.ts';

const folders: string[] = [];
function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'cambium-store-'));
  folders.push(path);
  return path;
}
test.after(() => {
  for (const path of folders) rmSync(path, { recursive: true });
});

test('migrations bring an empty database to the present schema, once', async () => {
  const path = join(folder(), 'state.db');
  for (let i = 0; i < 2; i++) {
    const db = await openDatabase(path);
    assert.is(await getMeta(db, 'schema'), String(SCHEMA_VERSION));
    await db.destroy();
  }
});

test('a newer schema is refused and left alone', async () => {
  const path = join(folder(), 'state.db');
  const db = await openDatabase(path);
  await setMeta(db, 'schema', String(SCHEMA_VERSION + 1));
  await db.destroy();
  await failsWith('state-newer', () => openDatabase(path));
});

test('of what leaves fetched from an older program the round is found', async () => {
  const path = join(folder(), 'state.db');
  const old = new Kysely<Schema>({ dialect: new SqliteDialect({ database: await openEngine(path) }) });
  await migrate(old, 7);
  for (const statement of [
    'pragma foreign_keys = off',
    `insert into rounds (id, run_id, branch_id, number, status, opened_at) values ('r', 'run', 'b', 3, 'done', 1)`,
    `insert into aggregations (id, round_id, branch_id, leaves, total_weighting, byte_length, sha256, created_at)
      values ('a', 'r', 'b', 1, 1, 1, '', 1)`,
    `insert into fetches (aggregation_id, leaf_id, fetched_at) values ('a', 'l', 2)`,
  ]) {
    await sql.raw(statement).execute(old);
  }
  await old.destroy();
  const db = await openDatabase(path);
  assert.equal(await db.selectFrom('fetches').selectAll().execute(), [
    { aggregation_id: 'a', leaf_id: 'l', fetched_at: 2, run_id: 'run', round: 3 },
  ]);
  await db.destroy();
});

test('what is read changes nothing, every row that is written does', async () => {
  const db = await openDatabase(join(folder(), 'state.db'));
  const before = await changesSoFar(db);
  await db.transaction().execute((tx) => getMeta(tx, 'schema'));
  assert.is(await changesSoFar(db), before);
  await db.transaction().execute(async (tx) => {
    await setMeta(tx, 'key', 'value');
    assert.is(await changesSoFar(tx), before + 1);
  });
  await setMeta(db, 'key', 'value');
  assert.is(await changesSoFar(db), before + 2);
  await db.destroy();
});

test('a failed transaction leaves nothing, foreign keys hold', async () => {
  const db = await openDatabase(join(folder(), 'state.db'));
  try {
    await db.transaction().execute(async (tx) => {
      await setMeta(tx, 'a', 'b');
      await tx.insertInto('trees').values({ id: 't', name: 't', user_id: 'nobody', created_at: 1 }).execute();
    });
    assert.unreachable('the foreign key was not enforced');
  } catch (error) {
    assert.match((error as Error).message, /FOREIGN KEY/);
  }
  assert.is(await getMeta(db, 'a'), undefined);
  await db.destroy();
});

test('the data directory is private and has one owner in this process', async () => {
  const path = join(folder(), 'data');
  const data = await openDataFolder(path);
  const mode = (name: string) => (statSync(join(path, name)).mode & 0o777).toString(8);
  assert.equal(['.', 'blobs', 'spool', 'state.db', 'state.db-wal', 'lock'].map(mode), [
    '700',
    '700',
    '700',
    '600',
    '600',
    '600',
  ]);
  await failsWith('data-locked', () => openDataFolder(path));
  await failsWith('data-locked', () => openDataFolder(path));
  await data.close();
  await (await openDataFolder(path)).close();
});

test('a second process is refused, what a dead one left is taken over', async () => {
  const path = folder();
  const data = await openDataFolder(path);
  const module = new URL('../../../src/server/store/folder.ts', import.meta.url).href;
  const script = `import(${JSON.stringify(module)})
    .then((m) => m.openDataFolder(${JSON.stringify(path)}))
    .then(() => process.kill(process.pid, 'SIGKILL'), (e) => console.log(e.code))`;
  const child = () => spawnSync(process.execPath, [...process.execArgv, '-e', script], { encoding: 'utf8' });
  assert.is(child().stdout, 'data-locked\n');
  await data.close();
  assert.is(child().signal, 'SIGKILL'); // it was let in and died with the lock
  await (await openDataFolder(path)).close();
});

test('what lies in the spool at the start is nobody’s', async () => {
  const path = folder();
  await (await openDataFolder(path)).close();
  writeFileSync(join(path, 'spool', 'half'), 'x');
  await (await openDataFolder(path)).close();
  assert.equal(readdirSync(join(path, 'spool')), []);
});

test('operator.json is private and replaced whole', async () => {
  const path = join(folder(), 'operator.json');
  assert.is(await readOperatorFile(path), undefined);
  const content = { server: 'http://x', id: 'i', role: 'operator', token: 't' } as const;
  await writeOperatorFile(path, { ...content, token: 'older' });
  await writeOperatorFile(path, content);
  assert.equal(await readOperatorFile(path), content);
  assert.is(statSync(path).mode & 0o777, 0o600);
});

test.run();
