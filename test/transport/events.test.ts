import type { ServerResponse } from 'node:http';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { eventNotices, SILENCE_MS } from '../../src/transport/events.ts';
import { Http } from '../../src/transport/http.ts';
import type { NoticeMessage } from '../../src/transport/notices.ts';
import { HastyClock, ManualClock } from '../helpers/clock.ts';
import { failsWith } from '../helpers/errors.ts';
import { refuse, serve } from '../helpers/loopback.ts';

/** What a server says, event by event; number n has the id n. */
const RECORDED = [1, 2, 3].map((n) => `: c\nid: ${n}\nevent: t\ndata: { "n": ${n},\ndata: "é😀" }\n\n`);
const EXPECTED: readonly NoticeMessage[] = [1, 2, 3].map((n) => ({
  id: String(n),
  type: 't',
  data: `{ "n": ${n},\n"é😀" }`,
}));

function begin(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' });
  response.flushHeaders();
}

async function take(notices: AsyncIterable<NoticeMessage>, count: number): Promise<NoticeMessage[]> {
  const taken: NoticeMessage[] = [];
  for await (const notice of notices) {
    taken.push(notice);
    if (taken.length === count) break;
  }
  return taken;
}

test('a stream cut after any byte is resumed without loss or repetition', async () => {
  const resumedAfter: (string | undefined)[] = [];
  let cutAt = 0;
  let isCut = false;
  const server = await serve((request, response) => {
    const after = request.headers['last-event-id'] as string | undefined;
    resumedAfter.push(after);
    const bytes = Buffer.from(RECORDED.slice(Number(after ?? 0)).join(''));
    begin(response);
    if (isCut) {
      response.write(bytes);
    } else {
      isCut = true;
      // Half of the cuts are clean ends, half are broken connections.
      if (cutAt % 2 === 0) response.end(bytes.subarray(0, cutAt));
      else response.write(bytes.subarray(0, cutAt), () => response.destroy());
    }
  });
  try {
    const length = Buffer.byteLength(RECORDED.join(''));
    for (cutAt = 0; cutAt <= length; cutAt++) {
      isCut = false;
      resumedAfter.length = 0;
      const http = new Http({ server: server.url, clock: new HastyClock() });
      const stream = eventNotices(http, '/notices').open();
      assert.equal(await take(stream, 3), EXPECTED, `cut after ${cutAt} bytes`);
      assert.is(resumedAfter[0], undefined);
    }
  } finally {
    await server.close();
  }
});

test('begins after a given id', async () => {
  const server = await serve((request, response) => {
    begin(response);
    response.write(`id: 9\ndata: after ${request.headers['last-event-id']}\n\n`);
  });
  try {
    const notices = eventNotices(new Http({ server: server.url }), '/notices');
    assert.equal(await take(notices.open({ after: '8' }), 1), [
      { id: '9', type: 'message', data: 'after 8' },
    ]);
  } finally {
    await server.close();
  }
});

test('a silent connection is given up after 45 s; comments keep it', async () => {
  const clock = new ManualClock();
  let connections = 0;
  let current: ServerResponse | undefined;
  const server = await serve((_, response) => {
    connections++;
    current = response;
    begin(response);
    response.write(`id: ${connections}\ndata: ${connections}\n\n`);
  });
  try {
    const stream = eventNotices(new Http({ server: server.url, clock, random: () => 0 }), '/notices').open();
    const iterator = stream[Symbol.asyncIterator]();
    assert.is((await iterator.next()).value?.data, '1');
    let next = iterator.next();
    clock.pass(SILENCE_MS - 1);
    const asked = clock.delays.length;
    current?.write(': still here\n\n');
    await clock.asked(asked + 1);
    clock.pass(SILENCE_MS - 1);
    current?.write('data: alive\n\n');
    assert.is((await next).value?.data, 'alive');
    assert.is(connections, 1);

    next = iterator.next();
    const before = clock.delays.length;
    clock.pass(SILENCE_MS);
    // The pause before the new connection.
    await clock.asked(before + 1);
    clock.pass(500);
    assert.is((await next).value?.data, '2');
    stream.close();
    assert.equal(await iterator.next(), { done: true, value: undefined });
    assert.is(clock.waiting, 0);
  } finally {
    await server.close();
  }
});

test('the server says how long to pause', async () => {
  let connections = 0;
  const server = await serve((_, response) => {
    begin(response);
    response.end(`retry: 1234\nid: ${++connections}\ndata: x\n\n`);
  });
  try {
    const clock = new HastyClock();
    await take(eventNotices(new Http({ server: server.url, clock }), '/notices').open(), 3);
    assert.equal(clock.pauses, [1234, 1234]);
  } finally {
    await server.close();
  }
});

test('a refusal ends it: the token was revoked', async () => {
  let connections = 0;
  const server = await serve((_, response) => {
    if (++connections === 2) return refuse(response, 401, 'token-revoked');
    begin(response);
    response.end('id: 1\ndata: x\n\n');
  });
  try {
    const clock = new HastyClock();
    const stream = eventNotices(new Http({ server: server.url, clock }), '/notices').open();
    await failsWith('token-revoked', () => take(stream, 9));
    assert.is(connections, 2);
  } finally {
    await server.close();
  }
});

test('a page instead of a stream is refused', async () => {
  const server = await serve((_, response) => {
    response.writeHead(200, { 'content-type': 'text/html' }).end('<html>');
  });
  try {
    const stream = eventNotices(new Http({ server: server.url }), '/notices').open();
    await failsWith('protocol-not-events', () => take(stream, 1));
  } finally {
    await server.close();
  }
});

test('nobody listens: it stops in the end, with what went wrong', async () => {
  const server = await serve(() => {});
  await server.close();
  const clock = new HastyClock();
  const stream = eventNotices(new Http({ server: server.url, clock }), '/notices').open();
  await failsWith('unavailable-server', () => take(stream, 1));
  assert.is(clock.pauses.length, 45);
});

test('204 is the end', async () => {
  const server = await serve((_, response) => {
    response.writeHead(204).end();
  });
  try {
    const stream = eventNotices(new Http({ server: server.url }), '/notices').open();
    assert.equal(await take(stream, 1), []);
  } finally {
    await server.close();
  }
});

test('ends by close, by return and by signal, also while waiting, and the connection goes', async () => {
  for (const way of ['close', 'return', 'signal'] as const) {
    let gone: () => void;
    const closed = new Promise<void>((resolve) => {
      gone = resolve;
    });
    const server = await serve((request, response) => {
      request.on('close', () => gone());
      begin(response);
      response.write('data: x\n\n');
    });
    try {
      const controller = new AbortController();
      const http = new Http({ server: server.url });
      const stream = eventNotices(http, '/notices').open({ signal: controller.signal });
      const iterator = stream[Symbol.asyncIterator]();
      await iterator.next();
      const waiting = iterator.next();
      const outcome = waiting.catch((reason: unknown) => reason);
      if (way === 'close') stream.close();
      if (way === 'return') await iterator.return?.();
      if (way === 'signal') controller.abort('enough');
      if (way === 'signal') assert.is(await outcome, 'enough');
      else assert.equal(await outcome, { done: true, value: undefined }, way);
      await closed;
    } finally {
      await server.close();
    }
  }
});

test('ends by close also after the collector has been there', async () => {
  // A signal that nobody but a listener held was once collected, and the abort with it.
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const server = await serve((_, response) => {
    begin(response);
    response.write('data: x\n\n');
  });
  try {
    const stream = eventNotices(new Http({ server: server.url }), '/notices').open();
    const iterator = stream[Symbol.asyncIterator]();
    await iterator.next();
    const waiting = iterator.next();
    for (let i = 0; i < 3; i++) {
      collect();
      await new Promise(setImmediate);
    }
    stream.close();
    assert.equal(await waiting, { done: true, value: undefined });
  } finally {
    await server.close();
  }
});

test.run();
