/**
 * A server on a free port with a data directory of its own, whose clock stands still unless a test turns it and whose
 * jobs understand a toy format: JSON of `{ weighting, tensors: [{ dtype, values }] }`. What they are asked to do is what
 * the real ones do, on files, so the server cannot tell.
 */

import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync } from 'node:fs';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AggregationError, FormatError, type NonFiniteElement } from '../../src/errors.ts';
import type {
  AggregateReport,
  AggregateRequest,
  ConvertReport,
  ConvertRequest,
  Examination,
  Jobs,
  MergeReport,
  MergeRequest,
} from '../../src/node/jobs.ts';
import { type RunningServer, type ServerOptions, startServer } from '../../src/server/index.ts';
import { openEngine } from '../../src/server/store/sqlite.ts';
import type { Timers } from '../../src/server/timers.ts';
import { type DType, itemSize } from '../../src/tensor/dtypes.ts';
import {
  type CredentialsBody,
  type ErrorBody,
  type OperatorFile,
  paths,
  type RoundBody,
  type RunBody,
  type RunStatus,
  type UploadBody,
} from '../../src/wire/cambium.ts';

export interface ToyTensor {
  readonly name?: string;
  readonly dtype?: DType;
  readonly values: readonly (number | 'NaN' | 'Infinity')[];
}

/** The bytes of a toy weight file. */
export function toyFile(weighting: unknown, tensors: readonly ToyTensor[] = [{ values: [1, 2] }]): Buffer {
  return Buffer.from(JSON.stringify({ weighting, tensors }));
}

/** The same file, so long that it is one on the server too. */
export function padded(file: Buffer): Buffer {
  return Buffer.concat([file, Buffer.alloc(5000, ' ')]);
}

/** The bytes of a toy difference to the global model. */
export function toyDifference(
  weighting: number,
  tensors: readonly ToyTensor[] = [{ values: [1, 2] }],
): Buffer {
  return Buffer.from(JSON.stringify({ weighting, tensors, difference: true }));
}

/** The bytes of a toy partial sum: its leaves with their weightings, and the weighted sums. */
export function toySum(
  leaves: readonly (readonly [string, number])[],
  tensors?: readonly ToyTensor[],
): Buffer {
  const total = leaves.reduce((sum, [, weighting]) => sum + weighting, 0);
  const { tensors: given } = JSON.parse(String(toyFile(total, tensors))) as Toy;
  return Buffer.from(JSON.stringify({ weighting: total, tensors: given, sum: leaves }));
}

interface Toy {
  readonly weighting: number | 'NaN' | 'Infinity' | null;
  readonly tensors: readonly ToyTensor[];
  /** Of a sum: its leaves. */
  readonly sum?: readonly (readonly [string, number])[];
  readonly difference?: boolean;
}

function readToy(path: string, name: string, bytes: Uint8Array = readFileSync(path)): Toy {
  const text = Buffer.from(bytes).toString('utf8');
  try {
    return JSON.parse(text) as Toy;
  } catch (cause) {
    throw new FormatError('format-unknown', `${name} is no weight file`, { offset: 0 }, { cause });
  }
}

function examineToy(
  path: string,
  name: string,
  bytes = readFileSync(path) as Uint8Array,
  sums = false,
  model?: string,
): Examination {
  const { weighting, tensors, sum, difference = false } = readToy(path, name, bytes);
  if (sum !== undefined && !sums)
    throw new FormatError('weights-partial-sum', `${name}: an exact partial sum`);
  const nonFinite: NonFiniteElement[] = tensors.flatMap(({ values }, tensor) =>
    values.flatMap((value, index) => (Number.isFinite(value) ? [] : [{ tensor, index, leaf: name }])),
  );
  const base = model === undefined || difference ? undefined : readToy(model, model);
  const norm = Math.hypot(
    ...tensors.flatMap(({ values }, t) =>
      values.map((value, i) => Number(value) - Number(base?.tensors[t]?.values[i] ?? 0)),
    ),
  );
  return {
    layout: {
      format: weighting === null ? 'npy' : 'npy-object',
      weighting: weighting === null ? null : Number(weighting),
      weightingType: weighting === null ? null : 'int',
      isDifference: difference,
      byteLength: bytes.byteLength,
      tensors: tensors.map(({ name: tensor = null, dtype = 'float32', values }) => ({
        name: tensor,
        dtype,
        shape: [values.length],
        order: 'C',
        byteOrder: 'little',
        byteOffset: 0,
        byteLength: values.length * itemSize(dtype),
      })),
    },
    nonFinite: nonFinite.slice(0, 8),
    ...(sum && { sum: sum.map(([leaf, weight]) => ({ leaf, weighting: weight })) }),
    norm: Number.isFinite(norm) ? norm : null,
    isDifference: difference || base !== undefined,
  };
}

/** Jobs on toy files, with doors for tests. */
export class ToyJobs implements Jobs {
  /** Every aggregation that was asked for. */
  readonly requests: AggregateRequest[] = [];
  /** And every addition. */
  readonly merges: MergeRequest[] = [];
  /** Awaited before an aggregation begins. */
  gate: Promise<void> = Promise.resolve();
  /** Thrown by the next aggregation. */
  failure: Error | undefined;

  async merge(request: MergeRequest): Promise<MergeReport> {
    this.merges.push(request);
    await this.gate;
    const { failure } = this;
    this.failure = undefined;
    if (failure !== undefined) throw failure;
    const leaves: (readonly [string, number])[] = [];
    let sums: number[][] | undefined;
    for (const { path, bytes, leaf = path, weighting } of request.inputs) {
      const toy = readToy(path, path, bytes);
      const factor = toy.sum === undefined ? weighting! : 1;
      leaves.push(...(toy.sum ?? [[leaf, weighting!] as const]));
      const terms = toy.tensors.map(({ values }) => values.map((value) => factor * Number(value)));
      sums = sums?.map((values, t) => values.map((value, i) => value + terms[t]![i]!)) ?? terms;
    }
    const total = leaves.reduce((sum, [, weighting]) => sum + weighting, 0);
    const bytes =
      request.to === 'sum'
        ? toySum(
            [...leaves].sort(),
            (sums ?? []).map((values) => ({ values })),
          )
        : toyFile(
            total,
            (sums ?? []).map((values) => ({ values: values.map((value) => value / total) })),
          );
    await writeFile(request.output, bytes);
    return {
      output: request.output,
      format: request.to === 'sum' ? 'partial-sum' : 'npy-object',
      leaves: leaves.length,
      ids: leaves.map(([leaf]) => leaf),
      total: String(BigInt(total) << 116n),
      totalWeighting: total,
      tensors: sums?.length ?? 0,
      parameters: 2,
      byteLength: bytes.byteLength,
      residues: request.to === 'sum' ? 0 : null,
      bytesRead: 1,
      seconds: 0.25,
      sha256: createHash('sha256').update(bytes).digest('hex'),
      countsEqually: false,
    };
  }

  async convert({ input, output, format = 'npy-object', weighting }: ConvertRequest): Promise<ConvertReport> {
    const toy = readToy(input, input);
    const bytes = toyFile(weighting === undefined ? toy.weighting : weighting, toy.tensors);
    await writeFile(output, bytes);
    return {
      input,
      output,
      format,
      weighting: weighting ?? null,
      isDifference: false,
      tensors: toy.tensors.length,
      parameters: 2,
      bytesRead: 1,
      seconds: 0.25,
      sha256: createHash('sha256').update(bytes).digest('hex'),
    };
  }

  async examine(
    path: string,
    {
      name = path,
      bytes,
      sums,
      model,
    }: {
      name?: string;
      bytes?: Uint8Array | undefined;
      sums?: boolean;
      model?: string | undefined;
    } = {},
  ): Promise<Examination> {
    return examineToy(path, name, bytes, sums, model);
  }

  async aggregate(request: AggregateRequest): Promise<AggregateReport> {
    this.requests.push(request);
    await this.gate;
    const { failure } = this;
    this.failure = undefined;
    if (failure !== undefined) throw failure;
    const files = request.inputs.map(({ path, bytes }) => readToy(path, path, bytes));
    const total = request.inputs.reduce((sum, { weighting }) => sum + weighting!, 0);
    const first = files[0];
    if (first === undefined) throw new AggregationError('average-no-input', 'nothing to average');
    const tensors = first.tensors.map(({ values }, t) => ({
      values: values.map(
        (_, i) =>
          files.reduce(
            (sum, file, k) => sum + request.inputs[k]!.weighting! * Number(file.tensors[t]!.values[i]),
            0,
          ) / total,
      ),
    }));
    const bytes = toyFile(total, tensors);
    await writeFile(request.output, bytes);
    // A state that counts its rounds.
    if (request.state !== undefined) {
      const before = await readFile(request.state, 'utf8').catch(() => '0');
      await rm(request.state, { force: true });
      await writeFile(request.state, String(Number(before) + 1));
    }
    return {
      output: request.output,
      format: 'npy-object',
      strategy: request.strategy?.name ?? 'mean',
      leaves: files.length,
      countsEqually: false,
      totalWeighting: total,
      tensors: tensors.length,
      parameters: 2,
      bytesRead: 1,
      seconds: 0.25,
      sha256: createHash('sha256').update(bytes).digest('hex'),
    };
  }

  async close() {}
}

/** Time that passes only when a test says so. */
export class ToyTimers implements Timers {
  #now = 0;
  readonly #waiting = new Set<{ at: number; work: () => void }>();

  after(ms: number, work: () => void): () => void {
    const entry = { at: this.#now + ms, work };
    this.#waiting.add(entry);
    return () => this.#waiting.delete(entry);
  }

  /** Lets time pass; everything that is due is done in order. */
  pass(ms: number): void {
    this.#now += ms;
    for (const entry of [...this.#waiting].sort((a, b) => a.at - b.at)) {
      if (entry.at > this.#now || !this.#waiting.delete(entry)) continue;
      entry.work();
    }
  }

  /** Delays of those that wait. */
  get waiting(): number[] {
    return [...this.#waiting].map((entry) => entry.at - this.#now);
  }
}

const QUIET = { level: 'silent' } as const;

/** A logger that says nothing and keeps what it was told. */
export function quietLog() {
  const lines: unknown[] = [];
  const log = (...args: unknown[]) => void lines.push(args);
  const logger = {
    ...QUIET,
    lines,
    info: log,
    error: log,
    warn: log,
    debug() {},
    trace() {},
    fatal: log,
    silent() {},
    child: () => logger,
  };
  return logger;
}

/** An answer, read whole. */
export interface Answer<T> {
  readonly status: number;
  readonly headers: Headers;
  readonly body: T;
}

/** A server for tests, and the calls that they make of it. */
export class Harness {
  readonly jobs = new ToyJobs();
  readonly timers = new ToyTimers();
  readonly log = quietLog();
  readonly dataDir: string;
  now = 1_700_000_000_000;
  server!: RunningServer;
  operator!: OperatorFile;

  constructor(dataDir = mkdtempSync(join(tmpdir(), 'cambium-server-'))) {
    this.dataDir = dataDir;
  }

  async start(options: Partial<ServerOptions> = {}): Promise<this> {
    this.server = await startServer({
      dataDir: this.dataDir,
      port: 0,
      jobs: this.jobs,
      timers: this.timers,
      now: () => this.now,
      version: '1.2.3',
      logger: this.log,
      ...options,
    });
    this.operator = JSON.parse(await readFile(this.server.operatorFile, 'utf8'));
    return this;
  }

  /** Closes the server and removes its data. */
  async end(): Promise<void> {
    await this.server.close();
    await rm(this.dataDir, { recursive: true, force: true });
  }

  async call<T = ErrorBody>(method: string, path: string, init: RequestInit = {}): Promise<Answer<T>> {
    const response = await fetch(new URL(path, this.server.url), { method, redirect: 'error', ...init });
    const text = await response.text();
    const isJson = text !== '' && response.headers.get('content-type')?.startsWith('application/json');
    return {
      status: response.status,
      headers: response.headers,
      body: (isJson ? JSON.parse(text) : text) as T, // what the test expects
    };
  }

  /** A call with the operator's token and a JSON body. */
  operate<T = ErrorBody>(method: string, path: string, body?: unknown): Promise<Answer<T>> {
    return this.call(method, path, {
      headers: {
        authorization: `Bearer ${this.operator.token}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  }

  /** A tree with one branch and leaves `leaf-0` …, its run started. */
  async branch(target: number, leaves = target): Promise<{ id: string; leaves: CredentialsBody[] }> {
    const tree = await this.operate<{ id: string }>('POST', paths.trees(), { name: 'tree' });
    const branch = await this.operate<{ id: string }>('POST', paths.branches(), {
      name: 'branch',
      tree_id: tree.body.id,
      aggregation_target: target,
    });
    const { id } = branch.body;
    const credentials: CredentialsBody[] = [];
    for (let i = 0; i < leaves; i++) {
      const leaf = await this.operate<CredentialsBody>('POST', paths.leaves(), {
        name: `leaf-${i}`,
        branch_id: id,
      });
      credentials.push(leaf.body);
    }
    await this.run(id, 'start');
    return { id, leaves: credentials };
  }

  async run(branchId: string, run_status: RunStatus): Promise<Answer<RunBody>> {
    return this.operate('POST', paths.run(branchId), { run_status });
  }

  /** A round when it is in a state; waits for it. */
  async round(branchId: string, number: number, status: RoundBody['status']): Promise<RoundBody> {
    const url = new URL(paths.watch(branchId), this.server.url);
    const stream = await EventStream.open(url, { authorization: `Bearer ${this.operator.token}` });
    try {
      for (;;) {
        const round = JSON.parse((await stream.event())!.data!) as RoundBody;
        if (round.round === number && round.status === status) return round;
      }
    } finally {
      await stream.close();
    }
  }

  upload<T = UploadBody>(
    leaf: CredentialsBody,
    bytes: Uint8Array,
    headers: Record<string, string> = {},
    query = '',
  ): Promise<Answer<T>> {
    return this.call('PUT', paths.updates(leaf.id) + query, {
      headers: { authorization: leafToken(leaf), ...headers },
      body: bytes as Uint8Array<ArrayBuffer>, // a Buffer, which fetch takes
    });
  }

  /** Names of everything in the spool and in the blob store, and of updates that are so small that the database has them. */
  async stored(): Promise<{ spool: string[]; blobs: string[] }> {
    const blobs: string[] = [];
    for (const shelf of await readdir(join(this.dataDir, 'blobs'))) {
      blobs.push(...(await readdir(join(this.dataDir, 'blobs', shelf))));
    }
    const engine = await openEngine(join(this.dataDir, 'state.db'));
    const held = engine.prepare('select id from updates where bytes is not null').all([]) as { id: string }[];
    engine.close();
    blobs.push(...held.map(({ id }) => id));
    return { spool: await readdir(join(this.dataDir, 'spool')), blobs: blobs.sort() };
  }
}

export function leafToken(leaf: CredentialsBody): string {
  return `Bearer ${leaf.id}:${leaf.session_token}`;
}

/** One server-sent event; comments have none of the fields. */
export interface SentEvent {
  readonly id?: string;
  readonly event?: string;
  readonly data?: string;
}

/** A stream of server-sent events. */
export class EventStream {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly response: Response;
  #text = '';

  private constructor(response: Response) {
    this.response = response;
    this.#reader = response.body!.getReader();
  }

  static async open(url: URL | string, headers: Record<string, string>): Promise<EventStream> {
    return new EventStream(await fetch(url, { headers, redirect: 'error' }));
  }

  /** The next event or comment; undefined at the end. */
  async next(): Promise<SentEvent | undefined> {
    for (;;) {
      const end = this.#text.indexOf('\n\n');
      if (end >= 0) {
        const lines = this.#text.slice(0, end).split('\n');
        this.#text = this.#text.slice(end + 2);
        const fields = lines.filter((line) => !line.startsWith(':')).map((line) => line.split(/: (.*)/s, 2));
        return Object.fromEntries(fields) as SentEvent;
      }
      const { done, value } = await this.#reader.read();
      if (done) return undefined;
      this.#text += Buffer.from(value).toString();
    }
  }

  /** The next that is no comment. */
  async event(): Promise<SentEvent | undefined> {
    for (;;) {
      const next = await this.next();
      if (next === undefined || next.event !== undefined) return next;
    }
  }

  async close(): Promise<void> {
    await this.#reader.cancel();
  }
}
