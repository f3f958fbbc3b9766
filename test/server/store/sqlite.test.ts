import { spawnSync } from 'node:child_process';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { keepPrepared, openEngine } from '../../../src/server/store/sqlite.ts';

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
  const args = [...process.execArgv, '--input-type=module', '-e', script];
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  assert.match(stdout, /^UnavailableError unavailable-libsql .*npm install libsql\n$/, stderr);
});

test('a text is prepared once, and the oldest ones go', () => {
  const prepared: string[] = [];
  let asked = 0;
  const engine = keepPrepared({
    exec() {},
    close() {},
    prepare(sql) {
      prepared.push(sql);
      return {
        get reader() {
          asked++;
          return true;
        },
        all: (parameters) => [sql, ...parameters],
        run: () => ({ changes: 0, lastInsertRowid: 0 }),
        iterate: () => [][Symbol.iterator](),
      };
    },
  });
  assert.equal(engine.prepare('a').all([1]), ['a', 1]);
  assert.equal(engine.prepare('a').all([2]), ['a', 2]);
  assert.ok(engine.prepare('a').reader && engine.prepare('a').reader);
  assert.equal([prepared, asked], [['a'], 1]);
  for (let i = 0; i < 600; i++) {
    engine.prepare(`text ${i}`);
    engine.prepare('a'); // what is used stays
  }
  engine.prepare('text 0');
  assert.equal([prepared.filter((sql) => sql === 'a').length, prepared.at(-1), asked], [1, 'text 0', 602]);
});

test('rows are plain objects, however they are read', async () => {
  const engine = await openEngine(':memory:');
  const statement = engine.prepare('select 1 as one union select 2');
  for (const rows of [statement.all([]), [...statement.iterate([])]]) {
    assert.equal(rows, [{ one: 1 }, { one: 2 }]);
    for (const row of rows) assert.is(Object.getPrototypeOf(row), Object.prototype);
  }
  engine.close();
});

test('a kept statement can be run again after it has failed', async () => {
  const engine = keepPrepared(await openEngine(':memory:'));
  engine.exec('create table t (id integer primary key)');
  const insert = (id: number) => engine.prepare('insert into t values (?)').run([id]);
  insert(1);
  assert.throws(() => insert(1), /UNIQUE/);
  insert(2);
  engine.exec('begin');
  assert.throws(() => insert(2), /UNIQUE/);
  engine.exec('rollback');
  assert.equal(
    [...engine.prepare('select id from t order by id').all([])].map((row) => (row as { id: number }).id),
    [1, 2],
  );
  engine.close();
});

test.run();
