/** Bodies on their way in: what the dialects share, and the upload of Cambium's own API. */

import type { Readable } from 'node:stream';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { API_PREFIX, type UploadBody } from '../../wire/cambium.ts';
import { startWithModel } from '../domain/initial-model.ts';
import { checkReceiving, findByKey } from '../domain/known-updates.ts';
import type { Leaf } from '../domain/leaves.ts';
import { Refusal } from '../domain/refusal.ts';
import { acceptUpdate, type UpdateOptions } from '../domain/updates.ts';
import { handDown } from '../domain/upstream.ts';
import type { Spooled } from '../store/spool.ts';
import type { RouteContext } from './context.ts';
import { leafOfPath, operatorOf, pathId } from './credentials.ts';
import { digestMismatch, expectedDigest } from './digest.ts';
import { idempotencyKey } from './idempotency.ts';
import { queryNumber } from './operating.ts';
import { beginUpload } from './resumable.ts';

/** What a sender has sent before it could read a refusal: less than the buffers of a socket. */
const SMALL_BYTES = 64 << 10;

export function uploadRoutes(app: FastifyInstance, context: RouteContext): void {
  // Weights come under any content type, or none, and are never parsed here.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, _payload, done) => done(null));
  app.addHook('onRequest', async (request, reply) => drainAfterAnswer(request, reply, context));

  app.post(`${API_PREFIX}/branches/:id/run/model`, async (request) => {
    await operatorOf(context.domain.db, request);
    const branchId = pathId(request, 'branch');
    return receiveFromOperator(context, request, (spooled) =>
      startWithModel(context.domain, branchId, spooled),
    );
  });

  app.post(`${API_PREFIX}/rounds/:id/aggregation`, async (request) => {
    await operatorOf(context.domain.db, request);
    const id = pathId(request, 'round');
    const leaves = queryNumber(request, 'leaves');
    const digest = expectedDigest(request);
    return receiveFromOperator(context, request, (spooled) => {
      if (digest !== undefined && digest !== spooled.sha256) {
        throw digestMismatch('Repr-Digest', digest, spooled.sha256);
      }
      return handDown(context.domain, id, spooled, leaves);
    });
  });

  app.put(`${API_PREFIX}/leaves/:id/updates`, async (request, reply) => {
    const leaf = await leafOfPath(context.domain.db, request);
    const encoding = request.headers['content-encoding'] ?? 'identity';
    if (encoding !== 'identity') {
      throw new Refusal(
        'unprocessable',
        'encoding-unsupported',
        'send the file as it is, without a content encoding',
      );
    }
    const options = {
      round: queryNumber(request, 'round'),
      localSteps: queryNumber(request, 'local_steps'),
      idempotencyKey: idempotencyKey(request),
    };
    const digest = expectedDigest(request);
    const known = await findByKey(context.domain.db, leaf, options.idempotencyKey);
    if (known !== undefined && known.sha256 === digest) {
      return reply.header('upload-complete', '?1').status(201).send(known);
    }
    if (request.headers['upload-complete'] === '?0') {
      return beginUpload(context, leaf, request, reply, options, digest);
    }
    if (known === undefined) await checkUpload(context, leaf, request);
    const body = await receiveUpdate(context, leaf, request, request.raw, { ...options, digest });
    return reply.status(201).send(body);
  });
}

/** Spools the file that an operator sends and hands it to `work`; nothing stays in the spool. Throws Refusal. */
async function receiveFromOperator<T>(
  context: RouteContext,
  request: FastifyRequest,
  work: (spooled: Spooled) => Promise<T>,
): Promise<T> {
  const length = request.headers['content-length'];
  await context.spool.check(length === undefined ? undefined : Number(length));
  const receive = async () => {
    const spooled = await context.spool.receiveFile(request.raw);
    request.raw.socket.setTimeout(0);
    try {
      return await work(spooled);
    } finally {
      await spooled.remove();
    }
  };
  return context.work.track(receive());
}

/** What can be refused before the body is read; `framing` of its bytes are not the file's. Throws Refusal. */
export async function checkUpload(
  context: RouteContext,
  leaf: Leaf,
  request: FastifyRequest,
  framing = 0,
): Promise<void> {
  const header = request.headers['content-length'];
  const length = header === undefined ? undefined : Number(header);
  // A small body is there as soon as its head: it is looked at once, when it is on the disk.
  if (length === undefined || length > SMALL_BYTES) await checkReceiving(context.domain.db, leaf);
  await context.spool.check(length === undefined ? undefined : Math.max(0, length - framing));
}

/** What is known of a body before it has come. */
interface BodyOptions extends UpdateOptions {
  /** The SHA-256 that it must have, in lower-case hexadecimal. */
  readonly digest?: string | undefined;
  /** Waits for what the request has after the body. Throws Refusal where the request is not whole. */
  readonly whole?: () => Promise<void>;
}

/** Spools a body and hands it to the domain; nothing stays in the spool. Throws Refusal. */
export function receiveUpdate(
  context: RouteContext,
  leaf: Leaf,
  request: FastifyRequest,
  body: Readable,
  options: BodyOptions,
): Promise<UploadBody> {
  return context.work.track(spoolAndAccept(context, leaf, request, body, options));
}

async function spoolAndAccept(
  context: RouteContext,
  leaf: Leaf,
  request: FastifyRequest,
  body: Readable,
  { digest, whole, ...options }: BodyOptions,
): Promise<UploadBody> {
  const arrived = await context.spool.receive(body);
  try {
    await whole?.();
    // From here on the server works and the sender waits, however long that takes.
    request.raw.socket.setTimeout(0);
    if (digest !== undefined && digest !== arrived.sha256) {
      throw digestMismatch('Repr-Digest', digest, arrived.sha256);
    }
    return (await acceptUpdate(context.domain, leaf, arrived, options)).body;
  } finally {
    if ('path' in arrived) await arrived.remove();
  }
}

/**
 * Lets a sender finish when the answer came before the end of its body: many clients read the answer only then, and a
 * connection that is closed before would take the answer with it. Bounded in bytes and in silence.
 */
export function drainAfterAnswer(request: FastifyRequest, reply: FastifyReply, context: RouteContext): void {
  const { raw } = request;
  const { socket } = raw;
  reply.raw.once('finish', () => {
    if (raw.complete || socket.destroyed) return;
    let left = context.maxUploadBytes;
    let cancel = () => {};
    const wait = () => {
      cancel();
      cancel = context.timers.after(context.idleMs, () => socket.destroy());
    };
    const onClose = () => cancel();
    raw.unpipe();
    raw.on('data', (chunk: Buffer) => {
      left -= chunk.byteLength;
      if (left < 0) socket.destroy();
      else wait();
    });
    raw.once('end', () => {
      cancel();
      socket.off('close', onClose);
    });
    socket.once('close', onClose);
    wait();
    raw.resume();
  });
}
