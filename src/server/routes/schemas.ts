/** JSON schemas of Cambium's own API: the shapes of wire/cambium.ts as the routes check and the OpenAPI document tells them. */
import { ROUND_STATUSES } from '../../wire/cambium.ts';

/** Schemas of the values that recur. */
export const string = { type: 'string' } as const;
export const id = { type: 'string', format: 'uuid' } as const;
const integer = { type: 'integer' } as const;
const nullable = (schema: { type: string }) => ({ ...schema, type: [schema.type, 'null'] });
const either = (...schemas: object[]) => ({ anyOf: schemas });
const list = (name: string) => ({
  type: 'object',
  required: ['items'],
  properties: { items: { type: 'array', items: { $ref: `#/components/schemas/${name}` } } },
});
const object = (properties: Readonly<Record<string, object>>, optional: readonly string[] = []) => ({
  type: 'object',
  required: Object.keys(properties).filter((name) => !optional.includes(name)),
  properties,
});
const oneOf = (...values: readonly string[]) => ({ enum: values });

const runStatus = oneOf('start', 'pause', 'stop');
const roundStatus = oneOf(...ROUND_STATUSES);
const mode = oneOf('train', 'test', 'non-federated');

const strategy = object({
  name: string,
  parameters: { type: 'object', additionalProperties: { type: 'number' } },
});
const none = { type: 'null' };
const leftOut = either(oneOf('excluded', 'branch-incomplete'), none);
const sum = {
  file_id: id,
  leaves: integer,
  total_weighting: { type: 'number' },
  byte_length: integer,
  sha256: string,
};
const policy = {
  aggregation_target: integer,
  minimum: nullable(integer),
  deadline_ms: nullable(integer),
  grace_ms: nullable(integer),
  late: oneOf('next', 'refuse'),
  replace: { type: 'boolean' },
  sample: either(object({ leaves: integer, seed: string }, ['seed']), none),
  strategy,
  non_finite: oneOf('reject', 'propagate'),
  keep_aggregations: nullable(integer),
  partial_sums: { type: 'boolean' },
  upstream: { type: 'boolean' },
  upstream_timeout_ms: nullable(integer),
};

/** A body of these members only: a policy that is misspelt must not look as if it held. */
const only = (properties: Readonly<Record<string, object>>, required: readonly string[]) => ({
  type: 'object',
  required,
  properties,
  additionalProperties: false,
});

/** What requests may carry; the routes check with the same schemas. */
export const bodies = {
  tree: object({ name: string }),
  branch: only({ name: string, tree_id: string, parent_id: nullable(string), ...policy }, [
    'name',
    'tree_id',
    'aggregation_target',
  ]),
  branchChange: only({ parent_id: nullable(string), ...policy }, []),
  exclusion: object({ leaf_id: string }),
  average: object({ branch_id: string }),
  leaf: object({ name: string, branch_id: string }),
  run: object({ run_status: runStatus }),
  metrics: object({ mode: string, data: {} }),
} as const;

/** Shapes of answers by name. */
export const schemas = {
  Error: object({ error: string, message: string, code: string, details: { type: 'object' } }, ['details']),
  Health: object({ status: string, version: string }),
  Description: { type: 'object' },
  Tree: object({ id, name: string, user_id: id, created_at: integer }),
  Branch: object({
    id,
    name: string,
    tree_id: id,
    parent_id: nullable(id),
    aggregation_target: integer,
    policy: { $ref: '#/components/schemas/Policy' },
    created_at: integer,
  }),
  Policy: object(policy),
  Strategy: strategy,
  Leaf: object({
    id,
    name: string,
    branch_id: id,
    tree_id: id,
    created_at: integer,
    revoked_at: nullable(integer),
  }),
  Credentials: object(
    {
      server: string,
      id,
      name: string,
      session_token: string,
      owner_id: id,
      tree_id: id,
      branch_id: id,
      leaf_id: id,
      leaf_name: string,
      leaf_session_token: string,
      leaf_password: string,
      performance_analyser_username: string,
      performance_analyser_password: string,
      response_host: string,
      broker_url: string,
      port: integer,
      queue_password: string,
    },
    ['broker_url', 'port', 'queue_password'],
  ),
  Authenticated: object({ leaf_id: id, leaf_name: string, branch_id: id, tree_id: id, user_id: id }),
  Run: object({
    branch_id: id,
    run_status: runStatus,
    run_number: integer,
    round: integer,
    updates: integer,
    aggregation_target: integer,
    aggregation_id: nullable(id),
    given_up_round: nullable(integer),
    sample: either({ type: 'array', items: id }, none),
    closes_at: nullable(integer),
  }),
  RunRecord: object({
    run_number: integer,
    run_status: runStatus,
    started_at: integer,
    stopped_at: nullable(integer),
    rounds: integer,
    aggregation_id: nullable(id),
  }),
  Update: object({
    file_id: id,
    leaf_id: id,
    leaf_name: string,
    weighting: { type: 'number' },
    byte_length: integer,
    sha256: string,
    received_at: integer,
    staleness: integer,
    left_out: leftOut,
    sum_leaves: nullable(integer),
    difference: { type: 'boolean' },
    norm: nullable({ type: 'number' }),
    norm_base: nullable(id),
    receive_ms: nullable(integer),
    examine_ms: nullable(integer),
  }),
  OwnUpdate: object({
    file_id: id,
    run_number: integer,
    round: integer,
    round_status: roundStatus,
    weighting: { type: 'number' },
    sha256: string,
    received_at: integer,
    left_out: leftOut,
    aggregation_id: nullable(id),
    idempotency_key: nullable(string),
  }),
  Sum: object(sum),
  SumLink: object({ ...sum, download_url: string }),
  Round: object({
    id,
    branch_id: id,
    run_number: integer,
    round: integer,
    status: roundStatus,
    updates: { type: 'array', items: { $ref: '#/components/schemas/Update' } },
    aggregation_id: nullable(id),
    aggregation_removed_at: nullable(integer),
    total_weighting: nullable({ type: 'number' }),
    aggregation_seconds: nullable({ type: 'number' }),
    opened_at: integer,
    closed_at: nullable(integer),
    done_at: nullable(integer),
    failure: { oneOf: [{ $ref: '#/components/schemas/Error' }, { type: 'null' }] },
    policy: { $ref: '#/components/schemas/Policy' },
    strategy: either({ $ref: '#/components/schemas/Strategy' }, none),
    missing: { type: 'array', items: object({ leaf_id: id, leaf_name: string }) },
    excluded: { type: 'array', items: id },
    closes_at: nullable(integer),
    started_at: nullable(integer),
    bytes_read: nullable(integer),
    sum: either({ $ref: '#/components/schemas/Sum' }, none),
    write_seconds: nullable({ type: 'number' }),
  }),
  Upload: object({
    file_id: id,
    run_number: integer,
    round: integer,
    weighting: { type: 'number' },
    sha256: string,
    duplicate: { type: 'boolean' },
  }),
  Aggregation: object({
    aggregation_id: id,
    branch_id: id,
    run_number: integer,
    round: integer,
    leaves: integer,
    total_weighting: { type: 'number' },
    byte_length: integer,
    sha256: string,
    created_at: integer,
    download_url: string,
  }),
  Metrics: object({ aggregation_id: id, leaf_id: id, mode, data: {}, received_at: integer }),
  Trees: list('Tree'),
  Branches: list('Branch'),
  Leaves: list('Leaf'),
  Runs: list('RunRecord'),
  Rounds: list('Round'),
  OwnUpdates: list('OwnUpdate'),
  MetricsList: list('Metrics'),
} as const satisfies Readonly<Record<string, object>>;
