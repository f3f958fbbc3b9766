import { type CambiumError, FileError, FormatError, ProtocolError, UnavailableError } from '../errors.ts';
import { openWeights } from '../formats/open.ts';
import { memorySink, memorySource } from '../tensor/bytes.ts';
import type { Layout } from '../tensor/layout.ts';
import { type HttpAnswer, readJson } from '../transport/answer.ts';
import type { Http } from '../transport/http.ts';
import { TransientFailure, withRetries } from '../transport/retry.ts';
import { type AggregationBody, paths } from '../wire/cambium.ts';
import { readAggregation } from './answers.ts';
import { type Generation, requiredFormat } from './dialect.ts';
import { digestOfBytes, readReprDigest } from './digest.ts';
import type { FileAccess, PartialSink } from './file-access.ts';
import type { DownloadOptions, TransferOptions } from './options.ts';
import { Receiver, type ReceiverOptions } from './receiver.ts';

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

/**
 * Where a download goes; undefined: into memory. Names of files are made of ids that nothing can be hidden in.
 *
 * @throws TypeError for both a file and a folder, and for an id that cannot be a name
 */
export function placeOf(
  aggregationId: string,
  { to, folder, format }: Pick<DownloadOptions, 'to' | 'folder' | 'format'>,
  generation: Generation,
): string | undefined {
  if (folder === undefined) return to;
  if (to !== undefined)
    throw new TypeError('a download goes to a file or into a folder: give one of "to" and "folder"');
  // Ids of other services are what they like to send.
  const name = aggregationId.replace(/[^\w.-]/g, (character) => encodeURIComponent(character));
  if (/^\.*$/.test(name) || name.length > MAX_NAME) {
    throw new TypeError(`${JSON.stringify(aggregationId)} cannot be the name of a file: give "to"`);
  }
  const slash = /[/\\]$/.test(folder) ? '' : '/';
  return `${folder}${slash}${name}.${format ?? (requiredFormat(generation) === 'npz' ? 'npz' : 'npy')}`;
}

/** File systems take names of 255 bytes; some are for the ending and for what a partial file is called. */
const MAX_NAME = 160;

/** Downloads into memory. Throws as `downloadInto`; UnavailableError `unavailable-memory`. */
export async function downloadBytes(
  http: Http,
  aggregationId: string,
  files: FileAccess | undefined,
  options: FetchOptions,
): Promise<DownloadedBytes> {
  let bytes: Uint8Array = new Uint8Array(0);
  const open = ({ byte_length: byteLength }: AggregationBody): Opened => {
    try {
      const sink = memorySink(byteLength);
      bytes = sink.bytes;
      const { readInto } = memorySource(bytes);
      return {
        sink: { ...sink, readInto, bytesThere: 0, keep() {} },
        startHash: files && (() => files.sha256()),
        gathers: false,
      };
    } catch (cause) {
      throw new UnavailableError('unavailable-memory', `no memory for a download of ${byteLength} bytes`, {
        cause,
      });
    }
  };
  const download = await downloadInto(http, aggregationId, open, options, () => digestOfBytes(bytes));
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
  options: FetchOptions,
): Promise<DownloadedFile> {
  const open = async ({ sha256 }: AggregationBody): Promise<Opened> => ({
    sink: await files.openPartialSink(path, sha256),
    startHash: () => files.sha256(),
    gathers: true,
  });
  return { ...(await downloadInto(http, aggregationId, open, options)), path };
}

/** What is fetched, and how. */
type FetchOptions = TransferOptions & Pick<DownloadOptions, 'format'>;

/** Where a download goes, and how it gets there. */
interface Opened extends ReceiverOptions {
  readonly sink: PartialSink;
}

/**
 * @throws RefusedError; UnavailableError; ProtocolError `protocol-digest`, `protocol-length`, `protocol-download` when the
 *   link leads to a page; FormatError `format-empty`, and when the bytes are no weights. The old file is untouched then, and
 *   of a large download what arrived is kept for the next call.
 */
async function downloadInto(
  http: Http,
  aggregationId: string,
  open: (aggregation: AggregationBody) => Opened | Promise<Opened>,
  options: FetchOptions,
  digestAtEnd?: () => Promise<string>,
): Promise<Download> {
  const { signal, format } = options;
  let sink: PartialSink | undefined;
  let receiver: Receiver | undefined;
  try {
    const aggregation = await withRetries(
      http.policy,
      signal,
      async () => {
        // Asked for again with each attempt: the link in it lives for minutes only.
        const body = readAggregation(
          await readJson(
            await http.open({
              method: 'GET',
              target: paths.aggregation(aggregationId),
              query: { format },
              signal,
            }),
          ),
        );
        if (body.byte_length === 0) throw emptyFile(aggregationId);
        if (receiver === undefined) {
          const opened = await open(body);
          sink = opened.sink;
          receiver = new Receiver(sink, opened);
          // Taken to be the beginning: the digest of the whole tells.
          if (sink.bytesThere <= body.byte_length) await receiver.resume(sink.bytesThere, signal);
        }
        await receive(http, body, receiver, options, digestAtEnd);
        return body;
      },
      () => receiver?.reached ?? 0,
    );
    if (sink === undefined) throw new TypeError('nothing was received');
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
    const bytesWritten = receiver?.bytesWritten ?? 0;
    if (bytesWritten >= MIN_KEPT_BYTES && !isSpoiled(error)) await sink?.keep(bytesWritten);
    else await sink?.discard();
    throw error;
  }
}

/** Less than this is not kept between calls: it comes again in no time. */
const MIN_KEPT_BYTES = 1 << 20;

function isSpoiled(error: unknown): boolean {
  // A page in the place of the file says nothing of what came before.
  if (error instanceof ProtocolError) return error.code !== 'protocol-download';
  // A part that fills the disk is in the way of everybody.
  if (error instanceof FileError) return error.code === 'disk-full';
  return error instanceof FormatError;
}

/** What a server has or sends of an aggregation is nothing. */
export function emptyFile(aggregationId: string): FormatError {
  return new FormatError(
    'format-empty',
    `aggregation ${aggregationId}: the server's file is empty; ask its operator what became of it`,
    { offset: 0 },
  );
}

/** One attempt: what is missing, counted and digested on the way. */
async function receive(
  http: Http,
  { byte_length: byteLength, sha256, download_url: url }: AggregationBody,
  receiver: Receiver,
  { signal, onProgress }: TransferOptions,
  digestAtEnd: (() => Promise<string>) | undefined,
): Promise<void> {
  if (!/^https?:\/\//i.test(url)) {
    throw new ProtocolError('protocol-shape', 'the link to the aggregation is no absolute http(s) URL');
  }
  const report = () => onProgress?.({ bytesDone: receiver.bytesDone, bytesTotal: byteLength });
  report();
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
      isFile: true,
      signal,
    });
    where = answer.where;
    header = readReprDigest(answer.headers.get('repr-digest'));
    try {
      await receiveBody(answer, receiver, byteLength, report);
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

async function receiveBody(
  answer: HttpAnswer,
  receiver: Receiver,
  byteLength: number,
  onChunk: () => void,
): Promise<void> {
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
      const pending = receiver.add(chunk);
      // Most chunks only fill a block, and a promise for each would cost more than that.
      if (pending !== undefined) await pending;
      onChunk();
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
