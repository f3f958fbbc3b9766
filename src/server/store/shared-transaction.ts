import { CompiledQuery } from 'kysely';
import type { Database } from './database.ts';

interface Piece {
  readonly work: (tx: Database) => Promise<unknown>;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

type Outcome = { readonly value: unknown } | { readonly error: unknown };

/** What waits for the next transaction of a database. */
const lines = new WeakMap<Database, Piece[]>();

/**
 * Runs a piece of work in a transaction that it may share: whoever comes in the same turn, or while one is under way, goes
 * into one together, and their bytes are brought to the disk at once. A piece that throws undoes its own changes alone;
 * nobody is answered before the commit. The slower the disk, the more share it.
 */
export function inSharedTransaction<T>(db: Database, work: (tx: Database) => Promise<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const piece: Piece = { work, resolve: resolve as Piece['resolve'], reject }; // gets what its own work returns
    const line = lines.get(db);
    if (line !== undefined) {
      line.push(piece);
      return;
    }
    const begun = [piece];
    lines.set(db, begun);
    void serve(db, begun);
  });
}

async function serve(db: Database, line: Piece[]): Promise<void> {
  while (line.length > 0) {
    // Whatever became ready while the last commit waited for the disk comes before this turn.
    await new Promise(setImmediate);
    const pieces = line.splice(0);
    try {
      const outcomes = await db.transaction().execute((tx) => runAll(tx, pieces));
      for (const [i, outcome] of outcomes.entries()) {
        if ('error' in outcome) pieces[i]!.reject(outcome.error);
        else pieces[i]!.resolve(outcome.value);
      }
    } catch (error) {
      for (const piece of pieces) piece.reject(error);
    }
  }
  lines.delete(db);
}

async function runAll(tx: Database, pieces: readonly Piece[]): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const { work } of pieces) {
    await tx.executeQuery(SAVE);
    try {
      outcomes.push({ value: await work(tx) });
    } catch (error) {
      await tx.executeQuery(UNDO);
      outcomes.push({ error });
    }
    await tx.executeQuery(RELEASE);
  }
  return outcomes;
}

const SAVE = CompiledQuery.raw('savepoint piece');
const UNDO = CompiledQuery.raw('rollback to savepoint piece');
const RELEASE = CompiledQuery.raw('release savepoint piece');
