import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Database, openDatabase } from '../../../src/server/store/database.ts';
import { prepared } from '../../../src/server/store/prepared.ts';

const test = suite('prepared queries');
const folder = mkdtempSync(join(tmpdir(), 'cambium-prepared-'));
let db: Database;
test.before(async () => {
  db = await openDatabase(join(folder, 'state.db'));
});
test.after(async () => {
  await db.destroy();
  rmSync(folder, { recursive: true });
});

test('a query is built once, whatever it is asked, on a connection and in transactions', async () => {
  let built = 0;
  const put = prepared((on, row: { readonly key: string; readonly value: string }) => {
    built++;
    return on.insertInto('meta').values(row);
  });
  const find = prepared(
    (on, { from, to, not }: { readonly from: string; readonly to: string; not: string }) => {
      built++;
      return on
        .selectFrom('meta')
        .select(['key', 'value'])
        .where('value', '!=', not)
        .where('key', 'in', [from, to])
        .where('key', '!=', 'schema') // what does not change stands in the text
        .orderBy('key');
    },
  );
  assert.equal(await put(db, { key: 'a', value: '1' }), []);
  await db.transaction().execute(async (tx) => {
    await put(tx, { key: 'b', value: "'; drop table meta" });
    await put(tx, { value: '3', key: 'c' }); // in any order
  });
  const a = { key: 'a', value: '1' };
  const b = { key: 'b', value: "'; drop table meta" };
  const c = { key: 'c', value: '3' };
  assert.equal(await find(db, { from: 'a', to: 'b', not: '' }), [a, b]);
  assert.equal(await find(db, { not: '1', from: 'c', to: 'a' }), [c]);
  assert.equal(await find(db, { not: '', from: 'schema', to: 'schema' }), []);
  assert.is(built, 2);
});

test.run();
