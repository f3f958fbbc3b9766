import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import {
  type AggregationBody,
  type AuthenticatedBody,
  FRAME_HEAD_BYTES,
  FRAMES_TYPE,
  type Notice,
  type RunBody,
  type RunStatus,
  type UploadBody,
} from '../../src/wire/cambium.ts';
import { answer, bodyOf, type Handler, type LoopbackServer, refuse, serve } from './loopback.ts';

export const LEAF_ID = '11111111-1111-4111-8111-111111111111';
export const BRANCH_ID = '22222222-2222-4222-8222-222222222222';
const TOKEN = 'a-token';

/** An id of an aggregation. */
export function aggregationId(n: number): string {
  return `33333333-3333-4333-8333-${String(n).padStart(12, '0')}`;
}

export function sha256Of(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** A `Repr-Digest` of bytes, made another way than the client's. */
export function reprDigestOf(bytes: Uint8Array): string {
  return `sha-256=:${createHash('sha256').update(bytes).digest('base64')}:`;
}

interface Upload {
  readonly bytes: Buffer;
  readonly headers: IncomingMessage['headers'];
  readonly query: string;
}

/**
 * The leaf's side of the wire, as simple as it can be and as faulty as a test wants it: `overrides` answers a path
 * (without prefix) in place of the good answer, as long as it returns true.
 */
export class LeafServer {
  readonly uploads: Upload[] = [];
  /** Uploads in blocks that have begun, by their paths. */
  readonly partials = new Map<string, Upload>();
  /** Lengths of the blocks that came. */
  readonly blocks: number[] = [];
  readonly metrics: unknown[] = [];
  readonly aggregations = new Map<string, Buffer>();
  /** Bytes of the bodies with which links were answered. */
  readonly sent: number[] = [];
  overrides: Record<string, (...args: Parameters<Handler>) => boolean> = {};
  runStatus: RunStatus = 'start';
  runNumber = 1;
  readonly #streams = new Set<ServerResponse>();
  #notices: string[] = [];
  #server!: LoopbackServer; // set by `start`, the only way to make one
  #connected = () => {};

  static async start(): Promise<LeafServer> {
    const leafServer = new LeafServer();
    leafServer.#server = await serve((request, response) => leafServer.#handle(request, response));
    return leafServer;
  }

  get url(): string {
    return this.#server.url;
  }

  /** `METHOD path`, without prefix and query. */
  get requests(): string[] {
    return this.#server.requests.map((line) => line.replace('/cambium/v1', '').replace(/\?.*/, ''));
  }

  get credentials() {
    return { server: this.url, id: LEAF_ID, session_token: TOKEN };
  }

  /** Streams that are open. */
  get listeners(): number {
    return this.#streams.size;
  }

  /** Ends when the next stream is opened. */
  listening(): Promise<void> {
    return new Promise((resolve) => {
      this.#connected = resolve;
    });
  }

  notify(notice: Notice): void {
    const text = `id: ${this.#notices.length + 1}\nevent: ${notice.message_type}\ndata: ${JSON.stringify(notice)}\n\n`;
    this.sendEvent(text);
  }

  /** Sends an event as it is, and remembers it for those who resume. */
  sendEvent(text: string): void {
    this.#notices.push(text);
    for (const stream of this.#streams) stream.write(text);
  }

  announce(id: string): void {
    const body = { aggregation_id: id };
    this.notify({
      message_type: 'aggregation_status',
      body,
      aggregation_id: id,
      run: this.runNumber,
      round: 1,
    });
  }

  setRun(status: RunStatus): void {
    this.runStatus = status;
    this.notify({ message_type: 'run_status', body: { run_status: status }, run: this.runNumber, round: 1 });
  }

  /** Breaks all streams. */
  cut(): void {
    for (const stream of this.#streams) stream.destroy();
  }

  close(): Promise<void> {
    return this.#server.close();
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://x');
    const path = url.pathname.replace('/cambium/v1', '');
    for (const [key, override] of Object.entries(this.overrides)) {
      if (path.startsWith(key) && override(request, response)) return;
    }
    if (path.startsWith('/files/')) return this.#sendFile(path.slice('/files/'.length), request, response);
    if (request.headers.authorization !== `Bearer ${LEAF_ID}:${TOKEN}`) {
      return refuse(response, 401, 'token-invalid');
    }
    if (path === '/leaves/me') {
      return answer(response, 200, {
        leaf_id: LEAF_ID,
        leaf_name: 'north',
        branch_id: BRANCH_ID,
        tree_id: 'tree',
        user_id: 'user',
      } satisfies AuthenticatedBody);
    }
    if (path === `/branches/${BRANCH_ID}/run`) {
      return answer(response, 200, {
        branch_id: BRANCH_ID,
        run_status: this.runStatus,
        run_number: this.runNumber,
        round: 1,
        updates: 0,
        aggregation_target: 2,
        aggregation_id: null,
        given_up_round: null,
        sample: null,
        closes_at: null,
      } satisfies RunBody);
    }
    if (path === `/leaves/${LEAF_ID}/updates`) return this.#receive(request, response, url.search);
    if (path.startsWith('/uploads/')) return this.#receiveBlock(path, request, response);
    if (path === `/leaves/${LEAF_ID}/notices`) return this.#stream(request, response);
    const [, id, metrics] = /^\/aggregations\/([^/]+)(\/metrics)?$/.exec(path) ?? [];
    if (id === undefined) return refuse(response, 404, 'path-unknown');
    const bytes = this.aggregations.get(id);
    if (bytes === undefined) return refuse(response, 404, 'aggregation-unknown');
    if (metrics) {
      this.metrics.push(JSON.parse((await bodyOf(request)).toString()));
      return answer(response, 201, {});
    }
    answer(response, 200, {
      aggregation_id: id,
      branch_id: BRANCH_ID,
      run_number: 1,
      round: 1,
      leaves: 2,
      total_weighting: 7,
      byte_length: bytes.byteLength,
      sha256: sha256Of(bytes),
      created_at: 0,
      download_url: `${this.url}/cambium/v1/files/${id}?signature=secret`,
    } satisfies AggregationBody);
  }

  async #receive(request: IncomingMessage, response: ServerResponse, query: string): Promise<void> {
    if (this.runStatus !== 'start') return refuse(response, 409, 'run-paused');
    if (request.headers['upload-complete'] === '?0') {
      const digest = String(request.headers['repr-digest']);
      const isNamed = request.headers['repr-digest'] !== undefined;
      const known = [...this.partials].find(
        ([, partial]) => !isNamed || partial.headers['repr-digest'] === digest,
      );
      const id = known?.[0] ?? `/uploads/${this.partials.size}`;
      if (known === undefined)
        this.partials.set(id, { bytes: Buffer.alloc(0), headers: request.headers, query });
      const there = this.partials.get(id)?.bytes ?? Buffer.alloc(0);
      response
        .writeHead(201, {
          location: id,
          'upload-complete': '?0',
          'upload-offset': there.byteLength,
          'upload-digest': reprDigestOf(there),
        })
        .end();
      return;
    }
    const bytes = await bodyOf(request);
    this.#take({ bytes, headers: request.headers, query }, response);
  }

  async #receiveBlock(id: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const partial = this.partials.get(id);
    if (partial === undefined) return refuse(response, 404, 'upload-unknown');
    const body = await bodyOf(request);
    const isFramed = request.headers['content-type'] === FRAMES_TYPE;
    const blocks = isFramed ? unframed(body) : [{ block: body, digest: undefined }];
    if (Number(request.headers['upload-offset']) !== partial.bytes.byteLength) {
      return refuse(response, 409, 'upload-offset');
    }
    let { bytes } = partial;
    for (const { block, digest } of blocks) {
      bytes = Buffer.concat([bytes, block]);
      if (digest !== undefined && digest !== sha256Of(bytes)) return refuse(response, 400, 'digest-mismatch');
    }
    if (body.byteLength > 0) this.blocks.push(bytes.byteLength - partial.bytes.byteLength);
    this.partials.set(id, { ...partial, bytes });
    if (request.headers['upload-complete'] === '?1') {
      this.partials.delete(id);
      return this.#take({ ...partial, bytes }, response);
    }
    response.writeHead(204, { 'upload-offset': bytes.byteLength, 'upload-complete': '?0' }).end();
  }

  #take(upload: Upload, response: ServerResponse): void {
    const { bytes } = upload;
    const isDuplicate = this.uploads.some((upload) => upload.bytes.equals(bytes));
    this.uploads.push(upload);
    answer(response, 201, {
      file_id: `file-${this.uploads.length}`,
      run_number: 1,
      round: 1,
      weighting: 3,
      sha256: sha256Of(bytes),
      duplicate: isDuplicate,
    } satisfies UploadBody);
  }

  #stream(request: IncomingMessage, response: ServerResponse): void {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.flushHeaders();
    const after = request.headers['last-event-id'];
    for (const notice of this.#notices.slice(Number(after ?? 0))) response.write(notice);
    this.#streams.add(response);
    response.once('close', () => this.#streams.delete(response));
    this.#connected();
  }

  #sendFile(id: string, request: IncomingMessage, response: ServerResponse): void {
    const bytes = this.aggregations.get(id);
    if (request.headers.authorization !== undefined) refuse(response, 400, 'credentials-sent-to-link');
    else if (bytes === undefined) refuse(response, 404, 'file-unknown');
    else {
      const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
      const isSame = request.headers['if-range'] === `"${sha256Of(bytes)}"`;
      const part = isSame ? bytes.subarray(from) : bytes;
      this.sent.push(part.byteLength);
      response.writeHead(isSame ? 206 : 200, {
        'content-length': part.byteLength,
        'repr-digest': reprDigestOf(bytes),
        ...(isSame && { 'content-range': `bytes ${from}-${bytes.byteLength - 1}/${bytes.byteLength}` }),
      });
      response.end(part);
    }
  }
}

/** Blocks out of their frames, and the digests in front of them. */
function unframed(body: Buffer): readonly { readonly block: Buffer; readonly digest: string }[] {
  const frames = [];
  for (let at = 0; at < body.byteLength; ) {
    const start = at + FRAME_HEAD_BYTES;
    const end = start + body.readUInt32BE(at);
    frames.push({ block: body.subarray(start, end), digest: body.toString('hex', at + 4, start) });
    at = end;
  }
  return frames;
}
