/** Bodies over a real connection: cut, slow, refused early; retries; many at once. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type AggregationBody,
  type CredentialsBody,
  paths,
  type RoundBody,
  type RunBody,
} from '../../src/wire/cambium.ts';
import { EventStream, Harness, leafToken, padded, toyFile } from './harness.ts';

/** Opens a connection and sends the head of an upload that announces `length` bytes. */
async function beginUpload(harness: Harness, leaf: CredentialsBody, length: number): Promise<Socket> {
  const socket = connect(Number(new URL(harness.server.url).port), '127.0.0.1');
  await once(socket, 'connect');
  socket.write(
    `PUT ${paths.updates(leaf.id)} HTTP/1.1\r\nHost: evil.example\r\nAuthorization: ${leafToken(leaf)}\r\n` +
      `Content-Length: ${length}\r\n\r\n`,
  );
  return socket;
}

/** Everything that comes back until the other side hangs up, or `enough` says so. */
async function readUntil(socket: Socket, enough: (text: string) => boolean): Promise<string> {
  let text = '';
  for await (const chunk of socket) {
    text += chunk;
    if (enough(text)) break;
  }
  return text;
}

/** Waits until the spool holds as many files. */
async function spooled(harness: Harness, count: number): Promise<void> {
  while ((await harness.stored()).spool.length !== count) await new Promise(setImmediate);
}

const isWhole = (text: string) => /\r\n\r\n.*\}$/s.test(text);

test('a body that is cut leaves nothing, and the server goes on', async () => {
  const harness = await new Harness().start();
  const { id, leaves } = await harness.branch(2);
  for (let i = 0; i < 3; i++) {
    const socket = await beginUpload(harness, leaves[0]!, 10_000);
    socket.write(padded(Buffer.from('{"weighting":')));
    await spooled(harness, 1);
    socket.destroy();
    await spooled(harness, 0);
  }
  assert.is((await harness.operate<RunBody>('GET', paths.run(id))).body.updates, 0);
  assert.is((await harness.upload(leaves[0]!, toyFile(1))).status, 201);
  assert.not.match(JSON.stringify(harness.log.lines), /unexpected error/);
  await harness.end();
});

test('a sender that only stops sending, but listens, is told', async () => {
  const harness = await new Harness().start();
  const { leaves } = await harness.branch(2);
  const socket = await beginUpload(harness, leaves[0]!, 10_000);
  socket.write(padded(Buffer.from('abc')));
  await spooled(harness, 1);
  while (!harness.timers.waiting.includes(60_000)) await new Promise(setImmediate);
  harness.timers.pass(60_000);
  const answer = await readUntil(socket, isWhole);
  assert.match(answer, /^HTTP\/1\.1 408 /);
  assert.match(answer, /connection: close/i);
  assert.match(answer, /"code":"upload-idle"/);
  await spooled(harness, 0);
  await harness.end();
});

test('an answer that comes before the end of the body reaches a sender that sends all of it first', async () => {
  const harness = await new Harness().start();
  const { id, leaves } = await harness.branch(2);
  await harness.run(id, 'pause');
  const length = 20 << 20;
  const socket = await beginUpload(harness, leaves[0]!, length);
  const block = Buffer.alloc(1 << 20);
  for (let sent = 0; sent < length; sent += block.byteLength) {
    if (!socket.write(block)) await once(socket, 'drain');
  }
  // The connection is good for the next request.
  socket.write(`GET ${paths.health()} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
  const answers = await readUntil(socket, (text) => text.includes('"status":"ok"'));
  assert.match(answers, /^HTTP\/1\.1 409 /);
  assert.match(answers, /"code":"run-paused"/);
  assert.match(answers, /HTTP\/1\.1 200 /);
  await harness.end();
});

test('a refused body that never ends is cut', async () => {
  const harness = await new Harness().start({ maxUploadBytes: 1000 });
  const { id, leaves } = await harness.branch(2);
  await harness.run(id, 'pause');
  const idle = await beginUpload(harness, leaves[0]!, 10_000);
  idle.resume();
  while (!idle.closed) {
    harness.timers.pass(60_000);
    await new Promise(setImmediate);
  }

  const endless = await beginUpload(harness, leaves[0]!, 1e12);
  endless.on('error', () => {});
  endless.resume();
  const flood = () => {
    while (!endless.destroyed && endless.write(Buffer.alloc(1 << 16)));
  };
  endless.on('drain', flood);
  flood();
  while (!endless.closed) await new Promise(setImmediate);
  await harness.end();
});

test('what is not HTTP gets JSON all the same', async () => {
  const harness = await new Harness().start();
  const socket = connect(Number(new URL(harness.server.url).port), '127.0.0.1');
  socket.end('nonsense\r\n\r\n');
  const answer = await readUntil(socket, () => false);
  assert.match(answer, /^HTTP\/1\.1 400 .*"code":"http-invalid"\}$/s);
  await harness.end();
});

test('two uploads at once by one leaf: equal ones are one, of different ones one is refused', async () => {
  const harness = await new Harness().start();
  const { id, leaves } = await harness.branch(3);
  const [a, b] = [leaves[0]!, leaves[1]!];
  const equal = await Promise.all(Array.from({ length: 8 }, () => harness.upload(a, toyFile(1))));
  assert.equal([...new Set(equal.map((answer) => answer.status))], [201]);
  assert.is(new Set(equal.map((answer) => answer.body.file_id)).size, 1);
  assert.is(equal.filter((answer) => !answer.body.duplicate).length, 1);
  const different = await Promise.all(
    Array.from({ length: 8 }, (_, i) => harness.upload(b, toyFile(1, [{ values: [i, i] }]))),
  );
  assert.equal(different.map((answer) => answer.status).sort(), [201, ...Array(7).fill(409)]);
  assert.is((await harness.operate<RunBody>('GET', paths.run(id))).body.updates, 2);
  const { spool, blobs } = await harness.stored();
  assert.equal([spool.length, blobs.length], [0, 2]);
  await harness.end();
});

test('ten leaves race to a target of three: full rounds, nobody lost, nobody twice', async () => {
  const harness = await new Harness().start({ keepUpdates: 100 });
  const { id, leaves } = await harness.branch(3, 10);
  const watch = await EventStream.open(new URL(paths.watch(id), harness.server.url), {
    authorization: `Bearer ${harness.operator.token}`,
  });
  const answers = await Promise.all(leaves.map((leaf, i) => harness.upload(leaf, toyFile(i + 1))));
  for (const answer of answers) assert.is(answer.status, 201);
  for (const done = new Set<number>(); done.size < 3; ) {
    const round = JSON.parse((await watch.event())!.data!) as RoundBody; // one may be told twice
    if (round.status === 'done') done.add(round.round);
  }
  const { body } = await harness.operate<{ items: RoundBody[] }>('GET', paths.rounds(id));
  assert.equal(
    body.items.map((round) => [round.round, round.status, round.updates.length]),
    [
      [4, 'open', 1],
      [3, 'done', 3],
      [2, 'done', 3],
      [1, 'done', 3],
    ],
  );
  const members = body.items.flatMap((round) => round.updates.map((update) => update.leaf_id));
  assert.is(new Set(members).size, 10);
  assert.equal(
    body.items.flatMap((round) => round.updates.map((update) => update.file_id)).sort(),
    answers.map((answer) => answer.body.file_id).sort(),
  );
  for (const round of body.items.slice(1)) {
    const sum = round.updates.reduce((total, update) => total + update.weighting, 0);
    assert.is(round.total_weighting, sum);
  }
  await watch.close();
  await harness.end();
});

test('a retry after its round closed is that update until the aggregation was fetched, then a new one', async () => {
  const harness = await new Harness().start();
  const { id, leaves } = await harness.branch(1);
  const leaf = leaves[0]!;
  const notices = await EventStream.open(new URL(paths.notices(leaf.id), harness.server.url), {
    authorization: leafToken(leaf),
  });
  await notices.event();
  const first = await harness.upload(leaf, toyFile(1));
  const told = JSON.parse((await notices.event())!.data!);
  const retry = await harness.upload(leaf, toyFile(1));
  assert.equal(retry.body, { ...first.body, duplicate: true });
  assert.is((await harness.operate<RunBody>('GET', paths.run(id))).body.updates, 0);

  const { body } = await harness.call<AggregationBody>('GET', paths.aggregation(told.aggregation_id), {
    headers: { authorization: leafToken(leaf) },
  });
  await (await fetch(body.download_url)).arrayBuffer();
  const named = await harness.upload(leaf, toyFile(1), {}, '?round=1');
  assert.equal(named.body, { ...first.body, duplicate: true });
  const next = await harness.upload(leaf, toyFile(1));
  assert.is(next.body.duplicate, false);
  assert.is(next.body.round, 2);
  assert.is.not(next.body.file_id, first.body.file_id);
  await notices.close();
  await harness.end();
});

test('an idempotency key gives the receipt again, also when the run has stopped', async () => {
  const harness = await new Harness().start();
  const { id, leaves } = await harness.branch(2);
  const leaf = leaves[0]!;
  const key = { 'idempotency-key': 'k1' };
  const first = await harness.upload(leaf, toyFile(1), key);
  assert.is(first.status, 201);
  const digest = `sha-256=:${Buffer.from(first.body.sha256, 'hex').toString('base64')}:`;
  await harness.run(id, 'stop');
  for (const headers of [key, { ...key, 'repr-digest': digest }]) {
    const again = await harness.upload(leaf, toyFile(1), headers);
    assert.is(again.status, 201);
    assert.equal(again.body, { ...first.body, duplicate: true });
  }
  const reused = await harness.upload<{ code: string }>(leaf, toyFile(2), key);
  assert.is(reused.status, 409);
  assert.is(reused.body.code, 'idempotency-key-reused');
  const other = await harness.upload<{ code: string }>(leaves[1]!, toyFile(2), key);
  assert.is(other.body.code, 'run-stopped'); // keys are each leaf's own
  await harness.end();
});

test('the model of a wrong first update can be undone until a round has closed', async () => {
  const harness = await new Harness().start();
  const { id, leaves } = await harness.branch(2);
  const [a, b] = [leaves[0]!, leaves[1]!];
  const reset = () => harness.operate<RunBody & { code: string }>('POST', paths.resetModel(id));
  const wrong = toyFile(1, [{ values: [1, 2, 3] }]);
  await harness.upload(a, wrong);
  assert.is((await harness.upload<{ code: string }>(b, toyFile(1))).body.code, 'layout-shape');
  const after = await reset();
  assert.equal([after.status, after.body.round, after.body.updates], [200, 2, 0]);
  assert.equal(await harness.stored(), { spool: [], blobs: [] });
  assert.is((await harness.upload(b, toyFile(1))).body.round, 2);
  assert.is((await harness.upload<{ code: string }>(a, wrong)).body.code, 'layout-shape');
  assert.is((await harness.upload(a, toyFile(1))).status, 201);
  const fixed = await reset();
  assert.equal([fixed.status, fixed.body.code], [409, 'model-fixed']);
  await harness.run(id, 'stop');
  assert.is((await reset()).body.code, 'run-stopped');
  await harness.end();
});

test('updates are removed one round after their aggregation, aggregations are kept', async () => {
  const harness = await new Harness().start();
  const { id, leaves } = await harness.branch(1);
  const watch = await EventStream.open(new URL(paths.watch(id), harness.server.url), {
    authorization: `Bearer ${harness.operator.token}`,
  });
  const files: string[] = [];
  const aggregations: string[] = [];
  for (let i = 0; i < 3; i++) {
    const answer = await harness.upload(leaves[0]!, toyFile(1, [{ values: [i, i] }]));
    files.push(answer.body.file_id);
    for (;;) {
      const round = JSON.parse((await watch.event())!.data!) as RoundBody;
      if (round.round !== i + 1 || round.status !== 'done') continue;
      aggregations.push(round.aggregation_id!);
      break;
    }
  }
  // The last removal follows the notice; the next request of this test comes later still.
  while ((await harness.stored()).blobs.length > 4) await new Promise(setImmediate);
  assert.equal((await harness.stored()).blobs, [...aggregations, files[2]!].sort());
  await watch.close();
  await harness.end();
});

test('a host name with several addresses is served and closed on all of them', async () => {
  const harness = await new Harness().start({ host: 'localhost' });
  const { port } = new URL(harness.server.url);
  const sockets: Socket[] = [];
  for (const address of ['127.0.0.1', '::1']) {
    const socket = connect(Number(port), address);
    const isOpen = await Promise.race([once(socket, 'connect'), once(socket, 'error')]).then(
      () => socket.readyState === 'open',
      () => false, // this machine has no such address
    );
    if (isOpen) sockets.push(socket.resume());
  }
  assert.ok(sockets.length > 0);
  await harness.end();
  for (const socket of sockets) while (!socket.closed) await new Promise(setImmediate);
});

test('a close ends streams, refuses newcomers and cuts what does not end', async () => {
  const harness = await new Harness().start();
  const { leaves } = await harness.branch(2);
  const stream = await EventStream.open(new URL(paths.notices(leaves[0]!.id), harness.server.url), {
    authorization: leafToken(leaves[0]!),
  });
  await stream.event();
  const idle = connect(Number(new URL(harness.server.url).port), '127.0.0.1');
  await once(idle, 'connect');
  idle.resume();
  const socket = await beginUpload(harness, leaves[1]!, 10_000);
  socket.on('error', () => {});
  socket.resume();
  socket.write(padded(Buffer.from('abc')));
  await spooled(harness, 1);
  const closing = harness.server.close();
  assert.is(await stream.event(), undefined);
  await once(idle, 'close');
  while (!harness.timers.waiting.includes(10_000)) await new Promise(setImmediate);
  harness.timers.pass(10_000);
  await closing;
  assert.equal((await harness.stored()).spool, []);
  await harness.end(); // a second close is the first
});

test.run();
