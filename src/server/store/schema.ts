/**
 * The tables as the domain sees them. Portable on purpose: ids are text, times are milliseconds since the epoch in
 * bigint columns, structured values are JSON in text columns.
 */
import type { ColumnType } from 'kysely';
import type { RoundStatus, RunStatus } from '../../wire/cambium.ts';

interface MetaTable {
  key: string;
  value: string;
}

interface OperatorsTable {
  id: string;
  name: string;
  role: 'operator' | 'viewer';
  token_hash: string;
  created_at: number;
  revoked_at: number | null;
}

interface TreesTable {
  id: string;
  name: string;
  user_id: string;
  created_at: number;
}

export interface BranchesTable {
  id: string;
  name: string;
  tree_id: string;
  parent_id: string | null;
  aggregation_target: number;
  /** The run that was started last; null before the first. */
  run_id: string | null;
  /** Number of the last notice; the next one takes this + 1 under the row's lock. */
  notice_number: number;
  created_at: number;
  /** JSON of `PolicyBody` but for the target; null where it was never set. */
  policy: string | null;
  deleted_at: number | null;
}

interface LeavesTable {
  id: string;
  name: string;
  branch_id: string;
  token_hash: string;
  /** Of the token that the last login gave; null before the first and after a logout. */
  access_hash: string | null;
  created_at: number;
  revoked_at: number | null;
}

export interface RunsTable {
  id: string;
  branch_id: string;
  number: number;
  status: RunStatus;
  /** JSON of `Contract`; null until the first update of the run is accepted. */
  contract: string | null;
  started_at: number;
  stopped_at: number | null;
  /** When the present pause began. */
  paused_at: number | null;
}

export interface RoundsTable {
  id: string;
  run_id: string;
  branch_id: string;
  number: number;
  status: RoundStatus;
  aggregation_id: string | null;
  total_weighting: number | null;
  aggregation_seconds: number | null;
  /** JSON of `ErrorBody`. */
  failure: string | null;
  opened_at: number;
  closed_at: number | null;
  done_at: number | null;
  /** JSON of `PolicyBody` as it was when the round opened; null in rounds of older programs. */
  policy: string | null;
  /** JSON of the ids that were drawn; null when every leaf is asked. */
  sample: string | null;
  /** While the round is open and its run goes on: when to close it with what is there. */
  closes_at: number | null;
  /** When it had the minimum of its policy, where a grace follows. */
  minimum_at: number | null;
  /** When its aggregation began. */
  started_at: number | null;
  /** JSON of `StrategyBody`: what was used. */
  strategy: string | null;
  bytes_read: number | null;
  /** What it took to bring the aggregation to the disk. */
  write_seconds: number | null;
}

export interface UpdatesTable {
  /** Also the name of the blob. */
  id: string;
  round_id: string;
  leaf_id: string;
  weighting: number;
  byte_length: number;
  /** Of the bytes as they were uploaded. */
  sha256: string;
  idempotency_key: string | null;
  received_at: number;
  /** When the blob was given up; the row stays as the round's history. */
  removed_at: number | null;
  /** Rounds that had ended since the model that it is based on. */
  staleness: number;
  local_steps: number | null;
  /** Why it does not count. */
  left_out: 'excluded' | 'branch-incomplete' | null;
  /** Of an exact partial sum: how many leaves it has, and its exact total in units of 2^-116, in decimal digits. */
  sum_leaves: number | null;
  sum_total: string | null;
  /** 1 for a difference to the global model. */
  is_difference: number;
  /** L2 norm: of the difference to `norm_base`, else of the weights. Null where it is not finite, and of older programs. */
  norm: number | null;
  /** An aggregation, which may not be kept any more. */
  norm_base: string | null;
  /** All of a small one, as long as it is kept: then there is no blob of it (domain/updates.ts). Engines give either kind. */
  bytes: ColumnType<Uint8Array | ArrayBuffer | null, Uint8Array | null, null>;
  receive_ms: number | null;
  examine_ms: number | null;
}

/** The leaves of partial sums that were uploaded: none may count twice in a round. */
interface SumLeavesTable {
  update_id: string;
  round_id: string;
  /** As the sum names it. */
  leaf: string;
}

/** Exact partial sums of rounds, for the server above. */
interface SumsTable {
  /** Also the name of the blob. */
  id: string;
  round_id: string;
  branch_id: string;
  leaves: number;
  total_weighting: number;
  byte_length: number;
  sha256: string;
  created_at: number;
  /** When the blob was given up, with the updates of its round. */
  removed_at: number | null;
}

interface AggregationsTable {
  /** Also the name of the blob. */
  id: string;
  round_id: string;
  branch_id: string;
  leaves: number;
  total_weighting: number;
  byte_length: number;
  sha256: string;
  created_at: number;
  /** Blob of the optimiser's state that belongs to this model, as long as the next round may want it. */
  state_id: string | null;
  /** When the blob was given up by the branch's policy. */
  removed_at: number | null;
}

/** Leaves that an operator has left out of a round. */
interface ExclusionsTable {
  round_id: string;
  leaf_id: string;
  excluded_at: number;
}

/** Updates that their leaf has replaced: a retry of one that comes late must not undo that. */
interface ReplacedUpdatesTable {
  id: string;
  round_id: string;
  leaf_id: string;
  sha256: string;
  idempotency_key: string | null;
  received_at: number;
  replaced_at: number;
}

/** Means of single branches of a round, made when they were asked for. */
interface AveragesTable {
  /** Also the name of the blob. */
  id: string;
  round_id: string;
  branch_id: string;
  leaves: number;
  total_weighting: number;
  byte_length: number;
  sha256: string;
  created_at: number;
}

/** Which leaf has fetched which aggregation: that is what delivered means. */
interface FetchesTable {
  aggregation_id: string;
  leaf_id: string;
  fetched_at: number;
  /** Of the aggregation, beside the leaf: what a leaf has is looked for on every upload. */
  run_id: string | null;
  round: number | null;
}

/** The outbox. */
interface NoticesTable {
  branch_id: string;
  number: number;
  run_id: string;
  event: 'aggregation_status' | 'run_status';
  /** JSON of `Notice`. */
  data: string;
  created_at: number;
}

interface MetricsTable {
  id: string;
  aggregation_id: string;
  leaf_id: string;
  mode: 'train' | 'test' | 'non-federated';
  data: string;
  idempotency_key: string | null;
  received_at: number;
}

/** Leaves that have a place at the broker, until it has been taken away. */
interface BrokerLeavesTable {
  leaf_id: string;
  /** Of the token that logged in last, where that is not the session token. */
  password_hash: string | null;
  /** 1 when its client has asked for the run since it authenticated. */
  hears_run: number;
}

/** How far the outbox of a branch has been handed to the broker. */
interface BrokerCursorsTable {
  branch_id: string;
  arrangement: 'tree' | 'root';
  /** Of the last notice that the broker has confirmed. */
  number: number;
}

export interface Schema {
  meta: MetaTable;
  operators: OperatorsTable;
  trees: TreesTable;
  branches: BranchesTable;
  leaves: LeavesTable;
  runs: RunsTable;
  rounds: RoundsTable;
  updates: UpdatesTable;
  aggregations: AggregationsTable;
  exclusions: ExclusionsTable;
  replaced_updates: ReplacedUpdatesTable;
  averages: AveragesTable;
  sum_leaves: SumLeavesTable;
  sums: SumsTable;
  fetches: FetchesTable;
  notices: NoticesTable;
  metrics: MetricsTable;
  broker_leaves: BrokerLeavesTable;
  broker_cursors: BrokerCursorsTable;
}
