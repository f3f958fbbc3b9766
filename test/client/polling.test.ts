import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Client } from '../../src/client/client.ts';
import { pollingNotices } from '../../src/client/polling.ts';
import { RefusedError, UnavailableError } from '../../src/errors.ts';
import { HastyClock } from '../helpers/clock.ts';
import { failsWith } from '../helpers/errors.ts';
import { LEAF_ID, LeafServer } from '../helpers/leaf-server.ts';

const test = suite('polling');

const START = {
  runStatus: 'start',
  runNumber: 1,
  round: 1,
  aggregationId: null,
  givenUpRound: null,
} as const;

test('tells what changed between two looks, once, and outlives failures', async () => {
  const answers: (typeof START | object | Error)[] = [
    START,
    START,
    new UnavailableError('timeout', 'slow'),
    { ...START, aggregationId: 'a' },
    new RefusedError('internal', 'oops', 500),
    { ...START, runStatus: 'pause', aggregationId: 'b' },
    { ...START, runStatus: 'pause', aggregationId: 'b' },
    { ...START, round: 3, aggregationId: 'b', givenUpRound: 2 },
    { ...START, round: 4, aggregationId: 'b', givenUpRound: 3 },
    { ...START, runNumber: 2, round: 4, givenUpRound: 3 },
    { ...START, runNumber: 2, round: 4, givenUpRound: 3 },
    new RefusedError('token-revoked', 'no', 401),
  ];
  const clock = new HastyClock();
  const ask = async () => {
    const next = answers.shift();
    if (next instanceof Error) throw next;
    return next as typeof START;
  };
  const heard: string[] = [];
  await failsWith('token-revoked', async () => {
    for await (const { id, type, data } of pollingNotices(ask, clock, 500).open()) {
      assert.is(id, null);
      const { body, run, given_up_round } = JSON.parse(data);
      heard.push(`${type} ${body.run_status ?? body.aggregation_id}`);
      if (given_up_round !== undefined) heard.push(`given up ${run}, ${given_up_round}`);
    }
  });
  assert.equal(heard, [
    'run_status start',
    'aggregation_status a',
    'run_status pause',
    'aggregation_status b',
    ...['run_status start', 'given up 1, 2', 'run_status start', 'given up 1, 3'],
    ...['run_status start', 'given up 2, 3'],
  ]);
  assert.equal(new Set(clock.pauses), new Set([500]));
});

test('a line that carries no streams is polled', async () => {
  const server = await LeafServer.start();
  const id = '33333333-3333-4333-8333-000000000001';
  server.overrides[`/leaves/${LEAF_ID}/notices`] = (_, response) => {
    response.writeHead(200, { 'content-type': 'text/html' }).end('<html>');
    return true;
  };
  let looks = 0;
  server.overrides['/branches/'] = (_, response) => {
    const run = { run_status: 'start', run_number: 1, round: 1, updates: 0, aggregation_target: 1 };
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ ...run, aggregation_id: ++looks < 3 ? null : id }));
    return true;
  };
  const client = new Client(server.credentials, {
    clock: new HastyClock(),
    notices: { pollIntervalMs: 1000 },
  });
  await failsWith('protocol-not-events', () => client.queue.get());
  assert.is(await client.queue.get(), id);
  await client.close();
  await server.close();
});

test.run();
