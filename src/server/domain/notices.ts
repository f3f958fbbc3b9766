/**
 * The outbox. A notice is written in the transaction that makes it true, with the next number of its branch; so a leaf
 * that has seen number n has missed nothing up to n, and can ask for what came after.
 */
import type { Notice, RunStatus } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import { prepared } from '../store/prepared.ts';
import type { Domain } from './domain.ts';
import { branchesBelow, lockBranch } from './trees.ts';

/** A notice as it goes out. */
export interface NumberedNotice {
  readonly number: number;
  readonly data: Notice;
}

/** So many notices are read at once; where fewer come there are no more. */
export const NOTICE_PAGE = 100;

/**
 * Writes a notice for a root branch and every branch below it, with the next number of each; inside a transaction. Its
 * leaves hear of it when `announce` is called after the commit.
 */
export async function writeNotice(
  tx: Database,
  rootId: string,
  runId: string,
  data: Notice,
  now: number,
): Promise<void> {
  for (const branch of await branchesBelow(tx, rootId)) {
    const number = branch.notice_number + 1;
    await tx
      .insertInto('notices')
      .values({
        branch_id: branch.id,
        number,
        run_id: runId,
        event: data.message_type,
        data: JSON.stringify(data),
        created_at: now,
      })
      .execute();
    await tx.updateTable('branches').set({ notice_number: number }).where('id', '=', branch.id).execute();
  }
}

/** Tells the leaves of a root branch where its run stands, or that no aggregation will come of a round. */
export function writeRunNotice(
  tx: Database,
  rootId: string,
  run: {
    readonly id: string;
    readonly number: number;
    readonly status: RunStatus;
    readonly round: number;
    readonly givenUpRound?: number | undefined;
  },
  now: number,
): Promise<void> {
  const { id, number, status, round, givenUpRound } = run;
  const data: Notice = {
    message_type: 'run_status',
    body: { run_status: status },
    run: number,
    round,
    ...(givenUpRound !== undefined && { given_up_round: givenUpRound }),
  };
  return writeNotice(tx, rootId, id, data, now);
}

/** Wakes whoever listens to a root branch or one below it, after the commit. @param roundId the round that changed */
export async function announce({ db, signals }: Domain, rootId: string, roundId: string): Promise<void> {
  for (const branch of await branchesBelow(db, rootId)) {
    signals.emit(`notices:${branch.id}`);
    signals.emit(`rounds:${branch.id}`, roundId);
  }
  signals.emit('ends');
}

/** The next notices of a branch after a number, in order; an empty list when there is none. */
export async function noticesAfter(
  db: Database,
  branchId: string,
  number: number,
): Promise<NumberedNotice[]> {
  return (await nextNotices(db, { branchId, number })).map(read);
}

const nextNotices = prepared(
  (db, { branchId, number }: { readonly branchId: string; readonly number: number }) =>
    db
      .selectFrom('notices')
      .select(['number', 'data'])
      .where('branch_id', '=', branchId)
      .where('number', '>', number)
      .orderBy('number')
      .limit(NOTICE_PAGE),
);

/**
 * What a leaf must know that asks for the first time: the present status of the run, and the newest aggregation of that
 * run. An older run's result is left out: it belongs to another global model.
 */
export async function presentNotices(db: Database, branchId: string): Promise<NumberedNotice[]> {
  return db.transaction().execute(async (tx) => {
    const branch = await lockBranch(tx, branchId);
    const newest = (event: Notice['message_type']) =>
      tx
        .selectFrom('notices')
        .select(['number', 'data'])
        .where('branch_id', '=', branchId)
        .where('run_id', '=', branch.run_id ?? '')
        .where('event', '=', event)
        .orderBy('number', 'desc')
        .limit(1)
        .executeTakeFirst();
    const status = await newest('run_status');
    const aggregation = await newest('aggregation_status');
    const found = [status, aggregation].filter((row) => row !== undefined).map(read);
    if (status === undefined) {
      const data = {
        message_type: 'run_status',
        body: { run_status: 'stop' },
        run: 0,
        round: 0,
      } as const;
      found.push({ number: 0, data });
    }
    return found.sort((a, b) => a.number - b.number);
  });
}

function read(row: { number: number; data: string }): NumberedNotice {
  return { number: row.number, data: JSON.parse(row.data) as Notice }; // written by writeNotice
}
