/**
 * The basic generation of the BranchKey protocol (wire/branchkey.ts). Its clients compare status codes for equality,
 * send JSON without a content type, and read either `error` or `message` of a failure.
 */
import multipart, { type MultipartFile } from '@fastify/multipart';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type {
  AuthenticateData,
  DownloadData,
  Envelope,
  PerformanceRequest,
  RunData,
  UploadData,
} from '../../wire/branchkey.ts';
import { addMetrics } from '../domain/metrics.ts';
import { Refusal } from '../domain/refusal.ts';
import { getResultFor } from '../domain/results.ts';
import { getRun } from '../domain/runs.ts';
import type { RouteContext } from './context.ts';
import { basicLeafOf, isId, pathId } from './credentials.ts';
import { downloadLink } from './files.ts';
import { checkUpload, drainAfterAnswer, receiveUpdate } from './uploads.ts';

/** The part `data` is a line of JSON. */
const MAX_FIELD_BYTES = 64 << 10;

/** Parts beside the two of the protocol are skipped, up to so many. */
const MAX_PARTS = 16;

/** Room for the boundaries, the headers and the other part around a file. */
const FRAMING_BYTES = MAX_FIELD_BYTES + 4096;

export async function branchkeyRoutes(app: FastifyInstance, context: RouteContext): Promise<void> {
  await app.register(async (scope) => jsonRoutes(scope, context));
  await app.register(async (scope) => uploadRoute(scope, context));
}

function jsonRoutes(app: FastifyInstance, context: RouteContext): void {
  const { domain } = context;
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'string' }, (_request, text, done) => {
    try {
      done(null, JSON.parse(text as string));
    } catch (cause) {
      done(new Refusal('malformed', 'json-invalid', 'the body is not valid JSON', undefined, { cause }));
    }
  });

  app.get('/v1/leaf/authenticate', async (request): Promise<Envelope<AuthenticateData>> => {
    const leaf = await basicLeafOf(domain.db, request);
    await context.broker.beginSession(leaf);
    const { id, name, tree_id, branch_id, user_id } = leaf;
    return { data: { id, name, tree_id, branch_id, user_id } };
  });

  app.get('/v1/branch/:id/run', async (request): Promise<Envelope<RunData>> => {
    const leaf = await basicLeafOf(domain.db, request);
    const branchId = pathId(request, 'branch');
    if (leaf.branch_id === branchId) await context.broker.hearRun(leaf);
    const { branch_id, run_status, run_number } = await getRun(domain, branchId);
    if (leaf.branch_id !== branch_id) {
      throw new Refusal('forbidden', 'branch-other', 'the leaf belongs to another branch');
    }
    return { data: { run_status, run_number } };
  });

  app.get('/v1/file/download/:id', async (request): Promise<Envelope<DownloadData>> => {
    const leaf = await basicLeafOf(domain.db, request);
    const id = pathId(request, 'aggregation');
    await getResultFor(domain.db, id, leaf);
    return { data: { download_url: downloadLink(context, id, leaf.id) } };
  });

  app.post('/v1/performance/analysis', async (request, reply) => {
    const leaf = await basicLeafOf(domain.db, request);
    const { mode = 'test', aggregation_id, data } = performanceRequest(request);
    await addMetrics(domain, leaf, aggregation_id, { mode, data: parsed(data) });
    return reply.status(201).send({ data: {} });
  });
}

async function uploadRoute(app: FastifyInstance, context: RouteContext): Promise<void> {
  app.addHook('onRequest', async (request, reply) => drainAfterAnswer(request, reply, context));
  await app.register(multipart, {
    // The spool has the limit that counts; busboy would cut a file silently.
    limits: {
      fieldSize: MAX_FIELD_BYTES,
      parts: MAX_PARTS,
      files: 1,
      fileSize: Number.MAX_SAFE_INTEGER,
    },
    throwFileSizeLimit: false,
  });

  app.post('/v1/file/upload', async (request, reply): Promise<void> => {
    const leaf = await basicLeafOf(context.domain.db, request);
    await checkUpload(context, leaf, request, FRAMING_BYTES);
    const { file } = await filePart(request);
    const { file_id } = await receiveUpdate(context, leaf, request, file);
    const answer: Envelope<UploadData> = { data: { file_id } };
    return reply.status(201).send(answer);
  });
}

/** The part with the weights; the parts before it are skipped. Throws Refusal. */
async function filePart(request: FastifyRequest): Promise<MultipartFile> {
  try {
    for await (const part of request.parts()) {
      if (part.type !== 'file') continue;
      if (part.fieldname === 'file') return part;
      part.file.resume();
    }
  } catch (cause) {
    // What has a code is known to everybody (routes/errors.ts); the parser's own faults have none.
    if (!(cause instanceof Error) || 'code' in cause) throw cause;
    if (/unexpected end|terminated early/i.test(cause.message)) {
      const message = 'the upload ended before its last byte';
      throw new Refusal('malformed', 'upload-incomplete', message, undefined, { cause });
    }
    throw new Refusal('malformed', 'multipart-invalid', 'the body is no multipart form', undefined, {
      cause,
    });
  }
  throw new Refusal('unprocessable', 'file-missing', 'the upload has no part "file" with a file name');
}

function performanceRequest(request: FastifyRequest): PerformanceRequest {
  const body = request.body as Partial<Record<keyof PerformanceRequest, unknown>> | null | undefined;
  const { mode, aggregation_id, data } = body ?? {};
  if (typeof aggregation_id !== 'string' || data === undefined) {
    throw new Refusal('unprocessable', 'request-invalid', 'the body needs "aggregation_id" and "data"');
  }
  if (!isId(aggregation_id)) {
    throw new Refusal('missing', 'aggregation-unknown', 'there is no aggregation with this id');
  }
  return { ...body, mode, aggregation_id, data } as PerformanceRequest; // the mode is checked by the domain
}

/** The caller's string usually is JSON inside JSON; what is not stays a string. */
function parsed(data: unknown): unknown {
  if (typeof data !== 'string') return data;
  try {
    return JSON.parse(data);
  } catch {
    return data;
  }
}
