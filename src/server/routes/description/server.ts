/** The server itself. */
import type { Operation } from './operation.ts';

export const server: readonly Operation[] = [
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
];
