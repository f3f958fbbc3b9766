import { type CambiumError, FormatError, ProtocolError, UnavailableError } from '../errors.ts';
import { openWeights } from '../formats/open.ts';
import { memorySink, memorySource } from '../tensor/bytes.ts';
import type { Layout } from '../tensor/layout.ts';
import { type Http, type HttpAnswer, readJson } from '../transport/http.ts';
import { TransientFailure, withRetries } from '../transport/retry.ts';
import { type AggregationBody, paths } from '../wire/cambium.ts';
import { readAggregation } from './answers.ts';
import { digestOfBytes, readBlocks, readReprDigest } from './digest.ts';
import type { FileAccess, PartialSink, Sha256 } from './file-access.ts';
import type { TransferOptions } from './options.ts';

/** An aggregation that arrived whole: length and digest are right, and it parses. */
export interface Download {
  readonly aggregationId: string;
  /** Null, as are the next three, where the server's generation does not tell. */
  readonly run: number | null;
  readonly round: number | null;
  /** Updates that went into it. */
  readonly leaves: number | null;
  readonly totalWeighting: number | null;
  readonly byteLength: number;
  /** Lower-case hexadecimal. */
  readonly sha256: string;
  /** Names, types, shapes and positions of the tensors. */
  readonly layout: Layout;
}

export interface DownloadedBytes extends Download {
  readonly bytes: Uint8Array;
}

export interface DownloadedFile extends Download {
  readonly path: string;
}

/** Downloads into memory. Throws as `downloadInto`; UnavailableError `unavailable-memory`. */
export async function downloadBytes(
  http: Http,
  aggregationId: string,
  files: FileAccess | undefined,
  options: TransferOptions,
): Promise<DownloadedBytes> {
  let bytes: Uint8Array = new Uint8Array(0);
  const open = ({ byte_length: byteLength }: AggregationBody): PartialSink => {
    try {
      const sink = memorySink(byteLength);
      bytes = sink.bytes;
      return { ...sink, readInto: memorySource(bytes).readInto, bytesThere: 0, keep() {} };
    } catch (cause) {
      throw new UnavailableError('unavailable-memory', `no memory for a download of ${byteLength} bytes`, {
        cause,
      });
    }
  };
  const download = await downloadInto(http, aggregationId, open, files, options, () => digestOfBytes(bytes));
  return { ...download, bytes };
}

/**
 * Downloads into a file, which appears complete and checked or not at all. What an attempt of this or an earlier process
 * left is gone on with. Throws as `downloadInto`; FileError.
 */
export async function downloadFile(
  http: Http,
  aggregationId: string,
  path: string,
  files: FileAccess,
  options: TransferOptions,
): Promise<DownloadedFile> {
  const open = ({ sha256 }: AggregationBody) => files.openPartialSink(path, sha256);
  return { ...(await downloadInto(http, aggregationId, open, files, options)), path };
}

/**
 * @throws RefusedError; UnavailableError; ProtocolError `protocol-digest`, `protocol-length`; FormatError when the bytes
 *   are no weights. The old file is untouched then, and of a large download what arrived is kept for the next call.
 */
async function downloadInto(
  http: Http,
  aggregationId: string,
  openSink: (aggregation: AggregationBody) => PartialSink | Promise<PartialSink>,
  files: FileAccess | undefined,
  options: TransferOptions,
  digestAtEnd?: () => Promise<string>,
): Promise<Download> {
  const { signal } = options;
  let receiver: Receiver | undefined;
  try {
    const aggregation = await withRetries(
      http.policy,
      signal,
      async () => {
        // Asked for again with each attempt: the link in it lives for minutes only.
        const body = readAggregation(
          await readJson(
            await http.open({ method: 'GET', target: paths.aggregation(aggregationId), signal }),
          ),
        );
        receiver ??= await Receiver.open(await openSink(body), body.byte_length, files, options);
        await receive(http, body, receiver, options, digestAtEnd);
        return body;
      },
      () => receiver?.reached ?? 0,
    );
    if (receiver === undefined) throw new TypeError('nothing was received');
    const { sink } = receiver;
    const { layout } = await openWeights({
      name: `aggregation ${aggregationId}`,
      byteLength: aggregation.byte_length,
      readInto: sink.readInto.bind(sink),
      close() {},
    });
    signal?.throwIfAborted();
    await sink.commit();
    return {
      aggregationId,
      run: aggregation.run_number,
      round: aggregation.round,
      leaves: aggregation.leaves,
      totalWeighting: aggregation.total_weighting,
      byteLength: aggregation.byte_length,
      sha256: aggregation.sha256,
      layout,
    };
  } catch (error) {
    // What is wrong, or not worth a file that lies about, goes; what is merely not all stays.
    const isWorthIt = receiver !== undefined && receiver.bytesDone >= MIN_KEPT_BYTES && !isSpoiled(error);
    if (isWorthIt) await receiver?.sink.keep(receiver.bytesDone);
    else await receiver?.sink.discard();
    throw error;
  }
}

/** Less than this is not kept between calls: it comes again in no time. */
const MIN_KEPT_BYTES = 1 << 20;

function isSpoiled(error: unknown): boolean {
  return error instanceof ProtocolError || error instanceof FormatError;
}

/** Files are written in pieces of this size: one write for each packet would take longer than the line. */
const WRITE_BYTES = 1 << 20;

/** What has arrived: bytes in a sink, counted, and digested on the way where the host can. */
class Receiver {
  readonly sink: PartialSink;
  bytesDone = 0;
  /** The most that was ever there. */
  reached = 0;
  /** Whole downloads that had another digest than they should. */
  spoiled = 0;
  readonly #byteLength: number;
  readonly #files: FileAccess | undefined;
  readonly #onProgress: TransferOptions['onProgress'];
  #hash: Sha256 | undefined;
  /** Bytes that arrived and are not written, and the array of the write that is under way. */
  #gathering: Uint8Array;
  #gathered = 0;
  #spare: Uint8Array;
  #writing: Promise<void> = Promise.resolve();

  private constructor(
    sink: PartialSink,
    byteLength: number,
    files: FileAccess | undefined,
    { onProgress }: TransferOptions,
  ) {
    this.sink = sink;
    this.#byteLength = byteLength;
    this.#files = files;
    this.#onProgress = onProgress;
    const size = files === undefined ? 0 : WRITE_BYTES;
    this.#gathering = new Uint8Array(size);
    this.#spare = new Uint8Array(size);
    this.restart();
  }

  /** @param sink whose bytes, if it has any, are taken to be the beginning; the digest of the whole tells */
  static async open(
    sink: PartialSink,
    byteLength: number,
    files: FileAccess | undefined,
    options: TransferOptions,
  ): Promise<Receiver> {
    const receiver = new Receiver(sink, byteLength, files, options);
    const there = sink.bytesThere;
    if (there === 0 || there > byteLength || receiver.#hash === undefined) return receiver;
    const { readInto } = sink;
    for await (const block of readBlocks({ name: 'partial', byteLength: there, readInto, close() {} })) {
      options.signal?.throwIfAborted();
      receiver.#hash.update(block);
    }
    receiver.bytesDone = there;
    receiver.reached = there;
    return receiver;
  }

  restart(): void {
    this.bytesDone = 0;
    this.#gathered = 0;
    this.#hash = this.#files?.sha256();
  }

  async add(bytes: Uint8Array): Promise<void> {
    this.#hash?.update(bytes);
    // In memory, to its place at once; files get few large writes, each while the next is gathered.
    if (this.#files === undefined) await this.sink.write(this.bytesDone, bytes);
    for (let at = 0; at < bytes.byteLength && this.#files !== undefined; ) {
      const part = bytes.subarray(at, at + WRITE_BYTES - this.#gathered);
      this.#gathering.set(part, this.#gathered);
      this.#gathered += part.byteLength;
      at += part.byteLength;
      if (this.#gathered === WRITE_BYTES) await this.#write(this.bytesDone + at);
    }
    this.bytesDone += bytes.byteLength;
    this.reached = Math.max(this.reached, this.bytesDone);
    this.report();
  }

  /** When this ends all that was added is written. Throws what writing throws. */
  async settle(): Promise<void> {
    if (this.#gathered > 0) await this.#write(this.bytesDone);
    await this.#writing;
  }

  /** Writes what is gathered, which ends at `end`; waits only for the write before. */
  async #write(end: number): Promise<void> {
    await this.#writing;
    const bytes = this.#gathering.subarray(0, this.#gathered);
    [this.#gathering, this.#spare] = [this.#spare, this.#gathering];
    this.#gathered = 0;
    this.#writing = Promise.resolve(this.sink.write(end - bytes.byteLength, bytes));
    this.#writing.catch(() => {}); // heard by the next write, or in the end
  }

  report(): void {
    this.#onProgress?.({ bytesDone: this.bytesDone, bytesTotal: this.#byteLength });
  }

  /** Of all bytes; undefined where the host digests only wholes. */
  digest(): string | undefined {
    return this.#hash?.digest();
  }
}

/** One attempt: what is missing, counted and digested on the way. */
async function receive(
  http: Http,
  { byte_length: byteLength, sha256, download_url: url }: AggregationBody,
  receiver: Receiver,
  { signal }: TransferOptions,
  digestAtEnd: (() => Promise<string>) | undefined,
): Promise<void> {
  if (!/^https?:\/\//i.test(url)) {
    throw new ProtocolError('protocol-shape', 'the link to the aggregation is no absolute http(s) URL');
  }
  receiver.report();
  let where = 'what was received';
  let header: string | undefined;
  if (receiver.bytesDone < byteLength) {
    const from = receiver.bytesDone;
    const answer = await http.open({
      method: 'GET',
      target: url,
      headers: {
        accept: '*/*',
        // Only of the very same file: of another one, the whole is sent.
        ...(from > 0 && { range: `bytes=${from}-`, 'if-range': `"${sha256}"` }),
      },
      signal,
    });
    where = answer.where;
    header = readReprDigest(answer.headers.get('repr-digest'));
    try {
      await receiveBody(answer, receiver, byteLength);
    } finally {
      answer.close();
    }
  }
  const actual = receiver.digest() ?? (await digestAtEnd?.());
  if (actual === sha256 && (header === undefined || header === sha256)) return;
  receiver.restart();
  const mismatch = new ProtocolError(
    'protocol-digest',
    `${where}: the bytes have the SHA-256 ${actual}, the aggregation ${sha256}${header === undefined || header === sha256 ? '' : `, its file ${header}`}`,
  );
  // A line that changes bytes may leave them alone the next time; a server that has others will have them again.
  if (receiver.spoiled++ === 0) throw new TransientFailure(mismatch);
  throw mismatch;
}

async function receiveBody(answer: HttpAnswer, receiver: Receiver, byteLength: number): Promise<void> {
  const from = receiver.bytesDone;
  if (answer.status !== 206) receiver.restart();
  else if (!answer.headers.get('content-range')?.startsWith(`bytes ${from}-`)) {
    throw new ProtocolError('protocol-range', `${answer.where}: sent another range than from byte ${from}`);
  }
  const announced = answer.headers.get('content-length');
  // A length that fetch has already turned into another by decompressing says nothing.
  if (
    announced !== null &&
    !answer.headers.has('content-encoding') &&
    Number(announced) !== byteLength - receiver.bytesDone
  ) {
    throw wrongLength(answer.where, announced, byteLength - receiver.bytesDone);
  }
  try {
    for await (const chunk of answer.chunks()) {
      if (receiver.bytesDone + chunk.byteLength > byteLength)
        throw wrongLength(answer.where, 'more', byteLength);
      await receiver.add(chunk);
    }
  } finally {
    await receiver.settle();
  }
  // Something between cut the body in a clean way; the next attempt gets the rest.
  if (receiver.bytesDone < byteLength) {
    throw new TransientFailure(wrongLength(answer.where, receiver.bytesDone, byteLength));
  }
}

function wrongLength(where: string, actual: number | string, expected: number): CambiumError {
  return new ProtocolError(
    'protocol-length',
    `${where}: ${actual} bytes came, the aggregation has ${expected}`,
  );
}
