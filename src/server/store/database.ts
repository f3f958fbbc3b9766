import { CompiledQuery, Kysely, SqliteDialect } from 'kysely';
import { migrate } from './migrations.ts';
import type { Schema } from './schema.ts';
import { keepPrepared, openEngine } from './sqlite.ts';

/** A connection, or a transaction on it. */
export type Database = Kysely<Schema>;

/**
 * Opens the embedded database and brings its tables up to date. A commit returns after its bytes are on the disk.
 *
 * @throws CambiumError `state-newer`; UnavailableError
 */
export async function openDatabase(path: string): Promise<Database> {
  const engine = await openEngine(path);
  engine.exec('PRAGMA busy_timeout = 5000');
  engine.prepare('PRAGMA journal_mode = WAL').all([]);
  engine.exec('PRAGMA synchronous = FULL');
  engine.exec('PRAGMA foreign_keys = ON');
  const db = new Kysely<Schema>({ dialect: new SqliteDialect({ database: keepPrepared(engine) }) });
  try {
    await migrate(db);
  } catch (error) {
    await db.destroy();
    throw error;
  }
  return db;
}

/**
 * A number that grows with every row that is written, by whoever: as long as it is the same, what was read before is what
 * would be read again.
 */
export async function changesSoFar(db: Database): Promise<number> {
  const { rows } = await db.executeQuery(CHANGES);
  return rows[0]!.count; // it is a row
}

const CHANGES: CompiledQuery<{ count: number }> = CompiledQuery.raw('select total_changes() as count');

/**
 * Takes a lock that the system gives back when this process dies, whatever way it dies: an open transaction on an empty
 * database file. The result gives it back.
 *
 * @returns undefined when somebody else has it
 */
export async function takeLock(path: string): Promise<(() => void) | undefined> {
  const engine = await openEngine(path);
  try {
    // Prepared statements would keep the file open after `close`, until they are collected as garbage.
    engine.exec('PRAGMA busy_timeout = 0; BEGIN EXCLUSIVE');
  } catch (error) {
    engine.close();
    if (isBusy(error)) return undefined;
    throw error;
  }
  return () => engine.close();
}

function isBusy(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return /SQLITE_BUSY|database is locked/.test(`${(error as { code?: unknown }).code} ${error.message}`);
}
