import { FormatError, ProtocolError } from '../errors.ts';
import { blobSource } from '../tensor/blob.ts';
import { type ByteSource, memorySource } from '../tensor/bytes.ts';
import type { Layout } from '../tensor/layout.ts';
import type { ModelUpdate } from '../tensor/tensor.ts';
import { readJson } from '../transport/answer.ts';
import type { Http } from '../transport/http.ts';
import { withRetries } from '../transport/retry.ts';
import { MAX_BLOCK_BYTES, paths, type UploadBody } from '../wire/cambium.ts';
import { readUpload } from './answers.ts';
import type { ClientConfiguration } from './configuration.ts';
import { type Generation, requiredFormat, type UpdateFormat } from './dialect.ts';
import { digestOf, digestOfBytes, writeReprDigest } from './digest.ts';
import type { FileAccess } from './file-access.ts';
import type { TransferOptions } from './options.ts';
import { readAll } from './source-bytes.ts';
import { checkWeights, encodeUpdate, type ValidateOptions } from './weights.ts';

/** A weight file (its path in Node, its bytes, a Blob), or tensors to be written as one. */
export type UploadSource = string | Uint8Array | Blob | ModelUpdate;

/** What the server says of an update that it has safely stored. */
export interface UploadReceipt {
  readonly fileId: string;
  /** Null, as is the next, where the server's generation does not tell. */
  readonly run: number | null;
  readonly round: number | null;
  /** As the server read it from the file, or else as we did. */
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
  readonly weighting: number;
  /** SHA-256 of all bytes in lower-case hexadecimal, which are read for it the first time. */
  digest(): Promise<string>;
  close(): void | Promise<void>;
}

/** Checks an update as `prepareUpload` does, and what the options ask besides. Throws the same. */
export async function validateUpload(
  from: UploadSource,
  files: FileAccess | undefined,
  generation: Generation,
  { format }: ClientConfiguration['update'],
  options: ValidateOptions,
): Promise<Layout> {
  const wanted = requiredFormat(generation);
  const { source } = await openUpload(from, files, wanted ?? format);
  try {
    const layout = await checkWeights(source, options, { unpacking: files?.unpacking });
    return requireFormat(source, layout, wanted);
  } finally {
    await source.close();
  }
}

/**
 * Opens and checks an update; nothing is sent. The same open file is checked and sent, so a file that is
 * replaced meanwhile does no harm.
 *
 * @throws what `validateWeights` throws; FormatError `format-generation`; FileError; TypeError for a path without file access
 */
export async function prepareUpload(
  from: UploadSource,
  files: FileAccess | undefined,
  signal: AbortSignal | undefined,
  generation: Generation,
  { format, checkFinite }: ClientConfiguration['update'],
): Promise<PreparedUpload> {
  const wanted = requiredFormat(generation);
  const { source, bytes } = await openUpload(from, files, wanted ?? format);
  try {
    const checked = await checkWeights(source, { checkFinite, signal }, files);
    const layout = requireFormat(source, checked, wanted);
    // Few browsers can stream a request, and their WebCrypto digests nothing but the whole.
    const whole = files ? undefined : (bytes ?? (await readAll(source)));
    let sha256: Promise<string> | undefined;
    return {
      source,
      whole,
      weighting: layout.weighting ?? Number.NaN, // validated
      digest() {
        sha256 ??=
          whole || !files ? digestOfBytes(whole ?? new Uint8Array(0)) : digestOf(source, files, signal);
        return sha256;
      },
      close: () => source.close(),
    };
  } catch (error) {
    await source.close();
    throw error;
  }
}

export interface SendOptions extends TransferOptions {
  readonly round: number | undefined;
  readonly idempotencyKey: string;
}

/** What the server said, and the digest of what was sent. */
export interface Sent {
  readonly answer: UploadBody;
  readonly sha256: string;
}

/** Sends a prepared update until the server has it or says no: in one piece, or in blocks that need not come again. */
export async function sendUpload(
  http: Http,
  leafId: string,
  upload: PreparedUpload,
  files: FileAccess | undefined,
  options: SendOptions,
): Promise<UploadReceipt> {
  const { source } = upload;
  const { answer, sha256 } = await sendAll(http, leafId, upload, files, options);
  if (answer.sha256 !== sha256) {
    throw new ProtocolError(
      'protocol-digest',
      `${source.name}: sent bytes with the digest ${sha256}, the server stored ${answer.sha256}`,
    );
  }
  options.onProgress?.({ bytesDone: source.byteLength, bytesTotal: source.byteLength });
  return {
    fileId: answer.file_id,
    run: answer.run_number,
    round: answer.round,
    weighting: answer.weighting,
    sha256,
    isDuplicate: answer.duplicate === true,
  };
}

/** What only large updates need is loaded with the first of them. */
async function sendAll(
  http: Http,
  leafId: string,
  upload: PreparedUpload,
  files: FileAccess | undefined,
  options: SendOptions,
): Promise<Sent> {
  if (upload.source.byteLength <= MAX_BLOCK_BYTES) return sendWhole(http, leafId, upload, options);
  if (files === undefined) return (await import('./blocks.ts')).sendBlocks(http, leafId, upload, options);
  const { sendFrames } = await import('./frames.ts');
  return sendFrames(http, leafId, upload, options, () => files.sha256());
}

async function sendWhole(
  http: Http,
  leafId: string,
  upload: PreparedUpload,
  { signal, onProgress, round, idempotencyKey }: SendOptions,
): Promise<Sent> {
  const { source, whole } = upload;
  const byteLength = source.byteLength;
  const sha256 = await upload.digest();
  const answer = await withRetries(http.policy, signal, async () => {
    onProgress?.({ bytesDone: 0, bytesTotal: byteLength });
    const response = await http.open({
      method: 'PUT',
      target: paths.updates(leafId),
      query: { round },
      headers: {
        'content-type': 'application/octet-stream',
        'repr-digest': writeReprDigest(sha256),
        'idempotency-key': idempotencyKey,
      },
      body: { byteLength, whole: whole ?? (await readAll(source)) },
      signal,
    });
    return readUpload(await readJson(response));
  });
  return { answer, sha256 };
}

function requireFormat({ name }: ByteSource, layout: Layout, wanted: UpdateFormat | undefined): Layout {
  if (wanted === undefined || layout.format === wanted) return layout;
  const ending = wanted === 'npz' ? 'npz' : 'npy';
  throw new FormatError(
    'format-generation',
    `${name}: the server's generation takes ${wanted}, this is ${layout.format}; "cambium convert IN out.${ending}" makes one`,
    { file: name },
  );
}

interface OpenUpload {
  readonly source: ByteSource;
  /** The bytes of the source, where they are in memory anyway. */
  readonly bytes?: Uint8Array;
}

async function openUpload(
  from: UploadSource,
  files: FileAccess | undefined,
  format: UpdateFormat,
): Promise<OpenUpload> {
  if (typeof from === 'string') {
    if (files === undefined) throw new TypeError('paths need file access, which this host has not');
    return { source: await files.openSource(from) };
  }
  if (from instanceof Blob) return { source: blobSource(from) };
  if (from instanceof Uint8Array) return { source: memorySource(from, 'update'), bytes: from };
  if (Array.isArray((from as Partial<ModelUpdate> | null)?.tensors)) {
    const bytes = await encodeUpdate(from, format);
    return { source: memorySource(bytes, `update.${format === 'npy-object' ? 'npy' : format}`), bytes };
  }
  throw new TypeError('an upload is a path, a Uint8Array, a Blob or { weighting, tensors }');
}
