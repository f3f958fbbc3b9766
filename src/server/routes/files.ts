/** Aggregations on their way out: what they are, and their bytes by signed link. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { type AggregationBody, API_PREFIX, paths } from '../../wire/cambium.ts';
import { isRevoked } from '../domain/leaves.ts';
import { Refusal } from '../domain/refusal.ts';
import { getResult, getResultFor, markFetched, type Result } from '../domain/results.ts';
import { isSignature, signLink } from '../tokens.ts';
import type { RouteContext } from './context.ts';
import { anyoneOf, pathId } from './credentials.ts';

/** How long a link works. */
const LINK_MS = 5 * 60_000;

export function fileRoutes(app: FastifyInstance, context: RouteContext): void {
  const { domain } = context;

  app.get(`${API_PREFIX}/aggregations/:id`, async (request): Promise<AggregationBody> => {
    const { leaf } = await anyoneOf(domain.db, request);
    const id = pathId(request, 'aggregation');
    const result = leaf ? await getResultFor(domain.db, id, leaf) : await getResult(domain.db, id);
    return { ...result, download_url: downloadLink(context, id, leaf?.id ?? '') };
  });

  app.route({
    method: ['GET', 'HEAD'],
    url: `${API_PREFIX}/files/:id`,
    handler: async (request, reply) => {
      const id = pathId(request, 'file');
      const leafId = await checkLink(context, request, id);
      return sendFile(context, request, reply, await getResult(domain.db, id), leafId);
    },
  });
}

/** An absolute link to a file that works without credentials for five minutes; `leafId` is empty for operators. */
export function downloadLink(context: RouteContext, id: string, leafId: string): string {
  const expires = context.domain.now() + LINK_MS;
  const query = new URLSearchParams({
    leaf: leafId,
    expires: String(expires),
    signature: signLink(context.linkKey, id, leafId, expires),
  });
  return `${context.baseUrl()}${paths.file(id)}?${query}`;
}

async function checkLink(context: RouteContext, request: FastifyRequest, id: string): Promise<string> {
  const { leaf, expires, signature } = request.query as Readonly<Record<string, unknown>>;
  const isGood =
    typeof leaf === 'string' &&
    typeof expires === 'string' &&
    typeof signature === 'string' &&
    isSignature(context.linkKey, signature, id, leaf, Number(expires));
  if (!isGood || (leaf !== '' && (await isRevoked(context.domain.db, leaf)))) {
    throw new Refusal('forbidden', 'link-invalid', 'the link is not one of this server: ask for a new one');
  }
  if (Number(expires) <= context.domain.now()) {
    throw new Refusal('forbidden', 'link-expired', 'the link has expired: ask for a new one');
  }
  return leaf;
}

function sendFile(
  context: RouteContext,
  request: FastifyRequest,
  reply: FastifyReply,
  result: Result,
  leafId: string,
): FastifyReply {
  const { aggregation_id: id, byte_length: size, sha256 } = result;
  const etag = `"${sha256}"`;
  reply
    .header('content-type', 'application/octet-stream')
    .header('content-disposition', `attachment; filename="${id}.npy"`)
    .header('cache-control', 'private, no-store')
    .header('accept-ranges', 'bytes')
    .header('etag', etag)
    .header('repr-digest', `sha-256=:${Buffer.from(sha256, 'hex').toString('base64')}:`);

  // A range of another version of the file would be a range of something else.
  const isSame = request.headers['if-range'] === undefined || request.headers['if-range'] === etag;
  const range = isSame ? parseRange(request.headers.range, size) : undefined;
  if (range === 'unsatisfiable') {
    reply.header('content-range', `bytes */${size}`);
    return reply
      .status(416)
      .type('application/json; charset=utf-8')
      .send({
        error: 'the file has no such range',
        message: 'the file has no such range',
        code: 'range-unsatisfiable',
        details: { byte_length: size },
      });
  }
  const { start, end } = range ?? { start: 0, end: size - 1 };
  if (range !== undefined) reply.status(206).header('content-range', `bytes ${start}-${end}/${size}`);
  reply.header('content-length', end - start + 1);
  if (request.method === 'HEAD') return reply.send();
  if (leafId !== '' && end === size - 1) {
    reply.raw.once('finish', () => {
      markFetched(context.domain, id, leafId).catch((error: unknown) =>
        request.log.error({ err: error }, 'a fetch could not be noted'),
      );
    });
  }
  return reply.send(context.domain.blobs.read(id, { start, end }));
}

/**
 * One range of bytes by RFC 9110; undefined where the whole file is to be sent, which is also the answer to several
 * ranges and to units that nobody knows.
 */
export function parseRange(
  header: string | undefined,
  size: number,
): { readonly start: number; readonly end: number } | 'unsatisfiable' | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header?.trim() ?? '');
  if (match === null) return undefined;
  const [, from = '', to = ''] = match;
  if (from === '' && to === '') return undefined;
  if (from === '') {
    const count = Math.min(Number(to), size);
    return count === 0 ? 'unsatisfiable' : { start: size - count, end: size - 1 };
  }
  const start = Number(from);
  if (to !== '' && Number(to) < start) return undefined;
  if (start >= size) return 'unsatisfiable';
  return { start, end: to === '' ? size - 1 : Math.min(Number(to), size - 1) };
}
