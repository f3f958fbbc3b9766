/**
 * The embedded engine: SQLite, as it comes with Node where it is stable there, else through the optional package
 * `libsql`. Both are used by the same narrow interface, the one that kysely expects.
 */
import type { SqliteDatabase, SqliteStatement } from 'kysely';
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
 * Statements that are kept prepared: to prepare one takes longer than to run it. Their texts are those of this program; only
 * lists of ids make more of them, and what has not been used for long goes.
 */
const MAX_PREPARED = 512;

/** The same engine, which prepares a text once. Every statement is read to its end before another one is run. */
export function keepPrepared(engine: Engine): Engine {
  const kept = new Map<string, SqliteStatement>();
  return {
    exec: (sql) => engine.exec(sql),
    prepare(sql) {
      const known = kept.get(sql);
      kept.delete(sql);
      const statement = known ?? withReader(engine.prepare(sql));
      kept.set(sql, statement);
      if (kept.size > MAX_PREPARED) kept.delete(kept.keys().next().value!); // there is one
      return statement;
    },
    close() {
      kept.clear();
      engine.close();
    },
  };
}

/** A statement that has been asked once whether it gives rows. */
function withReader(statement: SqliteStatement): SqliteStatement {
  return {
    reader: statement.reader,
    all: (parameters) => statement.all(parameters),
    run: (parameters) => statement.run(parameters),
    iterate: (parameters) => statement.iterate(parameters),
  };
}

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
        all: (parameters) => statement.all(...parameters).map(plain),
        *iterate(parameters) {
          for (const row of statement.iterate(...parameters)) yield plain(row);
        },
        run: (parameters) => statement.run(...parameters),
      };
    },
  };
}

/** A row as the other engine gives it: those of Node have no prototype. */
function plain(row: unknown): unknown {
  return { ...(row as object) };
}
