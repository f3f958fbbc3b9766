/** What an update costs, in counts that no machine changes: statements, commits and flushes of files. */
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { Kysely, SqliteDialect } from 'kysely';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Domain } from '../../../src/server/domain/domain.ts';
import { type Leaf, revokeLeaf } from '../../../src/server/domain/leaves.ts';
import { listMetrics } from '../../../src/server/domain/metrics.ts';
import { presentNotices } from '../../../src/server/domain/notices.ts';
import { listOwnUpdates } from '../../../src/server/domain/own-updates.ts';
import { getResultFor, markFetched } from '../../../src/server/domain/results.ts';
import { listRounds } from '../../../src/server/domain/round-view.ts';
import { changeRun, getRun, listRuns } from '../../../src/server/domain/runs.ts';
import { acceptUpdate } from '../../../src/server/domain/updates.ts';
import type { Schema } from '../../../src/server/store/schema.ts';
import { Spool } from '../../../src/server/store/spool.ts';
import { type Engine, keepPrepared, openEngine } from '../../../src/server/store/sqlite.ts';
import { padded, ToyTimers, toyFile } from '../harness.ts';
import { Rig } from './rig.ts';

const test = suite('costs');

/** Of an update among others of its round, both transactions with their begin and end included. */
const STATEMENTS = 21;

/** An engine that notes the texts of what is run. */
function noting(engine: Engine, ran: string[]): Engine {
  return {
    exec: (sql) => engine.exec(sql),
    close: () => engine.close(),
    prepare(sql) {
      const statement = engine.prepare(sql);
      const note = <T>(result: T): T => {
        ran.push(sql);
        return result;
      };
      return {
        reader: statement.reader,
        all: (parameters) => note(statement.all(parameters)),
        run: (parameters) => note(statement.run(parameters)),
        iterate: (parameters) => note(statement.iterate(parameters)),
      };
    },
  };
}

/** A server's domain, and its database seen through an engine that notes what is run. */
async function startNoted() {
  const rig = await new Rig().start();
  const ran: string[] = [];
  const engine = noting(await openEngine(join(rig.path, 'state.db')), ran);
  const db = new Kysely<Schema>({ dialect: new SqliteDialect({ database: keepPrepared(engine) }) });
  return { rig, ran, engine, db };
}

/** Counts the flushes of files while `work` is done; those of the database are its commits. */
async function flushesOf(folder: string, work: () => Promise<unknown>): Promise<number> {
  const handle = await open(folder);
  const methods = Object.getPrototypeOf(handle) as Pick<FileHandle, 'sync' | 'datasync'>;
  await handle.close();
  const { sync, datasync } = methods;
  let count = 0;
  const counted = (flush: () => Promise<void>) =>
    function (this: FileHandle) {
      count++;
      return flush.call(this);
    };
  Object.assign(methods, { sync: counted(sync), datasync: counted(datasync) });
  try {
    await work();
  } finally {
    Object.assign(methods, { sync, datasync });
  }
  return count;
}

for (const [name, bytes, flushes] of [
  ['a small update, in a row', toyFile(1), 0],
  // The file and the folder that names it, which is new and named by another one.
  ['a larger one, in a file', padded(toyFile(1)), 3],
] as const) {
  test(name, async () => {
    const { rig, ran, db } = await startNoted();
    const spool = new Spool(join(rig.path, 'spool'), {
      maxBytes: 1 << 20,
      idleMs: 60_000,
      timers: new ToyTimers(),
    });
    try {
      const branch = await rig.branch({ aggregation_target: 3 });
      const [first, second] = (await rig.leaves(branch, 3)) as [Leaf, Leaf, Leaf];
      await changeRun(rig.domain, branch, 'start');
      await rig.upload(first, toyFile(1)); // which fixes the contract of the run
      const domain: Domain = { ...rig.domain, db };
      const count = await flushesOf(rig.path, async () => {
        const body = await spool.receive(Readable.from([bytes]));
        await acceptUpdate(domain, second, body);
        if ('remove' in body) await body.remove();
      });
      assert.is(count, flushes);
      assert.is(ran.filter((sql) => sql === 'commit').length, 2); // of a look and of what is written
      assert.is(ran.length, STATEMENTS, `${ran.length} statements:\n${ran.join('\n')}`);
    } finally {
      await db.destroy();
      await rig.end();
    }
  });
}

/** Ways through a table that grow with what other branches have, or with what this one has had. */
const LOOKS_THROUGH =
  /^SCAN (?!below|CONSTANT ROW|updates USING INDEX updates_kept)|AUTOMATIC (?!COVERING INDEX \(round_id)/;

test('no statement of a round looks through a table', async () => {
  const { rig, ran, engine, db } = await startNoted();
  const noted: Domain = { ...rig.domain, db };
  try {
    const strategy = { name: 'fedadam', parameters: { learningRate: 1 } };
    const policy = { minimum: 1, deadline_ms: 1000, keep_aggregations: 1, replace: true, strategy };
    const branch = await rig.branch({ aggregation_target: 2, ...policy });
    const leaves = await rig.leaves(branch, 2);
    Object.assign(rig.domain, { db }); // of the aggregator and the clock, too
    await changeRun(noted, branch, 'start');
    for (const round of [1, 2, 3]) {
      for (const leaf of leaves) {
        await rig.upload(leaf, toyFile(round), { idempotencyKey: `${round}` });
        await presentNotices(db, branch);
      }
      const { aggregation_id } = await rig.settled(branch, round);
      await getResultFor(db, aggregation_id!, leaves[0]!);
      await markFetched(noted, aggregation_id!, leaves[0]!.id);
    }
    await revokeLeaf(noted, leaves[1]!.id);
    for (const look of [getRun, listRuns, listMetrics] as const) await look(noted, branch);
    await listRounds(db, branch, { status: 'done', run: 1 });
    await listOwnUpdates(db, leaves[0]!, 'f'.repeat(64));
    await rig.recorded();
    const plans = new Map<string, string[]>();
    for (const sql of new Set(ran.filter((text) => /^(select|insert|update|delete|with) /.test(text)))) {
      const parameters = Array<null>(sql.split('?').length - 1).fill(null);
      const plan = engine.prepare(`explain query plan ${sql}`).all(parameters) as { detail: string }[];
      const through = plan.map(({ detail }) => detail).filter((detail) => LOOKS_THROUGH.test(detail));
      if (through.length > 0) plans.set(sql, through);
    }
    assert.equal([...plans], []);
  } finally {
    await rig.end();
    await db.destroy();
  }
});

test('a list of rounds takes as many statements as one of them', async () => {
  const { rig, ran, db } = await startNoted();
  try {
    const branch = await rig.branch({ aggregation_target: 1 });
    const [leaf] = await rig.leaves(branch, 1);
    await changeRun(rig.domain, branch, 'start');
    for (const round of [1, 2, 3]) {
      await rig.upload(leaf!, toyFile(round));
      await rig.settled(branch, round);
    }
    const counts: number[] = [];
    for (const limit of [1, 4]) {
      const before = ran.length;
      assert.is((await listRounds(db, branch, { limit })).length, limit);
      counts.push(ran.length - before);
    }
    assert.equal(counts, [counts[0], counts[0]]);
  } finally {
    await db.destroy();
    await rig.end();
  }
});

test.run();
