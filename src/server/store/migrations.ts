/**
 * The history of the tables, forward only: a migration that has been released is never edited. The number of those that
 * were applied stands in `meta`. A database that is ahead of this program is refused, because writing to it with old
 * rules could lose what the newer program keeps there.
 */
import { type Kysely, sql } from 'kysely';
import { CambiumError } from '../../errors.ts';
import type { Schema } from './schema.ts';

const MIGRATIONS: readonly (readonly string[])[] = [
  [
    `create table operators (
      id text primary key, name text not null, role text not null, token_hash text not null,
      created_at bigint not null, revoked_at bigint)`,
    `create table trees (
      id text primary key, name text not null, user_id text not null references operators (id),
      created_at bigint not null)`,
    `create table branches (
      id text primary key, name text not null, tree_id text not null references trees (id),
      parent_id text references branches (id), aggregation_target integer not null, run_id text,
      notice_number bigint not null, created_at bigint not null)`,
    `create table leaves (
      id text primary key, name text not null, branch_id text not null references branches (id),
      token_hash text not null, created_at bigint not null, revoked_at bigint, unique (branch_id, name))`,
    `create table runs (
      id text primary key, branch_id text not null references branches (id), number integer not null,
      status text not null, contract text, started_at bigint not null, stopped_at bigint,
      unique (branch_id, number))`,
    `create table rounds (
      id text primary key, run_id text not null references runs (id),
      branch_id text not null references branches (id), number integer not null, status text not null,
      aggregation_id text unique, total_weighting double precision, aggregation_seconds double precision,
      failure text, opened_at bigint not null, closed_at bigint, done_at bigint, unique (run_id, number))`,
    `create index rounds_by_status on rounds (status, branch_id)`,
    `create table updates (
      id text primary key, round_id text not null references rounds (id),
      leaf_id text not null references leaves (id), weighting double precision not null,
      byte_length bigint not null, sha256 text not null, idempotency_key text, received_at bigint not null,
      removed_at bigint, unique (round_id, leaf_id), unique (leaf_id, idempotency_key))`,
    `create table aggregations (
      id text primary key, round_id text not null unique references rounds (id),
      branch_id text not null references branches (id), leaves integer not null,
      total_weighting double precision not null, byte_length bigint not null, sha256 text not null,
      created_at bigint not null)`,
    `create table fetches (
      aggregation_id text not null references aggregations (id), leaf_id text not null references leaves (id),
      fetched_at bigint not null, primary key (aggregation_id, leaf_id))`,
    `create table notices (
      branch_id text not null references branches (id), number bigint not null,
      run_id text not null references runs (id), event text not null, data text not null,
      created_at bigint not null, primary key (branch_id, number))`,
    `create table metrics (
      id text primary key, aggregation_id text not null references aggregations (id),
      leaf_id text not null references leaves (id), mode text not null, data text not null,
      idempotency_key text, received_at bigint not null, unique (leaf_id, idempotency_key))`,
    `create index metrics_by_aggregation on metrics (aggregation_id)`,
  ],
  [`alter table leaves add column access_hash text`, `create index leaves_by_name on leaves (name)`],
  [
    `create table broker_leaves (
      leaf_id text primary key references leaves (id), password_hash text, hears_run smallint not null)`,
    `create table broker_cursors (
      branch_id text not null references branches (id), arrangement text not null, number bigint not null,
      primary key (branch_id, arrangement))`,
  ],
  [
    `alter table branches add column policy text`,
    `alter table branches add column deleted_at bigint`,
    `alter table runs add column paused_at bigint`,
    `alter table rounds add column policy text`,
    `alter table rounds add column sample text`,
    `alter table rounds add column closes_at bigint`,
    `alter table rounds add column minimum_at bigint`,
    `alter table rounds add column started_at bigint`,
    `alter table rounds add column strategy text`,
    `alter table rounds add column bytes_read bigint`,
    `alter table updates add column staleness integer not null default 0`,
    `alter table updates add column local_steps double precision`,
    `alter table updates add column left_out text`,
    `alter table aggregations add column state_id text`,
    `alter table aggregations add column removed_at bigint`,
    `create table exclusions (
      round_id text not null references rounds (id), leaf_id text not null references leaves (id),
      excluded_at bigint not null, primary key (round_id, leaf_id))`,
    `create table replaced_updates (
      id text primary key, round_id text not null references rounds (id),
      leaf_id text not null references leaves (id), sha256 text not null, idempotency_key text,
      received_at bigint not null, replaced_at bigint not null)`,
    `create index replaced_updates_by_round on replaced_updates (round_id, leaf_id)`,
    `create table averages (
      id text primary key, round_id text not null references rounds (id),
      branch_id text not null references branches (id), leaves integer not null,
      total_weighting double precision not null, byte_length bigint not null, sha256 text not null,
      created_at bigint not null, unique (round_id, branch_id))`,
  ],
  [
    `alter table updates add column sum_leaves integer`,
    `alter table updates add column sum_total text`,
    `create table sum_leaves (
      update_id text not null references updates (id), round_id text not null references rounds (id),
      leaf text not null, primary key (update_id, leaf))`,
    `create index sum_leaves_by_round on sum_leaves (round_id, leaf)`,
    `create table sums (
      id text primary key, round_id text not null unique references rounds (id),
      branch_id text not null references branches (id), leaves integer not null,
      total_weighting double precision not null, byte_length bigint not null, sha256 text not null,
      created_at bigint not null, removed_at bigint)`,
  ],
  [
    `alter table updates add column norm double precision`,
    `alter table updates add column norm_base text`,
    `alter table updates add column receive_ms bigint`,
    `alter table updates add column examine_ms bigint`,
    `alter table rounds add column write_seconds double precision`,
  ],
  [`alter table updates add column is_difference smallint not null default 0`],
  [
    `alter table fetches add column run_id text`,
    `alter table fetches add column round integer`,
    `update fetches set
      run_id = (select rounds.run_id from aggregations join rounds on rounds.id = aggregations.round_id
        where aggregations.id = fetches.aggregation_id),
      round = (select rounds.number from aggregations join rounds on rounds.id = aggregations.round_id
        where aggregations.id = fetches.aggregation_id)`,
    `create index fetches_by_leaf on fetches (leaf_id, run_id, round)`,
    `create index rounds_by_run on rounds (run_id, status, number)`,
    `alter table updates add column bytes blob`,
  ],
  // What is still kept is little beside the history of a long run, which every completion would look through.
  [`create index updates_kept on updates (round_id) where removed_at is null`],
  [`create index replaced_updates_by_key on replaced_updates (leaf_id, idempotency_key)`],
  // No statement looks through what all branches have, or one of them has ever had (test/server/domain/costs.test.ts).
  [
    `create index branches_by_parent on branches (parent_id)`,
    `create index aggregations_by_branch on aggregations (branch_id)`,
    `create index aggregations_kept on aggregations (branch_id) where removed_at is null`,
    `create index aggregations_with_state on aggregations (branch_id) where state_id is not null`,
  ],
];

/** The schema that this program writes. */
export const SCHEMA_VERSION = MIGRATIONS.length;

/**
 * Brings the tables to the present version.
 *
 * @param target for tests: an older version, which a database of an older program has
 * @throws CambiumError `state-newer` when a newer program has been at work here
 */
export async function migrate(db: Kysely<Schema>, target = SCHEMA_VERSION): Promise<void> {
  await sql`create table if not exists meta (key text primary key, value text not null)`.execute(db);
  const row = await db.selectFrom('meta').select('value').where('key', '=', 'schema').executeTakeFirst();
  const version = Number(row?.value ?? 0);
  if (version > SCHEMA_VERSION) {
    throw new CambiumError(
      'state-newer',
      `the data directory has schema ${version}, this program knows up to ${SCHEMA_VERSION}: use a newer Cambium`,
    );
  }
  for (const [i, statements] of MIGRATIONS.slice(0, target).entries()) {
    if (i < version) continue;
    await db.transaction().execute(async (tx) => {
      for (const statement of statements) await sql.raw(statement).execute(tx);
      await setMeta(tx, 'schema', String(i + 1));
    });
  }
}

/** Reads a value of the server's own. */
export async function getMeta(db: Kysely<Schema>, key: string): Promise<string | undefined> {
  const row = await db.selectFrom('meta').select('value').where('key', '=', key).executeTakeFirst();
  return row?.value;
}

/** Writes a value of the server's own. */
export async function setMeta(db: Kysely<Schema>, key: string, value: string): Promise<void> {
  await db
    .insertInto('meta')
    .values({ key, value })
    .onConflict((conflict) => conflict.column('key').doUpdateSet({ value }))
    .execute();
}
