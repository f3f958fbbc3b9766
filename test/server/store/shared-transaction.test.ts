import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Database, openDatabase } from '../../../src/server/store/database.ts';
import { getMeta, setMeta } from '../../../src/server/store/migrations.ts';
import { inSharedTransaction } from '../../../src/server/store/shared-transaction.ts';

const test = suite('shared transactions');
const folder = mkdtempSync(join(tmpdir(), 'cambium-shared-'));
let db: Database;
let begun = 0;
test.before(async () => {
  db = await openDatabase(join(folder, 'state.db'));
  const { transaction } = db;
  db.transaction = () => {
    begun++;
    return transaction.call(db);
  };
});
test.after(async () => {
  await db.destroy();
  rmSync(folder, { recursive: true });
});

const put = (key: string) => async (tx: Database) => {
  await setMeta(tx, key, key);
  return key;
};

test('who comes in one turn shares a transaction, who comes during it the next one, in order', async () => {
  begun = 0;
  const order: number[] = [];
  const later: Promise<string>[] = [];
  const come = (i: number): Promise<string> =>
    inSharedTransaction(db, async (tx) => {
      order.push(i);
      if (i < 5) later.push(come(i + 5));
      return put(`a${i}`)(tx);
    });
  const values = await Promise.all([0, 1, 2, 3, 4].map(come));
  values.push(...(await Promise.all(later)));
  assert.equal(
    values,
    Array.from({ length: 10 }, (_, i) => `a${i}`),
  );
  assert.equal(order, [...order.keys()]);
  assert.is(begun, 2);
  await inSharedTransaction(db, put('alone'));
  assert.is(begun, 3);
});

test('a piece that fails undoes its own changes alone', async () => {
  const settled = await Promise.allSettled(
    ['b0', 'b1', 'b2', 'b3'].map((key, i) =>
      inSharedTransaction(db, async (tx) => {
        await put(key)(tx);
        if (i === 2) throw new Error('refused');
        return key;
      }),
    ),
  );
  assert.equal(
    settled.map(({ status }) => status),
    ['fulfilled', 'fulfilled', 'rejected', 'fulfilled'],
  );
  const kept = await Promise.all(['b0', 'b1', 'b2', 'b3'].map((key) => getMeta(db, key)));
  assert.equal(kept, ['b0', 'b1', undefined, 'b3']);
});

test('where the transaction fails all of its pieces do, and the next one is none the worse', async () => {
  await inSharedTransaction(db, put('c0'));
  const { transaction } = db;
  db.transaction = () => {
    throw new Error('no disk');
  };
  const settled = await Promise.allSettled([
    inSharedTransaction(db, put('c1')),
    inSharedTransaction(db, put('c2')),
  ]);
  db.transaction = transaction;
  assert.equal(
    settled.map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  assert.is(await inSharedTransaction(db, put('c3')), 'c3');
  assert.is(await getMeta(db, 'c1'), undefined);
});

test.run();
