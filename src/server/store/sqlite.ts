/**
 * The embedded engine: SQLite, as it comes with Node where it is stable there, else through the optional package
 * `libsql`. Both are used by the same narrow interface, the one that kysely expects.
 */
import type { SqliteDatabase } from 'kysely';
import { UnavailableError } from '../../errors.ts';

/** kysely's interface and what we need to configure a connection. */
export interface Engine extends SqliteDatabase {
  exec(sql: string): unknown;
}

/** The part of `node:sqlite` that is used; the types of Node 20 do not have it. */
interface NodeSqlite {
  readonly DatabaseSync: new (
    path: string,
  ) => {
    exec(sql: string): void;
    prepare(sql: string): {
      columns(): readonly unknown[];
      all(...parameters: unknown[]): unknown[];
      iterate(...parameters: unknown[]): IterableIterator<unknown>;
      run(...parameters: unknown[]): { changes: number | bigint; lastInsertRowid: number | bigint };
    };
    close(): void;
  };
}

/** The first major version of Node whose own SQLite we rely on. */
const NODE_WITH_SQLITE = 24;

/**
 * Opens or creates a database file.
 *
 * @throws UnavailableError `unavailable-libsql` when this Node has no engine and the package is not installed
 */
export async function openEngine(path: string): Promise<Engine> {
  if (Number(process.versions.node.split('.')[0]) >= NODE_WITH_SQLITE) return openNodeSqlite(path);
  let Database: typeof import('libsql');
  try {
    Database = (await import('libsql')).default;
  } catch (cause) {
    throw new UnavailableError(
      'unavailable-libsql',
      `the server keeps its state with the package libsql on Node ${process.versions.node}: npm install libsql`,
      { cause },
    );
  }
  // Its types are looser than kysely's, its behaviour is the one kysely was written for.
  return new Database(path) as unknown as Engine;
}

async function openNodeSqlite(path: string): Promise<Engine> {
  const name = 'node:sqlite'; // a constant would make older type files and bundlers look for it
  const { DatabaseSync } = (await import(name)) as NodeSqlite;
  const database = new DatabaseSync(path);
  return {
    exec: (sql) => database.exec(sql),
    close: () => database.close(),
    prepare(sql) {
      const statement = database.prepare(sql);
      return {
        reader: statement.columns().length > 0,
        all: (parameters) => statement.all(...parameters),
        iterate: (parameters) => statement.iterate(...parameters),
        run: (parameters) => statement.run(...parameters),
      };
    },
  };
}
