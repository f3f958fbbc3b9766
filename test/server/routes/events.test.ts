import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type CredentialsBody, type ErrorBody, paths, type RoundBody } from '../../../src/wire/cambium.ts';
import { EventStream, Harness, leafToken, type SentEvent, toyFile } from '../harness.ts';

const harness = new Harness();
test.before(async () => {
  await harness.start();
});
test.after(() => harness.end());

function open(leaf: CredentialsBody, lastEventId?: string): Promise<EventStream> {
  return EventStream.open(new URL(paths.notices(leaf.id), harness.server.url), {
    authorization: leafToken(leaf),
    ...(lastEventId === undefined ? {} : { 'last-event-id': lastEventId }),
  });
}

const kindOf = (event: SentEvent | undefined) => {
  const data = JSON.parse(event!.data!);
  assert.is(data.message_type, event!.event);
  return [event!.id, event!.event, data.body.run_status ?? data.round];
};

async function take(stream: EventStream, count: number): Promise<unknown[]> {
  const kinds: unknown[] = [];
  while (kinds.length < count) kinds.push(kindOf(await stream.event()));
  return kinds;
}

test('a new reader is told the present status and the newest aggregation of the run, then what comes', async () => {
  const { id, leaves } = await harness.branch(1);
  const leaf = leaves[0]!;
  const first = await open(leaf);
  assert.is(first.response.headers.get('content-type'), 'text/event-stream; charset=utf-8');
  assert.is(first.response.headers.get('cache-control'), 'no-store, no-transform');
  assert.is(first.response.headers.get('x-accel-buffering'), 'no');
  assert.equal(await take(first, 1), [['1', 'run_status', 'start']]);
  await harness.upload(leaf, toyFile(1, [{ values: [1, 1] }]));
  assert.equal(await take(first, 1), [['2', 'aggregation_status', 1]]);
  await harness.upload(leaf, toyFile(1, [{ values: [2, 2] }]));
  assert.equal(await take(first, 1), [['3', 'aggregation_status', 2]]);
  await harness.run(id, 'pause');
  assert.equal(await take(first, 1), [['4', 'run_status', 'pause']]);

  const second = await open(leaf);
  assert.equal(await take(second, 2), [
    ['3', 'aggregation_status', 2],
    ['4', 'run_status', 'pause'],
  ]);
  await harness.run(id, 'start');
  for (const stream of [first, second]) assert.equal(await take(stream, 1), [['5', 'run_status', 'start']]);

  const resumed = await open(leaf, '1');
  assert.equal(await take(resumed, 4), [
    ['2', 'aggregation_status', 1],
    ['3', 'aggregation_status', 2],
    ['4', 'run_status', 'pause'],
    ['5', 'run_status', 'start'],
  ]);
  const upToDate = await open(leaf, '5');
  await harness.run(id, 'stop');
  assert.equal(await take(upToDate, 1), [['6', 'run_status', 'stop']]);
  await harness.run(id, 'start');
  const ofNewRun = await open(leaf);
  assert.equal(await take(ofNewRun, 1), [['7', 'run_status', 'start']]);
  const fromTheFuture = await open(leaf, '1000');
  assert.equal(await take(fromTheFuture, 1), [['7', 'run_status', 'start']]);
  for (const stream of [first, second, resumed, upToDate, ofNewRun, fromTheFuture]) await stream.close();
});

test('a branch that was never started is told to be stopped', async () => {
  const { id } = await harness.branch(1, 0);
  const tree = await harness.operate<{ items: { tree_id: string; id: string }[] }>('GET', paths.branches());
  const { tree_id } = tree.body.items.find((branch) => branch.id === id)!;
  const branch = await harness.operate<{ id: string }>('POST', paths.branches(), {
    name: 'fresh',
    tree_id,
    aggregation_target: 1,
  });
  const leaf = await harness.operate<CredentialsBody>('POST', paths.leaves(), {
    name: 'a',
    branch_id: branch.body.id,
  });
  const stream = await open(leaf.body);
  assert.equal(await take(stream, 1), [['0', 'run_status', 'stop']]);
  await harness.run(branch.body.id, 'start');
  assert.equal(await take(stream, 1), [['1', 'run_status', 'start']]);
  await stream.close();
});

test('a comment breaks a silence of 15 seconds', async () => {
  const { leaves } = await harness.branch(1);
  const stream = await open(leaves[0]!);
  assert.equal(await stream.next(), {}); // the one that lets the headers out
  assert.is((await stream.next())?.event, 'run_status');
  for (let i = 0; i < 3; i++) {
    while (!harness.timers.waiting.includes(15_000)) await new Promise(setImmediate);
    harness.timers.pass(15_000);
    assert.equal(await stream.next(), {});
  }
  await stream.close();
});

test('a reader that goes leaves nothing waiting', async () => {
  while (harness.timers.waiting.length > 0) await new Promise(setImmediate);
  const { leaves } = await harness.branch(1);
  const stream = await open(leaves[0]!);
  await stream.event();
  while (harness.timers.waiting.length === 0) await new Promise(setImmediate);
  await stream.close();
  while (harness.timers.waiting.length > 0) await new Promise(setImmediate);
});

test('a stream ends when its leaf’s token is taken back', async () => {
  const { leaves } = await harness.branch(1, 2);
  const streams = await Promise.all(leaves.map((leaf) => open(leaf)));
  for (const stream of streams) await stream.event();
  await harness.operate('DELETE', paths.leaf(leaves[0]!.id));
  assert.is(await streams[0]!.event(), undefined);
  await harness.upload(leaves[1]!, toyFile(1));
  assert.is((await streams[1]!.event())?.event, 'aggregation_status');
  await streams[1]!.close();
  assert.is(
    (
      await harness.call('GET', paths.notices(leaves[0]!.id), {
        headers: { authorization: leafToken(leaves[0]!) },
      })
    ).status,
    401,
  );
});

test('only a number resumes', async () => {
  const { leaves } = await harness.branch(1);
  for (const id of ['x', '-1', '1.5', '1e3', '9'.repeat(16)]) {
    const { status, body } = await harness.call<ErrorBody>('GET', paths.notices(leaves[0]!.id), {
      headers: { authorization: leafToken(leaves[0]!), 'last-event-id': id },
    });
    assert.is(status, 400);
    assert.is(body.code, 'last-event-id-invalid');
  }
});

test('operators see a round change', async () => {
  const { id, leaves } = await harness.branch(2);
  const stream = await EventStream.open(new URL(paths.watch(id), harness.server.url), {
    authorization: `Bearer ${harness.operator.token}`,
  });
  const until = async (isIt: (round: RoundBody) => boolean) => {
    for (;;) {
      const event = await stream.event();
      assert.is(event?.event, 'round');
      const round = JSON.parse(event!.data!) as RoundBody;
      if (isIt(round)) return round;
    }
  };
  const empty = await until(() => true);
  assert.equal([empty.round, empty.status, empty.updates], [1, 'open', []]);
  await harness.upload(leaves[0]!, toyFile(3));
  const one = await until((round) => round.updates.length === 1);
  assert.equal([one.updates[0]!.leaf_name, one.updates[0]!.weighting], ['leaf-0', 3]);
  await harness.upload(leaves[1]!, toyFile(4));
  const done = await until((round) => round.status === 'done');
  assert.equal([done.total_weighting, done.aggregation_seconds, done.updates.length], [7, 0.25, 2]);
  await stream.close();
  const other = '11111111-2222-4333-8444-555555555555';
  assert.is((await harness.operate('GET', paths.watch(other))).status, 404);
});

test.run();
