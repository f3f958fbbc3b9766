import { type CambiumError, ProtocolError, UnavailableError } from '../errors.ts';
import { openWeights } from '../formats/open.ts';
import { memorySink, memorySource } from '../tensor/bytes.ts';
import type { Layout } from '../tensor/layout.ts';
import type { Http } from '../transport/http.ts';
import { TransientFailure, withRetries } from '../transport/retry.ts';
import { type AggregationBody, paths } from '../wire/cambium.ts';
import { readAggregation } from './answers.ts';
import { digestOfBytes, readReprDigest } from './digest.ts';
import type { CheckedSink, FileAccess } from './file-access.ts';
import type { TransferOptions } from './options.ts';

/** An aggregation that arrived whole: length and digest are right, and it parses. */
interface Download {
  readonly aggregationId: string;
  readonly run: number;
  readonly round: number;
  /** Updates that went into it. */
  readonly leaves: number;
  readonly totalWeighting: number;
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
  const open = (byteLength: number): CheckedSink => {
    try {
      const sink = memorySink(byteLength);
      bytes = sink.bytes;
      return { ...sink, readInto: memorySource(bytes).readInto };
    } catch (cause) {
      throw new UnavailableError('unavailable-memory', `no memory for a download of ${byteLength} bytes`, {
        cause,
      });
    }
  };
  const download = await downloadInto(http, aggregationId, open, files, options, () => digestOfBytes(bytes));
  return { ...download, bytes };
}

/** Downloads into a file, which appears complete and checked or not at all. Throws as `downloadInto`; FileError. */
export async function downloadFile(
  http: Http,
  aggregationId: string,
  path: string,
  files: FileAccess,
  options: TransferOptions,
): Promise<DownloadedFile> {
  const download = await downloadInto(http, aggregationId, () => files.openSink(path), files, options);
  return { ...download, path };
}

/**
 * @throws RefusedError; UnavailableError; ProtocolError `protocol-digest`, `protocol-length`; FormatError when the bytes
 *   are no weights. Nothing is left behind then.
 */
async function downloadInto(
  http: Http,
  aggregationId: string,
  openSink: (byteLength: number) => CheckedSink | Promise<CheckedSink>,
  files: FileAccess | undefined,
  options: TransferOptions,
  digestAtEnd?: () => Promise<string>,
): Promise<Download> {
  const { signal } = options;
  let sink: CheckedSink | undefined;
  try {
    const aggregation = await withRetries(http.policy, signal, async () => {
      // Asked for again with each attempt: the link in it lives for minutes only.
      const body = readAggregation(
        await http.json({ method: 'GET', target: paths.aggregation(aggregationId), signal }),
      );
      sink ??= await openSink(body.byte_length);
      await receive(http, body, sink, files, options, digestAtEnd);
      return body;
    });
    if (sink === undefined) throw new TypeError('no sink');
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
    await sink?.discard();
    throw error;
  }
}

/** One attempt: the whole body into the sink, counted and digested on the way. */
async function receive(
  http: Http,
  { byte_length: byteLength, sha256, download_url: url }: AggregationBody,
  sink: CheckedSink,
  files: FileAccess | undefined,
  { signal, onProgress }: TransferOptions,
  digestAtEnd: (() => Promise<string>) | undefined,
): Promise<void> {
  if (!/^https?:\/\//i.test(url)) {
    throw new ProtocolError('protocol-shape', 'the link to the aggregation is no absolute http(s) URL');
  }
  const hash = files?.sha256();
  const answer = await http.open({ method: 'GET', target: url, headers: { accept: '*/*' }, signal });
  let bytesDone = 0;
  try {
    const announced = answer.headers.get('content-length');
    // A length that fetch has already turned into another by decompressing says nothing.
    if (announced !== null && !answer.headers.has('content-encoding') && Number(announced) !== byteLength) {
      throw wrongLength(answer.where, announced, byteLength);
    }
    onProgress?.({ bytesDone, bytesTotal: byteLength });
    for await (const chunk of answer.chunks()) {
      if (bytesDone + chunk.byteLength > byteLength) throw wrongLength(answer.where, 'more', byteLength);
      await sink.write(bytesDone, chunk);
      hash?.update(chunk);
      bytesDone += chunk.byteLength;
      onProgress?.({ bytesDone, bytesTotal: byteLength });
    }
    // Something between cut the body in a clean way; the next attempt may get it whole.
    if (bytesDone < byteLength) throw new TransientFailure(wrongLength(answer.where, bytesDone, byteLength));
  } finally {
    answer.close();
  }
  const actual = hash ? hash.digest() : await digestAtEnd?.();
  const header = readReprDigest(answer.headers.get('repr-digest'));
  if (actual !== sha256 || (header !== undefined && header !== sha256)) {
    throw new ProtocolError(
      'protocol-digest',
      `${answer.where}: the bytes have the SHA-256 ${actual}, the aggregation ${sha256}${header === undefined || header === sha256 ? '' : `, its file ${header}`}`,
    );
  }
}

function wrongLength(where: string, actual: number | string, expected: number): CambiumError {
  return new ProtocolError(
    'protocol-length',
    `${where}: ${actual} bytes came, the aggregation has ${expected}`,
  );
}
