/**
 * A fetch for bodies that are files, over node:http and node:https. Node's own moves each byte of an answer three times, into new
 * memory each time, in pieces of 64 KiB, and that costs more than the line: here an answer of known length over plain HTTP is
 * read into the same memory again and again, and a body that is sent leaves the memory of its sender.
 *
 * What a chunk of an answer holds is good until the next one is asked for, and the next chunk of a body is asked for only
 * when the one before has left. Anything that is not plain, a redirect or a compressed answer, is given to the fetch beside.
 */
import http, { type ClientRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import https from 'node:https';
import { connect, type Socket } from 'node:net';
import type { ConnectionOptions } from 'node:tls';
import { type Clock, systemClock } from '../transport/clock.ts';
import type { OwnFetch } from './network.ts';

/** Read at once: more would fall out of the processor's cache before it is digested. */
const READ_BYTES = 256 << 10;

/** Statuses whose answers have no body, by the letter of fetch. */
const WITHOUT_BODY: ReadonlySet<number> = new Set([204, 205, 304]);

export interface FileFetchOptions {
  /** For what is not plain, and for nothing else. */
  readonly otherwise: typeof globalThis.fetch;
  /** How certificates are checked and which one is shown; asked with each request. */
  readonly tls: () => Pick<ConnectionOptions, 'ca' | 'cert' | 'key' | 'rejectUnauthorized'>;
  /** Until a connection stands, in milliseconds. */
  readonly connectMs: number;
  /** For tests: how that is waited for. */
  readonly after?: Clock['after'] | undefined;
}

/** @returns a fetch that takes what ours asks for: a `Request` or URL, and a signal beside it */
export function fileFetch(options: FileFetchOptions): OwnFetch {
  const agents = { http: new http.Agent({ keepAlive: true }), https: new https.Agent({ keepAlive: true }) };
  const go: typeof globalThis.fetch = async (input, init) => {
    const request = input instanceof Request ? input : new Request(input, init);
    const signal = init?.signal ?? undefined;
    const isSecure = request.url.startsWith('https:');
    const settings: RequestOptions = {
      method: request.method,
      headers: { accept: '*/*', ...Object.fromEntries(request.headers) },
      ...(signal !== undefined && { signal }),
    };
    if (request.body !== null) return send(request, isSecure, { ...settings, agents, ...options });
    const tap = new Tap(options);
    const outgoing = isSecure
      ? https.request(request.url, { ...settings, ...options.tls(), agent: agents.https })
      : http.request(request.url, { ...settings, createConnection: (to) => tap.open(to) });
    if (isSecure) limitConnecting(outgoing, 'secureConnect', options);
    outgoing.end();
    const incoming = await answerTo(outgoing);
    const { statusCode: status = 0, headers } = incoming;
    const isRedirect = status >= 300 && status < 400 && request.redirect !== 'manual';
    if (isRedirect || headers['content-encoding'] !== undefined) {
      outgoing.destroy();
      return options.otherwise(input, init);
    }
    const length = lengthOf(incoming);
    return responseOf(
      incoming,
      isSecure || length === undefined ? bodyOf(incoming) : tap.bodyOf(incoming, length),
    );
  };
  const close = async () => {
    for (const agent of [agents.http, agents.https]) agent.destroy();
  };
  return Object.assign(go, { close });
}

interface SendOptions extends RequestOptions, FileFetchOptions {
  readonly agents: { readonly http: http.Agent; readonly https: https.Agent };
}

/** Sends a body, each chunk when the one before has left, and hands over the answer as soon as it begins. */
async function send(
  request: Request,
  isSecure: boolean,
  { agents, tls, connectMs, after, otherwise: _, ...settings }: SendOptions,
): Promise<Response> {
  const outgoing = isSecure
    ? https.request(request.url, { ...settings, ...tls(), agent: agents.https })
    : http.request(request.url, { ...settings, agent: agents.http });
  limitConnecting(outgoing, isSecure ? 'secureConnect' : 'connect', { connectMs, after });
  let isAnswered = false;
  const answered = answerTo(outgoing);
  const reader = request.body!.getReader(); // told by the caller
  const pump = async () => {
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        await new Promise<void>((resolve, reject) => {
          outgoing.write(value, (error) => (error ? reject(error) : resolve()));
        });
      }
      outgoing.end();
    } catch (error) {
      await reader.cancel(error).catch(() => {});
      // What was answered to the part that went out can still be read.
      if (!isAnswered) outgoing.destroy(error as Error);
    }
  };
  void pump();
  const incoming = await answered;
  isAnswered = true;
  if (request.redirect === 'error' && [301, 302, 303, 307, 308].includes(incoming.statusCode ?? 0)) {
    outgoing.destroy();
    throw new TypeError('unexpected redirect');
  }
  // Nobody will read the rest of a body that was answered before its end.
  incoming.once('end', () => {
    if (!outgoing.writableEnded) outgoing.destroy();
  });
  return responseOf(incoming, bodyOf(incoming));
}

/** The beginning of the answer. Rejects with what the connection says. */
function answerTo(outgoing: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    outgoing.once('response', resolve);
    // It stays: a connection that breaks later is told by the body.
    outgoing.on('error', reject);
  });
}

type Limit = Pick<FileFetchOptions, 'connectMs' | 'after'>;

/** What has to happen for a connection to stand. */
type Connected = 'connect' | 'secureConnect';

function limitConnecting(outgoing: ClientRequest, event: Connected, limit: Limit): void {
  outgoing.once('socket', (socket) => {
    if (!outgoing.reusedSocket) limitSocket(socket, event, limit);
  });
}

function limitSocket(
  socket: Socket,
  event: Connected,
  { connectMs, after = systemClock.after }: Limit,
): void {
  const stop = after(connectMs, () => {
    socket.destroy(Object.assign(new Error(`no connection in ${connectMs} ms`), { code: 'ETIMEDOUT' }));
  });
  socket.once(event, stop).once('close', stop);
}

/** How long a body is that comes as it is; undefined where something else decides. */
function lengthOf({ statusCode, headers }: IncomingMessage): number | undefined {
  if (statusCode !== 200 && statusCode !== 206) return undefined;
  if (headers['transfer-encoding'] !== undefined) return undefined;
  const length = headers['content-length'] ?? '';
  return /^\d{1,15}$/.test(length) ? Number(length) : undefined;
}

function responseOf(incoming: IncomingMessage, body: ReadableStream<Uint8Array>): Response {
  const { statusCode: status = 0, headers: told } = incoming;
  const headers = new Headers();
  for (const [name, value] of Object.entries(told)) {
    for (const each of [value ?? []].flat()) headers.append(name, each);
  }
  if (!WITHOUT_BODY.has(status)) return new Response(body, { status, headers });
  incoming.resume();
  return new Response(null, { status, headers });
}

/** A body as Node reads it. */
function bodyOf(incoming: IncomingMessage): ReadableStream<Uint8Array> {
  let isOver = false;
  const once = (work: () => void) => {
    if (!isOver) work();
    isOver = true;
  };
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        incoming.on('data', (chunk: Uint8Array) => {
          incoming.pause();
          controller.enqueue(chunk);
        });
        incoming.once('end', () => once(() => controller.close()));
        incoming.on('error', (error) => once(() => controller.error(error)));
        incoming.pause();
      },
      pull() {
        incoming.resume();
      },
      cancel() {
        once(() => incoming.destroy());
      },
    },
    { highWaterMark: 0 },
  );
}

/**
 * A connection whose answer Node's parser reads up to its head; a body of known length then passes it by: the parser
 * would copy each piece into memory of its own.
 */
class Tap {
  readonly #limit: Limit;
  readonly #memory = Buffer.allocUnsafeSlow(READ_BYTES);
  #socket!: Socket; // made by `open`, which is called before an answer can come
  #take: ((bytes: Uint8Array) => void) | undefined;

  constructor(limit: Limit) {
    this.#limit = limit;
  }

  open({ host, port }: http.ClientRequestArgs): Socket {
    const callback = (length: number) => {
      const bytes = this.#memory.subarray(0, length);
      if (this.#take === undefined) {
        // A copy: what of it belongs to the body is read later.
        this.#socket.emit('data', Buffer.from(bytes));
        return this.#take === undefined;
      }
      this.#take(bytes);
      // Nothing more until it is asked for: the next bytes come into the same memory.
      return false;
    };
    this.#socket = connect({
      host: host ?? 'localhost',
      port: Number(port ?? 80),
      onread: { buffer: this.#memory, callback },
    });
    limitSocket(this.#socket, 'connect', this.#limit);
    return this.#socket;
  }

  /** Must be called when the answer has begun, before the event loop goes on. */
  bodyOf(incoming: IncomingMessage, length: number): ReadableStream<Uint8Array> {
    const socket = this.#socket;
    let missing = length;
    let isOver = false;
    let wake = () => {};
    const end = () => {
      isOver = true;
      socket.destroy();
      wake();
    };
    return new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          const take = (bytes: Uint8Array) => {
            if (isOver) return;
            const part = bytes.byteLength > missing ? bytes.subarray(0, missing) : bytes;
            missing -= part.byteLength;
            controller.enqueue(part);
            wake();
            if (missing > 0) return;
            controller.close();
            end();
          };
          const fail = (error: Error) => {
            if (isOver) return;
            controller.error(error);
            end();
          };
          this.#take = take;
          // What came together with the head.
          incoming.on('data', take).once('error', fail);
          if (length === 0) {
            controller.close();
            end();
          }
        },
        pull: () =>
          new Promise<void>((resolve) => {
            wake = resolve;
            socket.resume();
          }),
        cancel: end,
      },
      { highWaterMark: 0 },
    );
  }
}
