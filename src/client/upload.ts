import { ProtocolError } from '../errors.ts';
import { blobSource } from '../tensor/blob.ts';
import { type ByteSource, memorySource } from '../tensor/bytes.ts';
import type { ModelUpdate } from '../tensor/tensor.ts';
import { type Http, type RequestBody, readJson } from '../transport/http.ts';
import { withRetries } from '../transport/retry.ts';
import { paths } from '../wire/cambium.ts';
import { readUpload } from './answers.ts';
import { digestOf, digestOfBytes, readAll, readBlocks, writeReprDigest } from './digest.ts';
import type { FileAccess } from './file-access.ts';
import type { TransferOptions } from './options.ts';
import { encodeUpdate, validateWeights } from './weights.ts';

/** A weight file (its path in Node, its bytes, a Blob), or tensors to be written as one. */
export type UploadSource = string | Uint8Array | Blob | ModelUpdate;

/** What the server says of an update that it has safely stored. */
export interface UploadReceipt {
  readonly fileId: string;
  readonly run: number;
  readonly round: number;
  /** As the server read it from the file. */
  readonly weighting: number;
  /** Of the bytes sent, lower-case hexadecimal. */
  readonly sha256: string;
  /** True when the round already had the very same bytes from this leaf: they count once. */
  readonly isDuplicate: boolean;
}

/** An update that was checked and can be sent, also several times. */
export interface PreparedUpload {
  readonly source: ByteSource;
  /** All bytes, where the host cannot send them block by block. */
  readonly whole: Uint8Array | undefined;
  readonly sha256: string;
  close(): void | Promise<void>;
}

/**
 * Opens, checks and digests an update; nothing is sent. The same open file is checked and sent, so a file that is
 * replaced meanwhile does no harm.
 *
 * @throws what `validateWeights` throws; FileError; TypeError for a path without file access
 */
export async function prepareUpload(
  from: UploadSource,
  files: FileAccess | undefined,
  signal: AbortSignal | undefined,
): Promise<PreparedUpload> {
  const { source, bytes } = await openUpload(from, files);
  try {
    await validateWeights(source);
    const close = () => source.close();
    if (files) return { source, whole: undefined, sha256: await digestOf(source, files, signal), close };
    // Few browsers can stream a request, and their WebCrypto digests nothing but the whole.
    const whole = bytes ?? (await readAll(source));
    return { source, whole, sha256: await digestOfBytes(whole), close };
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** Sends a prepared update until the server has it or says no. */
export async function sendUpload(
  http: Http,
  leafId: string,
  { source, whole, sha256 }: PreparedUpload,
  options: TransferOptions & {
    readonly round: number | undefined;
    readonly idempotencyKey: string;
  },
): Promise<UploadReceipt> {
  const { signal, round, onProgress } = options;
  const byteLength = source.byteLength;
  const report = (bytesDone: number) => onProgress?.({ bytesDone, bytesTotal: byteLength });
  const body: RequestBody = whole
    ? { byteLength, whole }
    : { byteLength, chunks: () => readBlocks(source), onSent: report };
  const answer = await withRetries(http.policy, signal, async () => {
    report(0);
    const answer = await http.open({
      method: 'PUT',
      target: paths.updates(leafId),
      query: { round },
      headers: {
        'content-type': 'application/octet-stream',
        'repr-digest': writeReprDigest(sha256),
        'idempotency-key': options.idempotencyKey,
      },
      body,
      signal,
    });
    return readUpload(await readJson(answer));
  });
  if (answer.sha256 !== sha256) {
    throw new ProtocolError(
      'protocol-digest',
      `${source.name}: sent bytes with the digest ${sha256}, the server stored ${answer.sha256}`,
    );
  }
  if (whole) report(byteLength);
  return {
    fileId: answer.file_id,
    run: answer.run_number,
    round: answer.round,
    weighting: answer.weighting,
    sha256,
    isDuplicate: answer.duplicate === true,
  };
}

interface OpenUpload {
  readonly source: ByteSource;
  /** The bytes of the source, where they are in memory anyway. */
  readonly bytes?: Uint8Array;
}

async function openUpload(from: UploadSource, files: FileAccess | undefined): Promise<OpenUpload> {
  if (typeof from === 'string') {
    if (files === undefined) throw new TypeError('paths need file access, which this host has not');
    return { source: await files.openSource(from) };
  }
  if (from instanceof Blob) return { source: blobSource(from) };
  if (from instanceof Uint8Array) return { source: memorySource(from, 'update'), bytes: from };
  if (Array.isArray((from as Partial<ModelUpdate> | null)?.tensors)) {
    const bytes = await encodeUpdate(from);
    return { source: memorySource(bytes, 'update'), bytes };
  }
  throw new TypeError('an upload is a path, a Uint8Array, a Blob or { weighting, tensors }');
}
