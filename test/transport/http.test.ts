import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ExchangeError, ProtocolError, RefusedError, UnavailableError } from '../../src/errors.ts';
import { readText } from '../../src/transport/answer.ts';
import { Http, type HttpOptions } from '../../src/transport/http.ts';
import { TransientFailure, withRetries } from '../../src/transport/retry.ts';
import { HastyClock, ManualClock } from '../helpers/clock.ts';
import { failsWith } from '../helpers/errors.ts';
import { answer, bodyOf, type Handler, type LoopbackServer, refuse, serve } from '../helpers/loopback.ts';

/** Runs `work` with a server and an Http for it, whose pauses take no time. */
async function withServer(
  handler: Handler,
  work: (http: Http, server: LoopbackServer, clock: HastyClock) => Promise<void>,
  options: Partial<HttpOptions> = {},
): Promise<void> {
  const server = await serve(handler);
  const clock = new HastyClock();
  try {
    await work(new Http({ server: server.url, clock, random: () => 0, ...options }), server, clock);
  } finally {
    await server.close();
  }
}

const get = { method: 'GET', target: '/x' } as const;

test('joins the base path, sends the query, JSON and credentials', async () => {
  const server = await serve(async (request, response) => {
    answer(response, 200, {
      url: request.url,
      authorization: request.headers.authorization,
      type: request.headers['content-type'],
      body: (await bodyOf(request)).toString(),
    });
  });
  try {
    const http = new Http({ server: `${server.url}/base/`, authorization: 'Bearer a:b' });
    const query = { round: 3, missing: undefined };
    assert.equal(await http.json({ method: 'POST', target: '/a%20b', query, json: { n: 1 } }), {
      url: '/base/a%20b?round=3',
      authorization: 'Bearer a:b',
      type: 'application/json',
      body: '{"n":1}',
    });
    // A link is asked without credentials.
    const foreign = (await http.json({ method: 'GET', target: `${server.url}/file?sig=1` })) as object;
    assert.not('authorization' in foreign);
  } finally {
    await server.close();
  }
});

test('a refusal carries the code, message and status of the server, and is final', () =>
  withServer(
    (_, response) => refuse(response, 422, 'weighting-zero'),
    async (http, server) => {
      const error = await failsWith('weighting-zero', () => http.json(get));
      assert.ok(error instanceof RefusedError);
      assert.is(error.status, 422);
      assert.is(error.message, 'message of weighting-zero');
      assert.is(server.requests.length, 1);
    },
  ));

for (const [name, type, body] of [
  ['JSON', 'application/json', '{"message":"no: TOKEN is bad","code":"token-invalid"}'],
  ['a page', 'text/html', `<a href="/x?sig=TOKEN">TOKEN ID64</a>\u0007${'.'.repeat(5000)}`],
] as const) {
  for (const scheme of ['Bearer', 'Basic'] as const) {
    test(`an error shows how ${name} begins, without secrets (${scheme})`, async () => {
      const plain = 'leaf:s3cr3t-tok+en';
      const value = scheme === 'Basic' ? btoa(plain) : plain;
      await withServer(
        (_, response) => {
          const text = body.replaceAll('TOKEN', 's3cr3t-tok+en').replaceAll('ID64', btoa(plain));
          response.writeHead(403, { 'content-type': type, 'retry-after': '7' }).end(text);
        },
        async (http) => {
          const error = await failsWith('token-invalid|protocol-not-json', () => http.json(get));
          assert.ok(error instanceof ExchangeError);
          assert.equal([error.status, error.retryAfterMs, error.attempts], [403, 7000, undefined]);
          assert.ok(error.preview!.length > 10 && error.preview!.length <= 200);
          const shown = `${error.message}${error.preview}`;
          assert.not.match(shown, /s3cr3t|\p{Cc}/u);
          if (scheme === 'Basic') assert.not.ok(shown.includes(value));
        },
        { authorization: `${scheme} ${value}` },
      );
    });
  }
}

test('statuses that are tried again can be chosen', () =>
  withServer(
    (_, response) => refuse(response, 500, 'broken'),
    async (http, server) => {
      await failsWith('broken', () => http.json(get));
      assert.is(server.requests.length, 1);
    },
    { retry: { statuses: [503] } },
  ));

test('words of the server lose their control characters', () =>
  withServer(
    (_, response) => answer(response, 400, { message: 'a\u001b[31m\r\nb', code: 'x\ny' }),
    async (http) => {
      const error = await failsWith('x y', () => http.json(get));
      assert.is(error.message, 'a [31m b');
    },
  ));

test('a refusal with `error` only, without code, gets one from its status', () =>
  withServer(
    (_, response) => answer(response, 403, { error: 'no' }),
    async (http) => assert.is((await failsWith('http-403', () => http.json(get))).message, 'no'),
  ));

for (const status of [408, 429, 500, 502, 503, 504]) {
  test(`${status} then 200: tried again after Retry-After`, () => {
    let left = 2;
    return withServer(
      (_, response) =>
        left-- > 0 ? refuse(response, status, 'busy', { 'retry-after': '7' }) : answer(response, 200, 'ok'),
      async (http, server, clock) => {
        assert.is(await http.json(get), 'ok');
        assert.is(server.requests.length, 3);
        assert.equal(clock.pauses, [7000, 7000]);
      },
    );
  });
}

test('503 for ever: the refusal of the last attempt', () =>
  withServer(
    (_, response) => refuse(response, 503, 'overloaded'),
    async (http, server) => {
      const error = await failsWith('overloaded', () => http.json(get));
      assert.ok(error instanceof RefusedError && error.status === 503);
      assert.is(server.requests.length, 4);
    },
    { retry: { attempts: 4 } },
  ));

test('an error page of a proxy is unavailability, tried again', () =>
  withServer(
    (_, response) => {
      response.writeHead(502, { 'content-type': 'text/html' }).end('<h1>Bad Gateway</h1>');
    },
    async (http, server) => {
      assert.ok((await failsWith('unavailable-server', () => http.json(get))) instanceof UnavailableError);
      assert.is(server.requests.length, 2);
    },
    { retry: { attempts: 2 } },
  ));

for (const status of [200, 404]) {
  test(`a page of HTML with ${status} is no answer of ours`, () =>
    withServer(
      (_, response) => {
        response.writeHead(status, { 'content-type': 'text/html' }).end('<html>Log in</html>');
      },
      async (http, server) => {
        const error = await failsWith('protocol-not-json', () => http.json(get));
        assert.ok(error instanceof ProtocolError);
        assert.match(error.message, /text\/html/);
        assert.is(server.requests.length, 1);
      },
    ));
}

test('a redirect is named, not followed, with credentials or body', () =>
  withServer(
    (_, response) => {
      response.writeHead(302, { location: 'https://elsewhere.example/login?secret=1' }).end();
    },
    async (http, server) => {
      const error = await failsWith('protocol-redirect', () => http.json(get));
      assert.match(error.message, /to https:\/\/elsewhere\.example\/login;/);
      const body = { byteLength: 3, chunks: () => chunksOf(Uint8Array.of(1, 2, 3)) };
      await failsWith('protocol-redirect', () => http.json({ method: 'PUT', target: '/x', body }));
      assert.is(server.requests.length, 2);
    },
  ));

test('a link to a file may redirect', () =>
  withServer(
    (request, response) => {
      if (request.url === '/there') answer(response, 200, 'file');
      else response.writeHead(302, { location: '/there' }).end();
    },
    async (http, server) => {
      assert.is(await http.json({ method: 'GET', target: `${server.url}/here?sig=secret` }), 'file');
    },
  ));

test('nobody listens: unavailable, after all attempts, without the query of the link', async () => {
  const server = await serve(() => {});
  await server.close();
  const clock = new HastyClock();
  const http = new Http({ server: server.url, clock, retry: { attempts: 3 } });
  const target = `${server.url}/file?signature=secret`;
  const error = await failsWith('unavailable-server', () => http.json({ method: 'GET', target }));
  assert.match(error.message, /nothing listens/);
  assert.not.match(error.message, /secret/);
  assert.is(clock.pauses.length, 2);
});

test('a connection that breaks before the answer is tried again', () => {
  let left = 1;
  return withServer(
    (request, response) => {
      if (left-- > 0) request.socket.destroy();
      else answer(response, 200, 'ok');
    },
    async (http) => assert.is(await http.json(get), 'ok'),
  );
});

test('an answer cut in the middle is tried again', () => {
  let left = 1;
  return withServer(
    (_, response) => {
      if (left-- === 0) return answer(response, 200, 'whole');
      response.writeHead(200, { 'content-length': '100' });
      response.write('{"a":');
      response.socket?.end();
    },
    async (http, server) => {
      assert.is(await http.json(get), 'whole');
      assert.is(server.requests.length, 2);
    },
  );
});

test('silence before the answer and in the middle of it end in `timeout`', async () => {
  const clock = new ManualClock();
  let connected = () => {};
  await withServer(
    (request, response) => {
      if (request.url === '/middle') {
        response.writeHead(200);
        response.write('[');
      }
      connected();
    },
    async (http) => {
      for (const target of ['/before', '/middle']) {
        const arrived = new Promise<void>((resolve) => {
          connected = resolve;
        });
        const reading = http.open({ method: 'GET', target }).then(async (opened) => {
          const chunks = opened.chunks();
          const first = await chunks.next();
          // The silence begins after the first byte.
          const second = chunks.next();
          clock.pass(60_000);
          await second;
          return first;
        });
        await arrived;
        if (target === '/before') clock.pass(30_000);
        const error = await reading.catch((reason: unknown) => reason);
        assert.ok(error instanceof TransientFailure, String(error));
        assert.is(error.failure.code, 'timeout');
        assert.is(clock.waiting, 0);
      }
    },
    { clock },
  );
});

test('an abort ends the exchange with its reason, also in the middle of the body', async () => {
  await withServer(
    (_, response) => {
      response.writeHead(200);
      response.write('[');
    },
    async (http) => {
      const controller = new AbortController();
      const opened = await http.open({ ...get, signal: controller.signal });
      const chunks = opened.chunks();
      await chunks.next();
      controller.abort('enough');
      assert.is(await chunks.next().catch((reason: unknown) => reason), 'enough');
      const again = http.json({ ...get, signal: controller.signal });
      assert.is(await again.catch((reason: unknown) => reason), 'enough');
    },
  );
});

test('a streamed body has a length, is counted, and comes from the start in each attempt', () => {
  let left = 1;
  const bodies: string[] = [];
  return withServer(
    async (request, response) => {
      const body = await bodyOf(request);
      bodies.push(`${request.headers['content-length']} ${request.headers['transfer-encoding']} ${body}`);
      if (left-- > 0) refuse(response, 503, 'busy');
      else answer(response, 201, 'ok');
    },
    async (http) => {
      const sent: number[] = [];
      const body = {
        byteLength: 6,
        chunks: () => chunksOf(Buffer.from('abc'), Buffer.from('def')),
        onSent: (bytes: number) => sent.push(bytes),
      };
      assert.is(await http.json({ method: 'PUT', target: '/x', body }), 'ok');
      assert.equal(bodies, ['6 undefined abcdef', '6 undefined abcdef']);
      assert.equal(sent, [3, 6, 3, 6]);
    },
  );
});

test('a refusal in the middle of an upload arrives, and the rest is not sent', () =>
  withServer(
    (request, response) => {
      request.once('data', () => refuse(response, 409, 'run-paused', { connection: 'close' }));
    },
    async (http) => {
      let produced = 0;
      let release = () => {};
      const released = new Promise<void>((resolve) => {
        release = resolve;
      });
      const total = 256 << 20;
      const body = {
        byteLength: total,
        async *chunks() {
          try {
            for (; produced < total; produced += 1 << 18) yield new Uint8Array(1 << 18);
          } finally {
            release();
          }
        },
      };
      await failsWith('run-paused', () => http.json({ method: 'PUT', target: '/x', body }));
      assert.ok(produced < total, 'the whole body was sent');
      await released;
    },
  ));

test('the connection takes a block only when it has sent the one before', () => {
  let received = 0;
  return withServer(
    async (request, response) => {
      for await (const chunk of request) received += (chunk as Buffer).byteLength;
      answer(response, 201, received);
    },
    async (http) => {
      const block = 1 << 18;
      const total = 256 << 20;
      let ahead = 0;
      const body = {
        byteLength: total,
        async *chunks() {
          for (let made = 0; made < total; made += block) {
            yield new Uint8Array(block);
            ahead = Math.max(ahead, made + block - received);
          }
        },
      };
      assert.is(await http.json({ method: 'PUT', target: '/x', body }), total);
      console.log(`      256 MiB sent, at most ${ahead / 2 ** 20} MiB ahead of the receiver`);
      // What the sockets of both ends hold; a body that is kept would be ahead by all of it.
      assert.ok(ahead < 32 << 20, `${ahead} bytes ahead`);
    },
  );
});

test('an error of the source is the error of the call, and is not tried again', () =>
  withServer(
    async (request, response) => {
      await bodyOf(request).catch(() => {});
      response.destroy();
    },
    async (http) => {
      let attempts = 0;
      const broken = new UnavailableError('unavailable-source', 'the file has shrunk');
      const body = {
        byteLength: 6,
        async *chunks() {
          attempts++;
          yield Buffer.from('abc');
          throw broken;
        },
      };
      const request = { method: 'PUT', target: '/x', body } as const;
      const running = withRetries(http.policy, undefined, () => http.open(request));
      assert.is(await running.catch((error: unknown) => error), broken);
      assert.is(attempts, 1);
    },
  ));

test('text has a limit', async () => {
  assert.is(await readText(chunksOf(Buffer.from('abc')), 3, 'x'), 'abc');
  await failsWith('protocol-too-long', () => readText(chunksOf(Buffer.from('abcd')), 3, 'x'));
});

test('senseless servers and timeouts are refused at once', () => {
  for (const server of ['', 'localhost:8740', 'ftp://x', 'http://a:b@x', 'http://x?q=1', 'http://x#f']) {
    assert.throws(
      () => new Http({ server }),
      (error: unknown) => error instanceof TypeError,
      server,
    );
  }
  assert.throws(
    () => new Http({ server: 'http://x', timeouts: { idleMs: 0 } }),
    (error: unknown) => error instanceof RangeError,
  );
});

async function* chunksOf(...chunks: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* chunks;
}

test.run();
