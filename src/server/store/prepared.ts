/**
 * Queries that are built and compiled once. To build one takes longer than SQLite takes to run it, so what every upload asks is
 * a constant of its module:
 *
 *     const leafById = prepared((db, { id }: { id: string }) => db.selectFrom('leaves').selectAll().where('id', '=', id));
 *     const [leaf] = await leafById(tx, { id });
 */
import type { Compilable, CompiledQuery } from 'kysely';
import type { Database } from './database.ts';

/** Stands in a query that is being built where a value goes. */
class Slot {
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }
}

/** What a query gives that is asked with these values. */
type Ask<V, R> = (db: Database, values: V) => Promise<R[]>;

/**
 * Builds a query when it is first asked, and keeps it. All databases of a process are of one dialect.
 *
 * @param build gets placeholders in the place of values: it may pass them on to the query, and do nothing else with them. The same
 *   names are given each time, and no lists, whose lengths would be part of the text
 */
export function prepared<V extends object, R>(build: (db: Database, values: V) => Compilable<R>): Ask<V, R> {
  let kept: CompiledQuery<R> | undefined;
  return async (db, values) => {
    kept ??= build(db, slotsLike(values)).compile();
    const parameters = kept.parameters.map((parameter) =>
      parameter instanceof Slot ? (values as Readonly<Record<string, unknown>>)[parameter.name] : parameter,
    );
    return (await db.executeQuery<R>({ ...kept, parameters })).rows;
  };
}

function slotsLike<V extends object>(values: V): V {
  const slots = Object.keys(values).map((name) => [name, new Slot(name)]);
  return Object.fromEntries(slots) as V; // a query takes anything for a value
}
