/**
 * The OpenAPI document of Cambium's own API, written from one table. A test holds the table against the routes that are
 * registered.
 */
import { API_PREFIX } from '../../wire/cambium.ts';
import { bodies, id, schemas, string } from './schemas.ts';

interface Operation {
  readonly method: 'get' | 'head' | 'post' | 'put' | 'patch' | 'delete';
  /** Below the prefix of the API. */
  readonly path: string;
  readonly summary: string;
  readonly who: 'anybody' | 'operator' | 'leaf' | 'operator or leaf' | 'bearer of a signed link';
  /** Query parameters, with what they say. */
  readonly query?: Readonly<Record<string, string>>;
  /** Request headers beside the credentials. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Schema of a JSON request body, or `bytes`. */
  readonly body?: object | 'bytes';
  readonly status: number;
  /** What the answer is: a shape by name, bytes, events or nothing. */
  readonly answer: string | 'bytes' | 'events' | 'nothing';
  /** Codes of refusals that belong to this operation. */
  readonly codes?: readonly string[];
}

const link = {
  leaf: 'Whom the link was made for; empty for operators.',
  expires: 'Milliseconds since the epoch.',
  signature: 'HMAC-SHA256 of the three.',
  format: 'Of the file, where the link has one.',
};

/** Every operation below `/cambium/v1`. */
export const operations: readonly Operation[] = [
  {
    method: 'get',
    path: '/openapi.json',
    summary: 'This document.',
    who: 'anybody',
    status: 200,
    answer: 'Description',
  },
  {
    method: 'get',
    path: '/health',
    summary: 'Whether the server is there.',
    who: 'anybody',
    status: 200,
    answer: 'Health',
  },
  { method: 'get', path: '/trees', summary: 'All trees.', who: 'operator', status: 200, answer: 'Trees' },
  {
    method: 'post',
    path: '/trees',
    summary: 'Makes a tree, which belongs to the operator.',
    who: 'operator',
    body: bodies.tree,
    status: 201,
    answer: 'Tree',
    codes: ['name-invalid'],
  },
  {
    method: 'get',
    path: '/branches',
    summary: 'All branches.',
    who: 'operator',
    status: 200,
    answer: 'Branches',
  },
  {
    method: 'post',
    path: '/branches',
    summary: 'Makes a branch; its rounds close at the aggregation target.',
    who: 'operator',
    body: bodies.branch,
    status: 201,
    answer: 'Branch',
    codes: [
      'tree-unknown',
      'name-invalid',
      'target-invalid',
      'policy-minimum-target',
      'policy-deadline-minimum',
      'policy-grace-minimum',
      'policy-sample',
      'policy-sample-target',
      'policy-strategy-inputs',
      'policy-strategy-sums',
      'policy-of-root',
      'strategy-unknown',
      'strategy-parameter',
      'parent-tree',
      'branch-depth',
    ],
  },
  {
    method: 'get',
    path: '/branches/{id}',
    summary: 'One branch.',
    who: 'operator',
    status: 200,
    answer: 'Branch',
  },
  {
    method: 'patch',
    path: '/branches/{id}',
    summary:
      'Changes policy or parent. A policy holds from the next round on, and at once for an open round without updates.',
    who: 'operator',
    body: bodies.branchChange,
    status: 200,
    answer: 'Branch',
    codes: ['policy-minimum-leaves', 'policy-sample-tree', 'parent-cycle', 'run-open'],
  },
  {
    method: 'delete',
    path: '/branches/{id}',
    summary: 'Takes a branch away and revokes its leaves. Its aggregations stay.',
    who: 'operator',
    status: 204,
    answer: 'nothing',
    codes: ['run-open', 'branch-parent'],
  },
  {
    method: 'get',
    path: '/branches/{id}/runs',
    summary: 'Runs, newest first.',
    who: 'operator',
    status: 200,
    answer: 'Runs',
  },
  {
    method: 'post',
    path: '/branches/{id}/run/model',
    summary: 'Starts a run with a weight file as its global model: aggregation 0, of which leaves are told.',
    who: 'operator',
    body: 'bytes',
    status: 200,
    answer: 'Run',
    codes: ['run-open', 'branch-below', 'non-finite', 'upload-too-large'],
  },
  {
    method: 'get',
    path: '/branches/{id}/run',
    summary: 'The run that was started last.',
    who: 'operator or leaf',
    status: 200,
    answer: 'Run',
    codes: ['branch-other'],
  },
  {
    method: 'post',
    path: '/branches/{id}/run',
    summary: 'Starts, pauses or stops the run. A pause keeps the open round, a stop discards it.',
    who: 'operator',
    body: bodies.run,
    status: 200,
    answer: 'Run',
    codes: ['run-stopped'],
  },
  {
    method: 'post',
    path: '/branches/{id}/run/reset-model',
    summary: 'Gives up the open round and what its first update fixed. Not after an aggregation.',
    who: 'operator',
    status: 200,
    answer: 'Run',
    codes: ['run-stopped', 'branch-below', 'model-fixed'],
  },
  {
    method: 'get',
    path: '/branches/{id}/rounds',
    summary: 'Rounds, newest first.',
    who: 'operator',
    query: {
      run: 'Only those of this run.',
      status: 'Only those in this state.',
      limit: 'At most so many, 1000 by default.',
    },
    status: 200,
    answer: 'Rounds',
    codes: ['query-invalid'],
  },
  {
    method: 'get',
    path: '/branches/{id}/watch',
    summary: 'Events `round`, each with a Round: the newest two, then each that changes.',
    who: 'operator',
    status: 200,
    answer: 'events',
  },
  {
    method: 'get',
    path: '/branches/{id}/metrics',
    summary: "Metrics of the branch's aggregations.",
    who: 'operator',
    status: 200,
    answer: 'MetricsList',
  },
  {
    method: 'post',
    path: '/rounds/{id}/retry',
    summary: 'Aggregates a failed round again.',
    who: 'operator',
    status: 200,
    answer: 'Round',
    codes: ['round-not-failed', 'round-minimum', 'strategy-too-few-inputs'],
  },
  {
    method: 'post',
    path: '/rounds/{id}/close',
    summary: 'Closes an open round with what is there.',
    who: 'operator',
    status: 200,
    answer: 'Round',
    codes: ['round-not-open', 'round-minimum', 'strategy-too-few-inputs'],
  },
  {
    method: 'post',
    path: '/rounds/{id}/exclude',
    summary: 'Leaves a leaf out of an open or failed round.',
    who: 'operator',
    body: bodies.exclusion,
    status: 200,
    answer: 'Round',
    codes: ['round-finished', 'leaf-unknown', 'branch-other'],
  },
  {
    method: 'post',
    path: '/rounds/{id}/average',
    summary: 'The exact mean of one branch of a closed round, as long as its updates are kept.',
    who: 'operator',
    body: bodies.average,
    status: 200,
    answer: 'Aggregation',
    codes: ['round-open', 'round-empty', 'updates-removed', 'branch-other'],
  },
  {
    method: 'get',
    path: '/rounds/{id}/sum',
    summary:
      'The exact partial sum of a round for the server above, with a link that works for five minutes.',
    who: 'operator',
    status: 200,
    answer: 'SumLink',
    codes: ['sum-unknown', 'updates-removed'],
  },
  {
    method: 'post',
    path: '/rounds/{id}/aggregation',
    summary:
      'Ends a summed round with the aggregation of the server above and tells the leaves. The same bytes again change nothing.',
    who: 'operator',
    query: { leaves: 'How many went into it; those of the round unless given.' },
    headers: { 'Repr-Digest': 'SHA-256 of the bytes (RFC 9530); others are refused.' },
    body: 'bytes',
    status: 200,
    answer: 'Round',
    codes: [
      'round-not-summed',
      'round-order',
      'aggregation-exists',
      'weighting-missing',
      'layout-count',
      'layout-name',
      'layout-dtype',
      'layout-shape',
      'non-finite',
      'upload-too-large',
      'digest-mismatch',
    ],
  },
  {
    method: 'post',
    path: '/rounds/{id}/discard',
    summary: 'Gives up an open, summed or failed round and its updates; after an open one the next is open.',
    who: 'operator',
    status: 200,
    answer: 'Round',
    codes: ['round-finished'],
  },
  {
    method: 'get',
    path: '/leaves',
    summary: 'Leaves.',
    who: 'operator',
    query: { branch: 'Only those of this branch.' },
    status: 200,
    answer: 'Leaves',
    codes: ['query-invalid'],
  },
  {
    method: 'post',
    path: '/leaves',
    summary: 'Makes a leaf. Its token is told here and never again.',
    who: 'operator',
    body: bodies.leaf,
    status: 201,
    answer: 'Credentials',
    codes: ['branch-unknown', 'name-invalid', 'leaf-name-taken'],
  },
  {
    method: 'delete',
    path: '/leaves/{id}',
    summary: "Takes a leaf's token back.",
    who: 'operator',
    status: 204,
    answer: 'nothing',
  },
  {
    method: 'get',
    path: '/leaves/me',
    summary: 'Whose the credentials are.',
    who: 'leaf',
    status: 200,
    answer: 'Authenticated',
  },
  {
    method: 'get',
    path: '/leaves/{id}/updates',
    summary: "The leaf's own updates, newest first, and what has become of their rounds.",
    who: 'leaf',
    query: { sha256: 'Only those of these bytes.' },
    status: 200,
    answer: 'OwnUpdates',
    codes: ['leaf-other', 'query-invalid'],
  },
  {
    method: 'put',
    path: '/leaves/{id}/updates',
    summary:
      'Uploads a weight file, or where it is taken an exact partial sum, as the update of the open round.',
    who: 'leaf',
    query: { round: 'Refuse unless this round is open.' },
    headers: {
      'Repr-Digest': 'SHA-256 of the bytes (RFC 9530); others are refused.',
      'Idempotency-Key': 'The same key is the same upload.',
      'Upload-Complete': '?0 begins an upload in blocks: without a body, answered with Location.',
      'Upload-Length': 'Bytes of the whole file, to begin an upload in blocks.',
    },
    body: 'bytes',
    status: 201,
    answer: 'Upload',
    codes: [
      'leaf-other',
      'run-paused',
      'run-stopped',
      'round-closed',
      'update-exists',
      'idempotency-key-reused',
      'upload-incomplete',
      'upload-idle',
      'upload-too-large',
      'digest-mismatch',
      'disk-full',
      'weighting-missing',
      'weighting-nan',
      'weighting-infinite',
      'weighting-zero',
      'weighting-negative',
      'weighting-range',
      'weighting-total',
      'layout-empty',
      'layout-count',
      'layout-name',
      'layout-dtype',
      'layout-shape',
      'non-finite',
      'aggregate-dtype-unsupported',
      'weights-partial-sum',
      'partial-leaf-duplicate',
      'partial-leaf-count',
    ],
  },
  {
    method: 'head',
    path: '/uploads/{id}',
    summary: 'Where an upload in blocks stands: Upload-Offset.',
    who: 'leaf',
    status: 204,
    answer: 'nothing',
    codes: ['upload-unknown'],
  },
  {
    method: 'patch',
    path: '/uploads/{id}',
    summary: 'Adds a block to an upload: 204 with Upload-Offset; after the last one 201 with the receipt.',
    who: 'leaf',
    headers: {
      'Upload-Offset': 'Where the block belongs.',
      'Upload-Complete': '?1 with the last block, else ?0.',
      'Content-Digest': 'sha-256 of the block (RFC 9530): it then counts whole or not at all.',
    },
    body: 'bytes',
    status: 201,
    answer: 'Upload',
    codes: [
      'upload-unknown',
      'upload-offset',
      'upload-length',
      'upload-header',
      'block-too-large',
      'digest-mismatch',
    ],
  },
  {
    method: 'delete',
    path: '/uploads/{id}',
    summary: 'Gives an upload in blocks up.',
    who: 'leaf',
    status: 204,
    answer: 'nothing',
    codes: ['upload-unknown'],
  },
  {
    method: 'get',
    path: '/leaves/{id}/notices',
    summary:
      'Events `aggregation_status` and `run_status`, numbered per branch. Without Last-Event-ID the present state first.',
    who: 'leaf',
    headers: { 'Last-Event-ID': 'Everything after this notice.' },
    status: 200,
    answer: 'events',
    codes: ['leaf-other', 'last-event-id-invalid'],
  },
  {
    method: 'get',
    path: '/aggregations/{id}',
    summary: 'An aggregation, with a link to its file that works for five minutes.',
    who: 'operator or leaf',
    query: { format: 'Of the file: npy (as it is stored), npz or safetensors.' },
    status: 200,
    answer: 'Aggregation',
    codes: ['branch-other', 'query-invalid', 'format-unavailable'],
  },
  {
    method: 'post',
    path: '/aggregations/{id}/metrics',
    summary: 'Stores what a leaf measured on an aggregation.',
    who: 'leaf',
    body: bodies.metrics,
    status: 201,
    answer: 'Metrics',
    codes: ['metrics-mode', 'branch-other'],
  },
  {
    method: 'get',
    path: '/files/{id}',
    summary: 'The file of an aggregation; ranges, ETag, Repr-Digest.',
    who: 'bearer of a signed link',
    query: link,
    headers: {
      Range: 'One range of bytes.',
      'If-Range': 'An ETag.',
      Accept:
        'application/x-npy, application/x-npz or application/x-safetensors, for a link without a format.',
    },
    status: 200,
    answer: 'bytes',
    codes: ['link-invalid', 'link-expired', 'range-unsatisfiable', 'format-unavailable'],
  },
  {
    method: 'head',
    path: '/files/{id}',
    summary: 'The headers of the same.',
    who: 'bearer of a signed link',
    query: link,
    status: 200,
    answer: 'nothing',
    codes: ['link-invalid', 'link-expired'],
  },
];

/** The OpenAPI document. */
export function describeApi(version: string): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const operation of operations) {
    const path = API_PREFIX + operation.path;
    paths[path] = { ...paths[path], [operation.method]: describe(operation) };
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Cambium', version, license: { name: 'Apache-2.0', identifier: 'Apache-2.0' } },
    paths,
    components: {
      schemas,
      securitySchemes: {
        operator: { type: 'http', scheme: 'bearer', description: 'The token of an operator.' },
        leaf: { type: 'http', scheme: 'bearer', description: '<leaf id>:<session token>' },
      },
    },
  };
}

function describe(operation: Operation): object {
  const { path, summary, who, query = {}, headers = {}, body, status, answer, codes = [] } = operation;
  const parameter = (place: string) => (entry: [string, string]) => ({
    name: entry[0],
    in: place,
    description: entry[1],
    schema: string,
  });
  const schemes = who.split(' or ').filter((name) => name === 'operator' || name === 'leaf');
  return {
    summary,
    description: `For: ${who}.${codes.length > 0 ? ` Codes of refusals: ${codes.join(', ')}.` : ''}`,
    security: schemes.map((name) => ({ [name]: [] })),
    parameters: [
      ...(path.includes('{id}') ? [{ name: 'id', in: 'path', required: true, schema: id }] : []),
      ...Object.entries(query).map(parameter('query')),
      ...Object.entries(headers).map(parameter('header')),
    ],
    ...(body === undefined ? {} : { requestBody: { required: true, content: content(body) } }),
    responses: {
      [status]: {
        description: answer,
        ...(answer === 'nothing' ? {} : { content: answerContent(answer) }),
      },
      default: {
        description: 'A refusal.',
        content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } },
      },
    },
  };
}

function content(body: object | 'bytes'): object {
  return body === 'bytes' ? { 'application/octet-stream': {} } : { 'application/json': { schema: body } };
}

function answerContent(answer: string): object {
  if (answer === 'bytes') return { 'application/octet-stream': {} };
  if (answer === 'events') return { 'text/event-stream': {} };
  return { 'application/json': { schema: { $ref: `#/components/schemas/${answer}` } } };
}
