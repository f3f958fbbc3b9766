import { Kysely, SqliteDialect } from 'kysely';
import { CambiumError } from '../../errors.ts';
import { migrate } from './migrations.ts';
import type { Schema } from './schema.ts';
import { openEngine } from './sqlite.ts';

/** A connection, or a transaction on it. */
export type Database = Kysely<Schema>;

/**
 * Opens the embedded database and brings its tables up to date.
 *
 * The connection holds the file's lock until it is closed or the process dies, whatever way it dies: that is what keeps a
 * second server out of the data directory. A commit returns after its bytes are on the disk.
 *
 * @throws CambiumError `data-locked` when another process has it open, `state-newer`; UnavailableError
 */
export async function openDatabase(path: string): Promise<Database> {
  const engine = await openEngine(path);
  try {
    engine.exec('PRAGMA busy_timeout = 0');
    engine.exec('PRAGMA locking_mode = EXCLUSIVE');
    // Changing the mode touches the file, and the lock that is taken then is never given back.
    engine.prepare('PRAGMA journal_mode = WAL').all([]);
    engine.exec('BEGIN IMMEDIATE; COMMIT');
  } catch (cause) {
    engine.close();
    if (isBusy(cause)) {
      throw new CambiumError('data-locked', `${path} is in use by another process`, { cause });
    }
    throw cause;
  }
  engine.exec('PRAGMA busy_timeout = 5000');
  engine.exec('PRAGMA synchronous = FULL');
  engine.exec('PRAGMA foreign_keys = ON');
  const db = new Kysely<Schema>({ dialect: new SqliteDialect({ database: engine }) });
  try {
    await migrate(db);
  } catch (error) {
    await db.destroy();
    throw error;
  }
  return db;
}

function isBusy(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return /SQLITE_BUSY|database is locked/.test(`${(error as { code?: unknown }).code} ${error.message}`);
}
