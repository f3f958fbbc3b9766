// Who the leaf is, over time: sessions that end, logging out, clocks that differ; and what the client tells of it.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Client } from '../../src/client/client.ts';
import type { ClientEventName } from '../../src/client/client-events.ts';
import { type ModelUpdate, tensorOf } from '../../src/tensor/tensor.ts';
import { HastyClock } from '../helpers/clock.ts';
import { failsWith } from '../helpers/errors.ts';
import { aggregationId, LEAF_ID, LeafServer } from '../helpers/leaf-server.ts';
import { answer, serve } from '../helpers/loopback.ts';

const UPDATE: ModelUpdate = { weighting: 3, tensors: [tensorOf(Float32Array.of(1, 2))] };

/** Everything that the client tells, by name. */
function listenTo(client: Client) {
  const heard: { readonly name: ClientEventName; readonly event: object }[] = [];
  const names = [
    'run',
    'aggregation',
    'session',
    'retry',
    'reconnect',
    'circuit',
    'upload',
    'download',
  ] as const;
  for (const name of [...names, 'warning', 'close'] as const) {
    client.on(name, (event) => heard.push({ name, event }));
  }
  return {
    names: () => heard.map(({ name }) => name),
    of: (wanted: ClientEventName) => heard.flatMap(({ name, event }) => (name === wanted ? [event] : [])),
  };
}

test('tells of a round: session, run, transfers, aggregation, end', async () => {
  const server = await LeafServer.start();
  const client = new Client(server.credentials, { clock: new HastyClock(() => false) });
  const told = listenTo(client);
  try {
    const listening = server.listening();
    await client.authenticate();
    await listening;
    const { sha256 } = await client.fileUpload(UPDATE);
    assert.match(sha256, /^[0-9a-f]{64}$/);
    server.aggregations.set(aggregationId(1), server.uploads[0]!.bytes);
    server.announce(aggregationId(1));
    await client.fileDownload(await client.queue.get());
    server.setRun('pause');
    server.announce(aggregationId(2));
    await client.queue.get();
    await client.close();
    assert.equal(told.of('session'), [{ leafId: LEAF_ID, generation: 'cambium', isRenewal: false }]);
    assert.equal(told.of('run'), [
      { runStatus: 'start', runNumber: 1 },
      { runStatus: 'pause', runNumber: 1 },
    ]);
    assert.equal(told.of('aggregation'), [
      { aggregationId: aggregationId(1) },
      { aggregationId: aggregationId(2) },
    ]);
    const bytesTotal = server.uploads[0]!.bytes.byteLength;
    assert.equal(told.of('upload').at(-1), { bytesDone: bytesTotal, bytesTotal, name: 'update.npy' });
    const download = { bytesDone: bytesTotal, bytesTotal, aggregationId: aggregationId(1) };
    assert.equal(told.of('download').at(-1), download);
    assert.is(told.names().at(-1), 'close');
  } finally {
    await client.close();
    await server.close();
  }
});

test('tells of tries, lines that broke, and a circuit that opened; and closes it when the server is heard', async () => {
  const server = await LeafServer.start();
  const clock = new HastyClock();
  const client = new Client(server.credentials, {
    clock,
    retry: { attempts: 2 },
    circuit: { failures: 1, pauseMs: 1000 },
  });
  const told = listenTo(client);
  try {
    let listening = server.listening();
    await client.authenticate();
    await listening;
    server.overrides['/branches/'] = (_, response) => {
      response.destroy();
      return true;
    };
    await failsWith('unavailable-server', () => client.getRunDetails());
    assert.is(told.of('retry').length, 1);
    const error = await failsWith('unavailable-circuit', () => client.getRunDetails());
    assert.match(error.message, /not tried again for 1 s/);
    server.overrides = {};
    listening = server.listening();
    server.cut();
    await listening;
    server.announce(aggregationId(1));
    await client.queue.get();
    await client.getRunDetails();
    assert.equal(
      told.of('circuit').map((event) => (event as { state: string }).state),
      ['open', 'closed'],
    );
    assert.is(told.of('reconnect').length, 1);
  } finally {
    await client.close();
    await server.close();
  }
});

test('a clock that is far off is told, once', async () => {
  const server = await LeafServer.start();
  const now = Date.now() + 3_600_000;
  const clock = { now: () => now, after: () => () => {} };
  const client = new Client(server.credentials, { clock, notices: { carrier: 'polling' } });
  const told = listenTo(client);
  try {
    await client.authenticate();
    await client.authenticate();
    const [warning, ...others] = told.of('warning') as { code: string; message: string }[];
    assert.is(warning?.code, 'clock-off');
    assert.match(warning?.message ?? '', /clock is 3[56]\d\d s ahead of the server's: set it/);
    assert.equal(others, []);
  } finally {
    await client.close();
    await server.close();
  }
});

/** A server of the login generation whose tokens can be taken back. */
async function withLogin(
  work: (client: Client, requests: readonly string[], revoke: () => void) => Promise<void>,
): Promise<void> {
  let logins = 0;
  let good = '';
  const tokenOf = ({ headers }: IncomingMessage) =>
    Buffer.from(headers.authorization?.slice('Basic '.length) ?? '', 'base64').toString();
  const handle = (request: IncomingMessage, response: ServerResponse) => {
    if (request.url === '/v1/leaf/login') {
      good = `token-${++logins}`;
      return answer(response, 201, { data: { id: 'i', access_token: good, logged_in: true } });
    }
    if (tokenOf(request) !== `i:${good}`) return answer(response, 401, { error: 'no', message: 'no' });
    if (request.url === '/v1/leaf/logout') {
      good = '';
      return answer(response, 200, {});
    }
    answer(response, 201, { data: { file_id: 'f' } });
  };
  const server = await serve(handle);
  const credentials = { leaf_name: 'n', leaf_password: 'p', tree_id: 't', branch_id: 'b' };
  const client = new Client(credentials, {
    connection: { server: server.url },
    clock: new HastyClock(),
    notices: { carrier: 'polling' },
  });
  try {
    await work(client, server.requests, () => (good = ''));
  } finally {
    await client.close();
    await server.close();
  }
}

test('a session that has ended is begun anew, and the call goes on', () =>
  withLogin(async (client, requests, revoke) => {
    const told = listenTo(client);
    await client.authenticate();
    assert.equal([client.leafId, client.sessionToken], ['i', 'token-1']);
    revoke();
    assert.is((await client.fileUpload(UPDATE)).fileId, 'f');
    assert.is(client.sessionToken, 'token-2');
    assert.equal(
      told.of('session').map((event) => (event as { isRenewal: boolean }).isRenewal),
      [false, true],
    );
    assert.is(requests.filter((line) => line.includes('upload')).length, 2);
  }));

test('logging out ends the session there and here; the next call begins another', () =>
  withLogin(async (client, requests) => {
    await client.authenticate();
    assert.is(client.isAuthenticated, true);
    await client.logout();
    assert.equal([client.isAuthenticated, client.sessionToken], [false, '']);
    await client.logout();
    assert.is(requests.filter((line) => line.includes('logout')).length, 1);
    await client.fileUpload(UPDATE);
    assert.equal([client.isAuthenticated, client.sessionToken], [true, 'token-2']);
  }));

test('no secret shows when a client is printed', async () => {
  const { inspect } = await import('node:util');
  const client = new Client({ server: 'http://x', id: 'i', session_token: 'secret' });
  assert.not.match(inspect(client, { depth: 9, showHidden: true, getters: false }), /secret/);
  assert.not.match(JSON.stringify(client), /secret/);
  await client.close();
});

test.run();
