/**
 * Cambium's own API under `/cambium/v1`: paths and JSON shapes, as the server writes and the client reads them.
 *
 * Members are snake_case. Ids are lower-case UUIDv4. Times are integers, milliseconds since the epoch. Members may be
 * added; readers ignore what they do not know. Operators send `Authorization: Bearer <operator token>`, leaves
 * `Authorization: Bearer <leaf id>:<session token>`.
 */

export const API_PREFIX = '/cambium/v1';

/**
 * Largest block of an upload in blocks (`Upload-Limit: max-append-size`): what a broken connection costs at most, and what
 * the server keeps in memory for each upload until it knows the block to be right.
 */
export const MAX_BLOCK_BYTES = 1 << 20;

/**
 * A row of blocks in one request, each in a frame: its length (4 bytes, big-endian), the SHA-256 over all bytes of the
 * upload up to its end (32 bytes), its bytes. The digest vouches for the block, and the last one for the whole.
 */
export const FRAMES_TYPE = 'application/vnd.cambium.frames';

/** Length and digest in front of each block. */
export const FRAME_HEAD_BYTES = 36;

export type RunStatus = 'start' | 'pause' | 'stop';
/** `summed`: its exact partial sum is there, and its aggregation is awaited from the server above. */
export const ROUND_STATUSES = ['open', 'aggregating', 'summed', 'done', 'failed', 'discarded'] as const;
export type RoundStatus = (typeof ROUND_STATUSES)[number];
export type MetricsMode = 'train' | 'test' | 'non-federated';

/** A rule by name, with its parameters (README, "Strategies"). */
export interface StrategyBody {
  readonly name: string;
  readonly parameters: Readonly<Record<string, number>>;
}

/**
 * How a branch holds its rounds. What has no deadline, minimum or sample says null. A branch below another one has a
 * target and a minimum of its own; the rest is its root's.
 */
export interface PolicyBody {
  /** Contributions that close a round: updates of the branch's own leaves, and branches below that are complete. */
  readonly aggregation_target: number;
  /** Fewest contributions with which a round may close before its target is met. */
  readonly minimum: number | null;
  /** Milliseconds from the opening of a round until it closes with what is there. */
  readonly deadline_ms: number | null;
  /** Milliseconds from the minimum until it closes with what is there. */
  readonly grace_ms: number | null;
  /** What becomes of an update that is based on an older model than the newest: counted, or refused (`update-late`). */
  readonly late: 'next' | 'refuse';
  /** Whether a leaf may replace its update until the round closes. */
  readonly replace: boolean;
  /** So many leaves are asked in each round, drawn by the seed (that of the run unless given); all of them without. */
  readonly sample: { readonly leaves: number; readonly seed?: string } | null;
  readonly strategy: StrategyBody;
  /** What NaN and infinity in updates do: refused, or carried into the result. */
  readonly non_finite: 'reject' | 'propagate';
  /** Aggregations of the branch that are kept, the newest; all of them without. */
  readonly keep_aggregations: number | null;
  /** Whether leaves may send exact partial sums (`cambium merge`), as servers below do; the rule is the mean then. */
  readonly partial_sums: boolean;
  /**
   * Whether rounds end with an exact partial sum for a server above, whose aggregation is handed down to the leaves; the rule
   * is the mean then.
   */
  readonly upstream: boolean;
  /** Milliseconds for which a round waits for the aggregation from above, from its sum on; null waits for ever. */
  readonly upstream_timeout_ms: number | null;
}

/** Body of `PATCH /branches/{id}`: what is not named stays as it is. */
export type BranchChange = Partial<PolicyBody> & { readonly parent_id?: string | null };

/** What an aggregation can be had as: `[weighting, [arrays]]` in a `.npy`, an `.npz`, or safetensors. */
export type FileFormat = 'npy' | 'npz' | 'safetensors';

/** Names of the formats in `Accept` and `Content-Type`. Nobody has registered any; whoever asks for none gets `npy`. */
export const MEDIA_TYPES = {
  npy: 'application/x-npy',
  npz: 'application/x-npz',
  safetensors: 'application/x-safetensors',
} as const satisfies Readonly<Record<FileFormat, string>>;

/** Body of every answer with a status of 400 and above; the BranchKey generations read `error` or `message`. */
export interface ErrorBody {
  readonly error: string;
  readonly message: string;
  /** Stable, kebab-case. */
  readonly code: string;
  /** What is known of the place: file, leaf, tensor, offset, index, the server's limit, and so on. */
  readonly details?: Readonly<Record<string, unknown>>;
}

export interface TreeBody {
  readonly id: string;
  readonly name: string;
  /** The owner. */
  readonly user_id: string;
  readonly created_at: number;
}

export interface BranchBody {
  readonly id: string;
  readonly name: string;
  readonly tree_id: string;
  readonly parent_id: string | null;
  /** Number of updates that closes a round. */
  readonly aggregation_target: number;
  readonly policy: PolicyBody;
  readonly created_at: number;
}

export interface LeafBody {
  readonly id: string;
  readonly name: string;
  readonly branch_id: string;
  readonly tree_id: string;
  readonly created_at: number;
  readonly revoked_at: number | null;
}

/** What `POST /leaves` answers once, and what a credentials file holds: every client's spelling of the same facts. */
export interface CredentialsBody {
  /** Base URL of the server. */
  readonly server: string;
  readonly id: string;
  readonly name: string;
  readonly session_token: string;
  readonly owner_id: string;
  readonly tree_id: string;
  readonly branch_id: string;
  readonly leaf_id: string;
  readonly leaf_name: string;
  readonly leaf_session_token: string;
  /** What clients of BranchKey up to 2.2 log in with. */
  readonly leaf_password: string;
  /** What clients of BranchKey from 2.4 to 2.5 send metrics with, and 2.5.1 and 2.5.2 ask for the run. */
  readonly performance_analyser_username: string;
  readonly performance_analyser_password: string;
  /** Host of the broker, for clients that speak AMQP. */
  readonly response_host: string;
  /** Address of the broker without credentials, `amqp://host:port` or `amqps:…`; missing without a broker. */
  readonly broker_url?: string;
  /** Port of the broker; clients from 2.3 on dial 5672 or 5671 whatever stands here. */
  readonly port?: number;
  /** The branch's password at the broker, for clients of 2.0.x. */
  readonly queue_password?: string;
}

/**
 * `operator.json` in the data directory, written when the server starts: what the commands need to talk to it. The token
 * stands nowhere else.
 */
export interface OperatorFile {
  /** Base URL of the server. */
  readonly server: string;
  readonly id: string;
  readonly role: 'operator' | 'viewer';
  readonly token: string;
}

/** What `GET /leaves/me` answers: who the token belongs to. */
export interface AuthenticatedBody {
  readonly leaf_id: string;
  readonly leaf_name: string;
  readonly branch_id: string;
  readonly tree_id: string;
  readonly user_id: string;
}

export interface RunBody {
  readonly branch_id: string;
  /** `stop` with number 0 before the first start. */
  readonly run_status: RunStatus;
  readonly run_number: number;
  /** The open round of the run, from 1; 0 when no run is going. */
  readonly round: number;
  /** Updates accepted in the open round, and how many close it. */
  readonly updates: number;
  readonly aggregation_target: number;
  /** The newest aggregation of the run (its initial model is the first), null before the first. */
  readonly aggregation_id: string | null;
  /** The newest round of the run that ended with no aggregation to come: discarded, or failed with too few; null without. */
  readonly given_up_round: number | null;
  /** Ids of the leaves that the open round has drawn; null when it wants all of them. */
  readonly sample: readonly string[] | null;
  /** When the open round closes with what is there by then; null when nothing but its target closes it. */
  readonly closes_at: number | null;
}

/** A run in the history of its branch. */
export interface RunRecord {
  readonly run_number: number;
  readonly run_status: RunStatus;
  readonly started_at: number;
  readonly stopped_at: number | null;
  /** Rounds that are done. */
  readonly rounds: number;
  /** The newest aggregation of the run, null before the first. */
  readonly aggregation_id: string | null;
}

/** Body of `POST /branches/{id}/run`. */
export interface RunChange {
  readonly run_status: RunStatus;
}

export interface RoundBody {
  readonly id: string;
  readonly branch_id: string;
  readonly run_number: number;
  readonly round: number;
  readonly status: RoundStatus;
  readonly updates: readonly UpdateBody[];
  /** Fixed when the round closes. */
  readonly aggregation_id: string | null;
  /** Since when its file is not kept any more (`keep_aggregations`); null while it is, and before the round is done. */
  readonly aggregation_removed_at: number | null;
  /** Nearest binary64 of the exact sum of the weightings; null before the round is done. */
  readonly total_weighting: number | null;
  /** Duration of the aggregation in seconds; null before the round is done. */
  readonly aggregation_seconds: number | null;
  readonly opened_at: number;
  readonly closed_at: number | null;
  readonly done_at: number | null;
  /** Why the round failed. */
  readonly failure: ErrorBody | null;
  /** As it was when the round opened. */
  readonly policy: PolicyBody;
  /** The rule that was used, null before; the mean where the policy's rule needs a global model and there is none yet. */
  readonly strategy: StrategyBody | null;
  /** Leaves that are asked, and have neither come nor been excluded. */
  readonly missing: readonly { readonly leaf_id: string; readonly leaf_name: string }[];
  /** Ids of leaves that an operator has excluded. */
  readonly excluded: readonly string[];
  /** When the clock ends what it waits for: of an open round its updates, of a summed one the server above. */
  readonly closes_at: number | null;
  /** When its aggregation began; it may have waited for the one before. */
  readonly started_at: number | null;
  /** Of the aggregation, once done. */
  readonly bytes_read: number | null;
  /** Seconds that the aggregation took to get to the disk, after `aggregation_seconds`. */
  readonly write_seconds: number | null;
  /** What goes up to the server above; null before, when it is not kept any more, and where none does. */
  readonly sum: SumBody | null;
}

/** The exact partial sum of a round, for the server above. */
export interface SumBody {
  readonly file_id: string;
  /** Leaves that are in it, those of sums from below too. */
  readonly leaves: number;
  /** Nearest binary64 of the exact sum of their weightings. */
  readonly total_weighting: number;
  readonly byte_length: number;
  /** Lower-case hexadecimal. */
  readonly sha256: string;
}

/** What `GET /rounds/{id}/sum` answers. */
export interface SumLinkBody extends SumBody {
  /** Absolute, signed, works without credentials for a few minutes. */
  readonly download_url: string;
}

export interface UpdateBody {
  readonly file_id: string;
  readonly leaf_id: string;
  readonly leaf_name: string;
  readonly weighting: number;
  readonly byte_length: number;
  /** Lower-case hexadecimal. */
  readonly sha256: string;
  readonly received_at: number;
  /** Rounds that had ended since the model that it is based on. */
  readonly staleness: number;
  /** Why it does not count: the leaf was excluded, or its branch had too few when the round closed. */
  readonly left_out: 'excluded' | 'branch-incomplete' | null;
  /** Of an exact partial sum: leaves that are in it; null of weights. */
  readonly sum_leaves: number | null;
  /** Whether it is a difference to the global model, not a model. */
  readonly difference: boolean;
  /**
   * L2 norm of the difference to the global model `norm_base`, or of the weights where that is null. Null of exact partial
   * sums, and where it is not finite.
   */
  readonly norm: number | null;
  /** The newest aggregation of the run when the update came. */
  readonly norm_base: string | null;
  /** Milliseconds from the head of the upload to its last byte; null of an upload in blocks. */
  readonly receive_ms: number | null;
  /** Milliseconds of the look at its elements, with the wait for a free thread. */
  readonly examine_ms: number | null;
}

/** An update in the eyes of its leaf, and what has become of its round. */
export interface OwnUpdateBody {
  readonly file_id: string;
  readonly run_number: number;
  readonly round: number;
  readonly round_status: RoundStatus;
  readonly weighting: number;
  /** Lower-case hexadecimal. */
  readonly sha256: string;
  readonly received_at: number;
  readonly left_out: 'excluded' | 'branch-incomplete' | null;
  /** Of the round, once it is done. */
  readonly aggregation_id: string | null;
  /** Under which it came. */
  readonly idempotency_key: string | null;
}

/** What an upload answers (201). */
export interface UploadBody {
  readonly file_id: string;
  readonly run_number: number;
  readonly round: number;
  readonly weighting: number;
  readonly sha256: string;
  /** True when the very same bytes of this leaf were already in the round. */
  readonly duplicate: boolean;
}

/** What `GET /aggregations/{id}` answers. */
export interface AggregationBody {
  readonly aggregation_id: string;
  readonly branch_id: string;
  readonly run_number: number;
  readonly round: number;
  readonly leaves: number;
  readonly total_weighting: number;
  /** Of the file that the link gives. */
  readonly byte_length: number;
  readonly sha256: string;
  readonly created_at: number;
  /** Absolute, signed, works without credentials for a few minutes. */
  readonly download_url: string;
}

/** Body of `POST /aggregations/{id}/metrics`. */
export interface MetricsChange {
  readonly mode: MetricsMode;
  /** Any JSON value. */
  readonly data: unknown;
}

export interface MetricsBody {
  readonly aggregation_id: string;
  readonly leaf_id: string;
  readonly mode: MetricsMode;
  readonly data: unknown;
  readonly received_at: number;
}

/** Data of a notice with `event: aggregation_status`; the hybrid that every generation of the BranchKey client reads. */
export interface AggregationNotice {
  readonly message_type: 'aggregation_status';
  readonly body: { readonly aggregation_id: string };
  readonly aggregation_id: string;
  readonly run: number;
  readonly round: number;
}

/** Data of a notice with `event: run_status`. */
export interface RunNotice {
  readonly message_type: 'run_status';
  readonly body: { readonly run_status: RunStatus };
  readonly run: number;
  readonly round: number;
  /** Where it is this that leaves are told: the round that no aggregation will come of. */
  readonly given_up_round?: number;
}

export type Notice = AggregationNotice | RunNotice;

/** Paths of the API; every id is escaped. Lists answer `{ "items": […] }`. */
export const paths = {
  /** GET: the API description. */
  openapi: () => `${API_PREFIX}/openapi.json`,
  /** GET, without credentials: `{ "status": "ok", "version" }`. */
  health: () => `${API_PREFIX}/health`,
  /** GET list, POST `{ name }`; operators. */
  trees: () => `${API_PREFIX}/trees`,
  /** GET list, POST `{ name, tree_id, aggregation_target, parent_id? }`; operators. */
  branches: () => `${API_PREFIX}/branches`,
  /** GET, PATCH `BranchChange`, DELETE; operators. */
  branch: (id: string) => `${API_PREFIX}/branches/${seg(id)}`,
  /** GET (operators and the branch's leaves), POST `RunChange` (operators). */
  run: (branchId: string) => `${API_PREFIX}/branches/${seg(branchId)}/run`,
  /** POST the bytes of a weight file: starts a run with this global model, its aggregation 0; operators. */
  runModel: (branchId: string) => `${API_PREFIX}/branches/${seg(branchId)}/run/model`,
  /** GET list of RunRecord, newest first; operators. */
  runs: (branchId: string) => `${API_PREFIX}/branches/${seg(branchId)}/runs`,
  /**
   * POST without a body: gives up the open round and the contract that its first update fixed, and opens the next round;
   * refused once the run has an aggregation; operators.
   */
  resetModel: (branchId: string) => `${API_PREFIX}/branches/${seg(branchId)}/run/reset-model`,
  /** GET list of rounds, newest first, `?run=N`, `?status=`; operators. */
  rounds: (branchId: string) => `${API_PREFIX}/branches/${seg(branchId)}/rounds`,
  /** GET, server-sent events: `round` with a RoundBody at every change; operators. */
  watch: (branchId: string) => `${API_PREFIX}/branches/${seg(branchId)}/watch`,
  /** GET list of metrics; operators. */
  branchMetrics: (branchId: string) => `${API_PREFIX}/branches/${seg(branchId)}/metrics`,
  /** POST: run the aggregation of a failed round again; operators. */
  roundRetry: (id: string) => `${API_PREFIX}/rounds/${seg(id)}/retry`,
  /** POST: close an open round with what is there; operators. */
  roundClose: (id: string) => `${API_PREFIX}/rounds/${seg(id)}/close`,
  /** POST `{ leaf_id }`: leave a leaf out of an open or failed round; operators. */
  roundExclude: (id: string) => `${API_PREFIX}/rounds/${seg(id)}/exclude`,
  /** POST `{ branch_id }`, answers AggregationBody: the mean of one branch of a round, whatever its rule; operators. */
  roundAverage: (id: string) => `${API_PREFIX}/rounds/${seg(id)}/average`,
  /** GET SumLinkBody: the exact partial sum of a round that goes up to another server; operators. */
  roundSum: (id: string) => `${API_PREFIX}/rounds/${seg(id)}/sum`,
  /**
   * POST the bytes of a weight file, `?leaves=N` (how many went into it): the aggregation from the server above, which ends a
   * round that is `summed`; the same bytes again change nothing; operators.
   */
  roundAggregation: (id: string) => `${API_PREFIX}/rounds/${seg(id)}/aggregation`,
  /** POST: give up a round that is open, summed or failed; operators. */
  roundDiscard: (id: string) => `${API_PREFIX}/rounds/${seg(id)}/discard`,
  /** GET list `?branch=ID`, POST `{ name, branch_id }`, answers CredentialsBody; operators. */
  leaves: () => `${API_PREFIX}/leaves`,
  /** DELETE: revoke the leaf's token; operators. */
  leaf: (id: string) => `${API_PREFIX}/leaves/${seg(id)}`,
  /** GET AuthenticatedBody; leaves. */
  me: () => `${API_PREFIX}/leaves/me`,
  /**
   * PUT the bytes of a weight file, `?round=N` optional (refused when another round is open), `?local_steps=N` for the rule
   * `fednova`, headers `Repr-Digest` and
   * `Idempotency-Key` optional; answers 201 UploadBody; the leaf itself. With `Upload-Complete: ?0`, `Upload-Length` and
   * without a body: begins an upload in blocks; answers 201, `Location`, `Upload-Offset`, or the receipt under
   * `Upload-Complete: ?1`. GET list of OwnUpdateBody, newest first, `?sha256=` only those of these bytes.
   */
  updates: (leafId: string) => `${API_PREFIX}/leaves/${seg(leafId)}/updates`,
  /** PATCH a block at `Upload-Offset`, HEAD where it stands, DELETE; the leaf that began it. */
  upload: (id: string) => `${API_PREFIX}/uploads/${seg(id)}`,
  /** GET, server-sent events, `Last-Event-ID` resumes; the leaf itself. */
  notices: (leafId: string) => `${API_PREFIX}/leaves/${seg(leafId)}/notices`,
  /** GET AggregationBody, `?format=` one of FileFormat for the link; operators and leaves of the branch. */
  aggregation: (id: string) => `${API_PREFIX}/aggregations/${seg(id)}`,
  /** POST MetricsChange, answers 201 MetricsBody; leaves of the branch. */
  metrics: (aggregationId: string) => `${API_PREFIX}/aggregations/${seg(aggregationId)}/metrics`,
  /** GET the file by signed query, in the format of the link or of `Accept`; ranges and `Repr-Digest`. */
  file: (id: string) => `${API_PREFIX}/files/${seg(id)}`,
} as const;

function seg(id: string): string {
  return encodeURIComponent(id);
}
