/** A round as `run watch` draws it. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { redrawRound, roundTable } from '../../src/cli/round-table.ts';
import type { RoundBody, UpdateBody } from '../../src/wire/cambium.ts';

const test = suite('round-table');

const UPDATE: UpdateBody = {
  file_id: 'f',
  leaf_id: 'a',
  leaf_name: 'anna',
  weighting: 120,
  byte_length: 1_500_000,
  sha256: '00',
  received_at: 10_250,
  staleness: 0,
  left_out: null,
  sum_leaves: null,
  difference: false,
  norm: 12.34567,
  norm_base: null,
  receive_ms: 1234,
  examine_ms: 3,
};

const ROUND = {
  id: 'r',
  branch_id: 'b',
  run_number: 1,
  round: 2,
  status: 'open',
  updates: [
    UPDATE,
    { ...UPDATE, leaf_name: 'bo', staleness: 2, norm: 0.001, norm_base: 'm', receive_ms: null },
    { ...UPDATE, leaf_name: 'cid', left_out: 'excluded', norm: null },
  ],
  aggregation_id: null,
  aggregation_removed_at: null,
  total_weighting: null,
  aggregation_seconds: null,
  opened_at: 10_000,
  closed_at: null,
  done_at: null,
  failure: null,
  policy: { aggregation_target: 4 },
  strategy: null,
  missing: [{ leaf_id: 'd', leaf_name: 'dora' }],
  excluded: ['c'],
  closes_at: 70_000,
  started_at: null,
  bytes_read: null,
  write_seconds: null,
} as unknown as RoundBody; // of the policy only what is read

test('an open round shows who came with what, who is late and who is missing', () => {
  assert.equal(roundTable(ROUND), [
    'run 1 round 2: open, 2 updates, 1 left out, 1 missing',
    '  closes at 1970-01-01T00:01:10.000Z',
    '  leaf                      after   weighting  norm        size     received  examined',
    '  anna  came                250 ms  120        12.35       1.50 MB  1.2 s     3 ms',
    '  bo    late by 2           250 ms  120        Δ 0.001000  1.50 MB  -         3 ms',
    '  cid   left out: excluded  250 ms  120        -           1.50 MB  1.2 s     3 ms',
    '  dora  missing',
    '  1 excluded',
  ]);
});

test('a round that is done shows how long each step took, and whom it did not wait for', () => {
  const done: RoundBody = {
    ...ROUND,
    status: 'done',
    updates: [UPDATE],
    excluded: [],
    total_weighting: 120,
    closed_at: 12_000,
    started_at: 12_100,
    closes_at: null,
    aggregation_seconds: 0.5,
    write_seconds: 0.0421,
    bytes_read: 1e9,
    aggregation_id: 'x',
  };
  const removed = { ...done, aggregation_removed_at: 99_000 };
  assert.is(roundTable(removed)[1], '  aggregation x (not kept)');
  assert.equal(roundTable(done), [
    'run 1 round 2: done, 1 update, weighting 120, 1 missing, 500.0 ms, 2.00 GB/s',
    '  aggregation x',
    '  open for 2.0 s, waited 100 ms, aggregated in 500 ms, on the disk after 42 ms',
    '  leaf             after   weighting  norm   size     received  examined',
    '  anna  came       250 ms  120        12.35  1.50 MB  1.2 s     3 ms',
    '  dora  missed it',
  ]);
});

test('a failed round says whose update it was, and why', () => {
  const failure = {
    error: 'NaN',
    message: 'NaN in tensor 0 of a',
    code: 'non-finite',
    details: { leaf: 'a' },
  };
  const failed: RoundBody = { ...ROUND, status: 'failed', failure, updates: [UPDATE], excluded: [] };
  assert.is(roundTable(failed)[1], '  NaN in tensor 0 of a, the update of anna [non-finite]');
});

test('a round that waits for a server above says until when', () => {
  const waiting: RoundBody = {
    ...ROUND,
    status: 'summed',
    updates: [UPDATE],
    excluded: [],
    closed_at: 12_000,
  };
  assert.equal(roundTable(waiting).slice(0, 2), [
    'run 1 round 2: summed, 1 update, 1 missing, waiting for the server above',
    '  open for 2.0 s, waits until 1970-01-01T00:01:10.000Z',
  ]);
});

test('a terminal without a width is drawn on as one of 80 columns', () => {
  const { stdout } = process;
  const before = Object.getOwnPropertyDescriptor(stdout, 'columns');
  const lines: string[] = [];
  const { write } = stdout;
  Object.defineProperty(stdout, 'columns', { value: 0, configurable: true });
  stdout.write = (text: string | Uint8Array) => lines.push(String(text)) > 0;
  try {
    const drawn = redrawRound(ROUND, undefined);
    assert.is(drawn.lines, lines.length);
  } finally {
    stdout.write = write;
    if (before === undefined) Reflect.deleteProperty(stdout, 'columns');
    else Object.defineProperty(stdout, 'columns', before);
  }
  assert.is(lines[0], 'run 1 round 2: open, 2 updates, 1 left out, 1 missing\n');
  assert.is(Math.max(...lines.map(({ length }) => length)), 81); // with its end
});

test('of many leaves the rest is counted', () => {
  const missing = Array.from({ length: 50 }, (_, i) => ({ leaf_id: `${i}`, leaf_name: `leaf-${i}` }));
  const lines = roundTable({ ...ROUND, updates: [], excluded: [], missing });
  assert.equal([lines.length, lines.at(-1)], [24, '  and 30 more']);
});

test.run();
