/** Files travel by node:http with the same bytes, the same errors and the same ends as by fetch, and in little memory. */
import { createServer as createHttps } from 'node:https';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { gzipSync } from 'node:zlib';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type FileFetchOptions, fileFetch } from '../../src/node/file-fetch.ts';
import { makeCertificate } from '../helpers/certificate.ts';
import { ManualClock } from '../helpers/clock.ts';
import { bodyOf, type Handler, serve } from '../helpers/loopback.ts';
import { Random, testSeed } from '../helpers/random.ts';

const test = suite('file fetch');
const MiB = 1 << 20;
const random = new Random(testSeed());
const file = Buffer.from(Uint8Array.from({ length: 3 * MiB + 12_345 }, () => random.integer(0, 255)));

/** With what it gave to the other fetch. */
function lane(options: Partial<FileFetchOptions> = {}) {
  const others: string[] = [];
  const otherwise: typeof fetch = (input, init) => {
    others.push(new URL(input instanceof Request ? input.url : input).pathname);
    return fetch(input, init);
  };
  return { others, go: fileFetch({ otherwise, tls: () => ({}), connectMs: 10_000, ...options }) };
}

/** Every chunk copied when it comes, as it is only good until the next. */
async function read(response: Response) {
  const buffers = new Set<ArrayBufferLike>();
  const chunks: Buffer[] = [];
  const reader = response.body!.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return { bytes: Buffer.concat(chunks), buffers };
    buffers.add(value.buffer);
    chunks.push(Buffer.from(value));
  }
}

const causeOf = (error: unknown) => (error as NodeJS.ErrnoException).code ?? (error as Error).message;

const answers: Record<string, Handler> = {
  '/whole': (_, response) => void response.writeHead(200, { 'content-length': file.length }).end(file),
  '/range': (_, response) =>
    void response
      .writeHead(206, { 'content-length': 100, 'content-range': 'bytes 0-99/200' })
      .end(file.subarray(0, 100)),
  '/pieces': (_, response) => {
    response.writeHead(200, { 'content-length': file.length });
    const next = (at: number): void => {
      if (at >= file.length) return void response.end();
      response.write(file.subarray(at, at + 77_777), () => setImmediate(next, at + 77_777));
    };
    next(0);
  },
  '/chunked': (_, response) => {
    response.write(file.subarray(0, MiB));
    response.end(file.subarray(MiB));
  },
  '/empty': (_, response) => void response.writeHead(200, { 'content-length': 0 }).end(),
  '/nothing': (_, response) => void response.writeHead(204).end(),
  '/missing': (_, response) => void response.writeHead(404, { 'x-why': ['a', 'b'] }).end('gone'),
  '/packed': (_, response) =>
    void response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(file)),
  '/moved': (_, response) => void response.writeHead(302, { location: '/whole' }).end(),
  '/cut': (_, response) => {
    response.writeHead(200, { 'content-length': file.length });
    response.write(file.subarray(0, MiB), () => response.destroy());
  },
  '/sent': async (request, response) => {
    const body = await bodyOf(request);
    response.end(`${request.method} ${request.headers['content-length']} ${body.equals(file)}`);
  },
  '/refused': (request, response) => {
    response.writeHead(413, { connection: 'close' }).end('too large');
    request.resume();
  },
};
const handler: Handler = (request, response) => answers[request.url!]!(request, response);

test('an answer of known length comes whole, in the same memory again and again', async () => {
  const server = await serve(handler);
  const { go, others } = lane();
  for (const path of ['/whole', '/pieces']) {
    const response = await go(server.url + path);
    assert.is(response.status, 200);
    const { bytes, buffers } = await read(response);
    assert.ok(bytes.equals(file), path);
    // What came with the head, and the rest.
    assert.ok(buffers.size <= 2, `${path}: ${buffers.size} pieces of memory`);
  }
  assert.equal(others, []);
  await server.close();
});

test('answers of every kind are those of fetch', async () => {
  const server = await serve(handler);
  const { go, others } = lane();
  for (const path of ['/range', '/chunked', '/empty', '/nothing', '/missing', '/packed', '/moved']) {
    const [ours, theirs] = await Promise.all([go(server.url + path), fetch(server.url + path)]);
    assert.is(ours.status, theirs.status, path);
    for (const name of ['content-length', 'content-range', 'x-why', 'content-encoding']) {
      assert.is(ours.headers.get(name), theirs.headers.get(name), `${path} ${name}`);
    }
    assert.ok(Buffer.from(await ours.arrayBuffer()).equals(Buffer.from(await theirs.arrayBuffer())), path);
  }
  assert.equal(others, ['/packed', '/moved']);
  const manual = await go(new Request(`${server.url}/moved`, { redirect: 'manual' }));
  assert.is(manual.status, 302);
  await manual.body?.cancel();
  await server.close();
});

test('a connection that breaks says so, in the middle of a body and before it', async () => {
  const server = await serve(handler);
  const { go } = lane();
  const response = await go(`${server.url}/cut`);
  assert.is(await read(response).catch(causeOf), 'ECONNRESET');
  await server.close();
  assert.is(await go(`${server.url}/whole`).catch(causeOf), 'ECONNREFUSED');
});

test('an end by the caller closes the connection, whatever its state', async () => {
  let closed = () => {};
  const server = await serve((request, response) => {
    request.socket.once('close', () => closed());
    if (request.url === '/silent') return;
    response.writeHead(200, { 'content-length': file.length });
    response.write(file.subarray(0, 1000));
  });
  const { go } = lane();
  for (const end of ['abort', 'cancel', 'silent'] as const) {
    const isClosed = new Promise<void>((resolve) => {
      closed = resolve;
    });
    const controller = new AbortController();
    const { signal } = controller;
    if (end === 'silent') {
      const waiting = go(`${server.url}/silent`, { signal });
      setImmediate(() => controller.abort());
      assert.is(
        await waiting.then(
          () => 'answered',
          () => 'ended',
        ),
        'ended',
      );
      // Nothing may have been sent by then.
      continue;
    }
    const reader = (await go(`${server.url}/`, { signal })).body!.getReader();
    assert.is((await reader.read()).value?.byteLength, 1000);
    if (end === 'cancel') await reader.cancel();
    else {
      const next = reader.read();
      controller.abort();
      assert.is(
        await next.then(
          () => 'more',
          () => 'ended',
        ),
        'ended',
      );
    }
    await isClosed;
  }
  await server.close();
});

/** A body whose chunks all lie in the same memory, which is filled anew for each. */
function bodyFrom(bytes: Uint8Array, failsAt = Number.POSITIVE_INFINITY): ReadableStream<Uint8Array> {
  const memory = new Uint8Array(100_000);
  let at = 0;
  return new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        if (at > failsAt) throw new Error('the disk is gone');
        const part = bytes.subarray(at, at + memory.byteLength);
        memory.set(part);
        at += part.byteLength;
        controller.enqueue(memory.subarray(0, part.byteLength));
        if (at === bytes.byteLength) controller.close();
      },
    },
    { highWaterMark: 0 },
  );
}

const patch = (url: string, body: ReadableStream<Uint8Array>) =>
  new Request(url, {
    ...{ method: 'PATCH', body, redirect: 'error', headers: { 'content-length': String(file.length) } },
    ...({ duplex: 'half' } as object), // asked for by Node, and in nobody's types
  });

test('a body is sent chunk by chunk, each gone before the next is asked for, over a connection that stays', async () => {
  const sockets = new Set<Socket>();
  const server = await serve((request, response) => {
    sockets.add(request.socket);
    return handler(request, response);
  });
  const { go } = lane();
  for (let i = 0; i < 2; i++) {
    const response = await go(patch(`${server.url}/sent`, bodyFrom(file)));
    assert.is(await response.text(), `PATCH ${file.length} true`);
  }
  assert.is(sockets.size, 1);
  const refused = await go(patch(`${server.url}/refused`, bodyFrom(file)));
  assert.is(refused.status, 413);
  assert.is(await refused.text(), 'too large');
  assert.is(await go(patch(`${server.url}/sent`, bodyFrom(file, MiB))).catch(causeOf), 'the disk is gone');
  assert.is(await go(patch(`${server.url}/moved`, bodyFrom(file))).catch(causeOf), 'unexpected redirect');
  await server.close();
});

test('both ways by TLS, to those who are believed only', async () => {
  const certificate = makeCertificate();
  if (certificate === undefined) return;
  const { cert, key } = certificate;
  const server = createHttps({ cert, key }, (request, response) => void handler(request, response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const { go } = lane({ tls: () => ({ ca: [cert] }) });
  assert.ok((await read(await go(`${url}/whole`))).bytes.equals(file));
  const sent = await go(patch(`${url}/sent`, bodyFrom(file)));
  assert.is(await sent.text(), `PATCH ${file.length} true`);
  for (const request of [`${url}/whole`, patch(`${url}/sent`, bodyFrom(file))]) {
    assert.match(String(await lane().go(request).catch(causeOf)), /SELF_SIGNED/);
  }
  server.closeAllConnections();
  server.close();
});

test('a connection that does not come to stand is given up after its time, and one that stands is not', async () => {
  const server = await serve(handler);
  // Takes connections and says nothing: no TLS comes of it.
  const sockets = new Set<Socket>();
  const silent = createServer((socket) => sockets.add(socket.on('error', () => {})));
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  const url = `https://127.0.0.1:${(silent.address() as AddressInfo).port}`;
  const clock = new ManualClock();
  const { go } = lane({ connectMs: 7000, after: clock.after.bind(clock) });
  for (const request of [`${url}/whole`, patch(`${url}/sent`, bodyFrom(file))]) {
    const begun = clock.delays.length;
    const waiting = go(request).catch(causeOf);
    await clock.asked(begun + 1);
    clock.pass(6999);
    assert.is(
      await Promise.race([waiting, new Promise((resolve) => setImmediate(resolve, 'waits'))]),
      'waits',
    );
    clock.pass(1);
    assert.is(await waiting, 'ETIMEDOUT');
  }
  for (const request of [`${server.url}/whole`, patch(`${server.url}/sent`, bodyFrom(file))]) {
    assert.is((await go(request)).status, 200);
  }
  assert.is(clock.waiting, 0);
  assert.equal(new Set(clock.delays), new Set([7000]));
  for (const socket of sockets) socket.destroy();
  silent.close();
  await server.close();
});

test.run();
