/**
 * Uploads in blocks, a request for each: for hosts that hold the bytes in memory and digest only wholes. The sender's side
 * of server/routes/resumable.ts; frames.ts is that of the others. Every attempt begins the upload anew; the server
 * finds by its digest what it has of it and says where to go on, whoever was restarted meanwhile. The receipt of a
 * finished upload whose answer was lost is found in the same way.
 */
import { ProtocolError, RefusedError } from '../errors.ts';
import { readJson } from '../transport/answer.ts';
import type { Http } from '../transport/http.ts';
import { TransientFailure, withRetries } from '../transport/retry.ts';
import { MAX_BLOCK_BYTES, paths, type UploadBody } from '../wire/cambium.ts';
import { readUpload } from './answers.ts';
import { digestOfBytes, readReprDigest, writeReprDigest } from './digest.ts';
import { readFull } from './source-bytes.ts';
import type { PreparedUpload, SendOptions, Sent } from './upload.ts';

/** Where lines break all the time, blocks of this size still come through. */
const MIN_BLOCK_BYTES = 32 << 10;

/** What the server says when an upload is not where we think: another look settles it. */
const MISLAID = new Set([
  ...['upload-offset', 'upload-unknown', 'upload-incomplete', 'digest-mismatch'],
  // What a line that changes bytes makes of the head of a frame.
  ...['block-too-large', 'frame-invalid'],
]);

/** Where an upload stands: to be gone on with, or over. */
export type Standing =
  | {
      readonly target: string;
      readonly offset: number;
      /** Of the bytes up to there, where the beginning did not tell the digest of the whole. */
      readonly digest: string | undefined;
    }
  | { readonly receipt: UploadBody };

interface Block {
  readonly bytes: Uint8Array;
  readonly digest: string;
}

/**
 * Sends an update block by block.
 *
 * @throws as `Http.open`; ProtocolError `protocol-upload`
 */
export async function sendBlocks(
  http: Http,
  leafId: string,
  upload: PreparedUpload,
  options: SendOptions,
): Promise<Sent> {
  const sha256 = await upload.digest();
  const { signal, onProgress } = options;
  const { byteLength } = upload.source;
  /** As far as the server has ever confirmed. */
  let reached = 0;
  // A broken line loses the block that was under way: where it breaks often, small ones are cheaper.
  let blockBytes = MAX_BLOCK_BYTES;
  const attempt = async (): Promise<UploadBody> => {
    const standing = await beginBlocks(http, leafId, upload, options, sha256);
    if ('receipt' in standing) return standing.receipt;
    const { target } = standing;
    let { offset } = standing;
    let next = readBlock(upload, offset, blockBytes);
    for (;;) {
      reached = Math.max(reached, offset);
      onProgress?.({ bytesDone: offset, bytesTotal: byteLength });
      const block = await next;
      const end = offset + block.bytes.byteLength;
      const grown = Math.min(MAX_BLOCK_BYTES, blockBytes * 2);
      // Read and digested while this one is on its way.
      next = readBlock(upload, end, grown);
      next.catch(() => {});
      try {
        const receipt = await sendBlock(http, target, offset, block, end === byteLength, signal);
        if (receipt !== undefined) return receipt;
      } catch (error) {
        if (error instanceof TransientFailure) blockBytes = Math.max(MIN_BLOCK_BYTES, blockBytes >> 1);
        throw error;
      }
      blockBytes = grown;
      offset = end;
    }
  };
  const answer = await withRetries(
    http.policy,
    signal,
    () => attempt().catch(lookAgain),
    () => reached,
  );
  return { answer, sha256 };
}

/**
 * Begins an upload, or finds where it stands.
 *
 * @param sha256 of the whole; without, an unfinished upload of the same length is found, whatever is in it
 */
export async function beginBlocks(
  http: Http,
  leafId: string,
  { source }: PreparedUpload,
  { signal, round, idempotencyKey }: SendOptions,
  sha256: string | undefined,
): Promise<Standing> {
  const answer = await http.open({
    method: 'PUT',
    target: paths.updates(leafId),
    query: { round },
    headers: {
      'upload-complete': '?0',
      'upload-length': String(source.byteLength),
      ...(sha256 !== undefined && { 'repr-digest': writeReprDigest(sha256) }),
      'idempotency-key': idempotencyKey,
    },
    signal,
  });
  try {
    if (answer.headers.get('upload-complete') === '?1')
      return { receipt: readUpload(await readJson(answer)) };
    // Of the address only the id is believed: blocks go to the server that the caller named, whatever stands there.
    const id = /\/uploads\/([^/?#]+)$/.exec(answer.headers.get('location') ?? '')?.[1];
    const offset = readOffset(answer.headers, source.byteLength);
    if (id === undefined || offset === undefined) {
      throw new ProtocolError(
        'protocol-upload',
        `${answer.where}: the answer does not say where to send the blocks`,
      );
    }
    const digest = readReprDigest(answer.headers.get('upload-digest'));
    return { target: paths.upload(id), offset, digest };
  } finally {
    answer.close();
  }
}

/** Sends one block; the receipt is the answer to the last one. */
async function sendBlock(
  http: Http,
  target: string,
  offset: number,
  { bytes, digest }: Block,
  isLast: boolean,
  signal: AbortSignal | undefined,
): Promise<UploadBody | undefined> {
  const answer = await http.open({
    method: 'PATCH',
    target,
    headers: {
      'content-type': 'application/partial-upload',
      'content-digest': writeReprDigest(digest),
      'upload-offset': String(offset),
      'upload-complete': isLast ? '?1' : '?0',
    },
    body: { byteLength: bytes.byteLength, whole: bytes },
    signal,
  });
  const body = await readJson(answer);
  if (isLast) return readUpload(body);
  if (!confirmsOffset(answer.headers, offset + bytes.byteLength)) {
    throw new ProtocolError('protocol-upload', `${answer.where}: the server does not confirm the block`);
  }
  return undefined;
}

/** Each block is a new array: a connection may hold on to it for a while. */
async function readBlock({ source, whole }: PreparedUpload, offset: number, size: number): Promise<Block> {
  const end = Math.min(source.byteLength, offset + size);
  const bytes = whole?.subarray(offset, end) ?? new Uint8Array(end - offset);
  if (whole === undefined) await readFull(source, offset, bytes);
  return { bytes, digest: await digestOfBytes(bytes) };
}

/** True when an answer says that all bytes up to `offset` are there. */
export function confirmsOffset(headers: Headers, offset: number): boolean {
  return readOffset(headers, offset) === offset;
}

function readOffset(headers: Headers, limit: number): number | undefined {
  const value = headers.get('upload-offset') ?? '';
  return /^\d{1,15}$/.test(value) && Number(value) <= limit ? Number(value) : undefined;
}

/** What another look at the upload settles becomes another attempt. */
export function lookAgain(error: unknown): never {
  throw error instanceof RefusedError && MISLAID.has(error.code) ? new TransientFailure(error) : error;
}
