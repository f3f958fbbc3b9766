/**
 * Uploads in blocks, by the header fields of the IETF's "Resumable Uploads for HTTP" (draft-ietf-httpbis-resumable-upload):
 *
 *     PUT  /leaves/{id}/updates   Upload-Complete: ?0, Upload-Length, [Repr-Digest] 201, Location, Upload-Offset
 *     PATCH <Location>            Upload-Offset, Upload-Complete: ?0, Content-Digest, a block   204, Upload-Offset
 *     PATCH <Location>            Upload-Offset, Upload-Complete: ?1, the last block   201 and the receipt
 *     HEAD <Location>             where to go on                                  204, Upload-Offset
 *     DELETE <Location>           gives it up                                     204
 *
 * It fits better than tus 1.0: the answer to the last block is the answer that a plain PUT would get, the digest fields
 * are those of RFC 9530, and no extensions have to be agreed on. Of the draft we leave out the interim answers 104, which
 * `fetch` does not show, and content in the first request.
 *
 * A beginning with the digest and length of an upload that has begun finds that one, also after the sender's process or
 * this one was started anew; with the digest of the leaf's update of the round it gets its receipt (Upload-Complete: ?1).
 * A block with a Content-Digest counts whole or not at all; of one without, what arrived counts. A request may also carry
 * many blocks in frames (FRAMES_TYPE), which are checked and written as they arrive, so that neither side waits at their
 * borders: of a request that breaks off all whole blocks count.
 *
 * Who has not digested a large file yet begins without Repr-Digest: the answer then has the digest of what is there of an
 * upload of this length (Upload-Digest), to be compared, and the last request brings Repr-Digest. Where the leaf has an
 * update in the round already, only the digest can tell whether it is this one: `update-exists`.
 */
import { createHash, type Hash } from 'node:crypto';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { API_PREFIX, FRAMES_TYPE, MAX_BLOCK_BYTES, paths, type UploadBody } from '../../wire/cambium.ts';
import { findByDigest } from '../domain/known-updates.ts';
import type { Leaf } from '../domain/leaves.ts';
import { Refusal, unknown } from '../domain/refusal.ts';
import { acceptUpdate, type UpdateOptions } from '../domain/updates.ts';
import type { BlockWriter, PartialUpload } from '../store/partials.ts';
import { blockTooLarge } from '../store/spool.ts';
import type { RouteContext } from './context.ts';
import { leafOf, pathId } from './credentials.ts';
import { digestMismatch, expectedDigest } from './digest.ts';
import { type CheckedBlock, readFrames } from './frames.ts';

/** Refusals after which the bytes are worth keeping: the run may go on, the operator may make room. */
const PASSING = new Set(['run-paused', 'run-stopped', 'disk-full']);

/** The disk is asked for room for so much at a time. */
const ROOM_BYTES = 64 << 20;

/** Needs the parsers and hooks of `uploadRoutes`. */
export function resumableRoutes(app: FastifyInstance, context: RouteContext): void {
  const url = `${API_PREFIX}/uploads/:id`;

  app.head(url, async (request, reply) => {
    const { upload } = await uploadOf(context, request);
    return standing(reply, upload).header('upload-length', upload.plan.byteLength).status(204).send();
  });

  app.patch(url, async (request, reply) => {
    const { leaf, upload } = await uploadOf(context, request);
    const offset = wholeNumber(request, 'upload-offset');
    const isLast = isComplete(request);
    checkOffset(context, upload.id, offset, reply);
    const receive = request.headers['content-type'] === FRAMES_TYPE ? receiveFrames : receiveBlock;
    try {
      await receive(context, request, upload, offset);
    } catch (error) {
      if (error instanceof Refusal && error.code === 'upload-offset')
        checkOffset(context, upload.id, offset, reply);
      throw error;
    }
    if (!isLast) return standing(reply, upload).status(204).send();
    // From here on the server works and the sender waits, however long that takes.
    request.raw.socket.setTimeout(0);
    const body = await context.work.track(finishUpload(context, leaf, upload, expectedDigest(request)));
    return reply.header('upload-complete', '?1').status(201).send(body);
  });

  app.delete(url, async (request, reply) => {
    await context.partials.remove((await uploadOf(context, request)).upload.id);
    return reply.status(204).send();
  });
}

/** Answers `Upload-Complete: ?0`: where to send the blocks, or that they are not needed. */
export async function beginUpload(
  context: RouteContext,
  leaf: Leaf,
  request: FastifyRequest,
  reply: FastifyReply,
  options: UpdateOptions,
  sha256: string | undefined,
): Promise<FastifyReply> {
  const byteLength = wholeNumber(request, 'upload-length');
  if (sha256 === undefined && request.headers['repr-digest'] !== undefined) {
    throw new Refusal('malformed', 'digest-missing', 'of the digests in Repr-Digest, sha-256 is missing');
  }
  if (
    Number(request.headers['content-length'] ?? 0) > 0 ||
    request.headers['transfer-encoding'] !== undefined
  ) {
    throw new Refusal(
      'unprocessable',
      'block-early',
      'begin an upload without a body, and send its blocks by PATCH',
    );
  }
  const known = await findByDigest(context.domain.db, leaf, sha256 ?? '', options.round);
  if (known !== undefined) return reply.header('upload-complete', '?1').status(201).send(known);
  await context.spool.check(byteLength);
  const upload = await context.work.track(
    context.partials.begin({
      leafId: leaf.id,
      byteLength,
      sha256: sha256 ?? null,
      round: options.round ?? null,
      idempotencyKey: options.idempotencyKey ?? null,
      localSteps: options.localSteps ?? null,
    }),
  );
  if (sha256 === undefined && upload.offset > 0) {
    const { hash } = await context.partials.digestSoFar(upload.id);
    reply.header('upload-digest', `sha-256=:${hash.digest('base64')}:`);
  }
  return standing(reply, upload).header('location', paths.upload(upload.id)).status(201).send();
}

/** The upload in the path, which must be the asking leaf's own. Throws Refusal `upload-unknown`. */
async function uploadOf(
  context: RouteContext,
  request: FastifyRequest,
): Promise<{ readonly leaf: Leaf; readonly upload: PartialUpload }> {
  const leaf = await leafOf(context.domain.db, request);
  const id = pathId(request, 'upload');
  const upload = context.partials.find(id);
  if (upload === undefined || upload.plan.leafId !== leaf.id) throw unknown('upload', id);
  return { leaf, upload };
}

function standing(reply: FastifyReply, { offset }: PartialUpload): FastifyReply {
  return reply
    .header('upload-offset', offset)
    .header('upload-complete', '?0')
    .header('upload-limit', `max-append-size=${MAX_BLOCK_BYTES}`);
}

/** Refuses a block for another place, and says which is the right one. */
function checkOffset(context: RouteContext, id: string, offset: number, reply: FastifyReply): void {
  const upload = context.partials.find(id);
  if (upload === undefined) throw unknown('upload', id);
  if (upload.offset === offset) return;
  standing(reply, upload);
  const message = `the upload stands at byte ${upload.offset}, not at ${offset}`;
  throw new Refusal('conflict', 'upload-offset', message, { offset: upload.offset });
}

async function receiveBlock(
  context: RouteContext,
  request: FastifyRequest,
  upload: PartialUpload,
  offset: number,
): Promise<void> {
  const announced = Number(request.headers['content-length'] ?? 0);
  if (announced > MAX_BLOCK_BYTES) throw blockTooLarge(MAX_BLOCK_BYTES);
  const expected = expectedDigest(request, 'content-digest');
  const { chunks, byteLength, isWhole } = await context.spool.receiveBlock(request.raw, MAX_BLOCK_BYTES);
  // Bytes of a part that nothing vouches for could spoil all that come after them.
  if (byteLength > 0 && (isWhole || expected === undefined)) {
    if (expected !== undefined) {
      const hash = createHash('sha256');
      for (const chunk of chunks) hash.update(chunk);
      const actual = hash.digest('hex');
      if (actual !== expected) throw digestMismatch('Content-Digest', expected, actual);
    }
    const writer = await context.partials.openWriter(upload.id);
    try {
      await context.spool.check(byteLength);
      await addBlock(context, upload, offset, { chunks, byteLength }, writer);
    } finally {
      await writer.close();
    }
  }
  if (!isWhole) throw new Refusal('malformed', 'upload-incomplete', 'the block ended before its last byte');
}

/** Receives blocks in frames. */
async function receiveFrames(
  context: RouteContext,
  request: FastifyRequest,
  upload: PartialUpload,
  offset: number,
): Promise<void> {
  const { id } = upload;
  const begun = await context.partials.digestSoFar(id);
  if (begun.offset !== offset) throw new Refusal('conflict', 'upload-offset', 'the upload stands elsewhere');
  const writer = await context.partials.openWriter(id);
  let writing = Promise.resolve();
  /** Up to here there was room when it was asked. */
  let roomTo = offset;
  try {
    for await (const block of readFrames(context.spool.chunks(request.raw), offset, begun.hash)) {
      const end = block.offset + block.byteLength;
      if (end > roomTo) {
        roomTo = Math.max(end, Math.min(upload.plan.byteLength, block.offset + ROOM_BYTES));
        await context.spool.check(roomTo - block.offset);
      }
      await writing;
      // While the next one comes.
      writing = addBlock(context, upload, block.offset, block, writer, block.hash);
      writing.catch(() => {}); // heard by the next block, or at the end
    }
  } finally {
    // What is right counts also when what comes after it is not, and the answer tells it.
    await writing.finally(() => writer.close());
  }
}

function addBlock(
  context: RouteContext,
  { plan }: PartialUpload,
  offset: number,
  { chunks, byteLength }: Pick<CheckedBlock, 'chunks' | 'byteLength'>,
  writer: BlockWriter,
  digested?: Hash,
): Promise<void> {
  if (offset + byteLength > plan.byteLength) {
    const message = `the upload has ${plan.byteLength} bytes, the block goes on to ${offset + byteLength}`;
    throw new Refusal('unprocessable', 'upload-length', message, { byte_length: plan.byteLength });
  }
  return context.work.track(writer.append(offset, chunks, digested));
}

async function finishUpload(
  context: RouteContext,
  leaf: Leaf,
  { id, plan }: PartialUpload,
  told: string | undefined,
): Promise<UploadBody> {
  const expected = plan.sha256 ?? told;
  if (expected === undefined) {
    throw new Refusal(
      'malformed',
      'digest-missing',
      'neither the first request nor the last has Repr-Digest',
    );
  }
  const offset = context.partials.find(id)?.offset;
  if (offset !== plan.byteLength) {
    const message = `the last block ends at byte ${offset}, the upload has ${plan.byteLength}`;
    throw new Refusal('unprocessable', 'upload-length', message, { byte_length: plan.byteLength });
  }
  const accept = async (path: string, sha256: string) => {
    if (sha256 !== expected) throw digestMismatch('Repr-Digest', expected, sha256);
    const accepted = await acceptUpdate(
      context.domain,
      leaf,
      {
        path,
        byteLength: plan.byteLength,
        sha256,
        receiveMs: null,
        flushed: async () => {},
        remove: async () => {},
      },
      {
        round: plan.round ?? undefined,
        idempotencyKey: plan.idempotencyKey ?? undefined,
        localSteps: plan.localSteps ?? undefined,
      },
    );
    return accepted.body;
  };
  const isFinal = (error: unknown) => error instanceof Refusal && !PASSING.has(error.code);
  return context.partials.finish(id, accept, isFinal);
}

/** A structured boolean (RFC 9651). */
function isComplete(request: FastifyRequest): boolean {
  const value = request.headers['upload-complete'];
  if (value !== '?0' && value !== '?1') {
    throw new Refusal(
      'malformed',
      'upload-header',
      'send Upload-Complete as ?1 with the last block, else as ?0',
    );
  }
  return value === '?1';
}

function wholeNumber(request: FastifyRequest, name: 'upload-offset' | 'upload-length'): number {
  const value = String(request.headers[name] ?? '');
  if (!/^\d{1,15}$/.test(value)) {
    throw new Refusal('malformed', 'upload-header', `send ${name} as a number of bytes`);
  }
  return Number(value);
}
