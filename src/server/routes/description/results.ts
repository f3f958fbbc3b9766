/** What goes out: notices, aggregations, their files, metrics. */
import { bodies } from '../schemas.ts';
import type { Operation } from './operation.ts';

const link = {
  leaf: 'Whom the link was made for; empty for operators.',
  expires: 'Milliseconds since the epoch.',
  signature: 'HMAC-SHA256 of the three.',
  format: 'Of the file, where the link has one.',
};

export const results: readonly Operation[] = [
  {
    method: 'get',
    path: '/branches/{id}/metrics',
    summary: "Metrics of the branch's aggregations.",
    who: 'operator',
    status: 200,
    answer: 'MetricsList',
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
