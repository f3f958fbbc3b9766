/** Aggregations and partial sums on their way out: what they are, and their bytes by signed link. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { type AggregationBody, API_PREFIX, type FileFormat, MEDIA_TYPES, paths } from '../../wire/cambium.ts';
import { isRevoked } from '../domain/leaves.ts';
import { Refusal } from '../domain/refusal.ts';
import type { HeldFile, Representation } from '../domain/representations.ts';
import { getResult, getResultFor, markFetched, type Result } from '../domain/results.ts';
import { findSum } from '../domain/upstream.ts';
import { isSignature, signLink } from '../tokens.ts';
import type { RouteContext } from './context.ts';
import { anyoneOf, pathId } from './credentials.ts';

/** How long a link works. */
const LINK_MS = 5 * 60_000;

/** What each representation is, and the end of its file's name. */
const FORMAT_OF: Readonly<Record<Representation, FileFormat>> = {
  npy: 'npy',
  npz: 'npz',
  safetensors: 'safetensors',
  'branchkey-npy': 'npy',
  'branchkey-npz': 'npz',
};

const REPRESENTATIONS = Object.keys(FORMAT_OF) as readonly Representation[];
const FILE_FORMATS = Object.keys(MEDIA_TYPES) as readonly FileFormat[];

export function fileRoutes(app: FastifyInstance, context: RouteContext): void {
  const { domain } = context;

  app.get(`${API_PREFIX}/aggregations/:id`, async (request): Promise<AggregationBody> => {
    const { leaf } = await anyoneOf(domain.db, request);
    const id = pathId(request, 'aggregation');
    const result = leaf ? await getResultFor(domain.db, id, leaf) : await getResult(domain.db, id);
    const format = queryFormat(request, FILE_FORMATS);
    if (format === undefined) return { ...result, download_url: downloadLink(context, id, leaf?.id ?? '') };
    const { byteLength, sha256 } = await prepare(context, result, format);
    const download_url = downloadLink(context, id, leaf?.id ?? '', format);
    return { ...result, byte_length: byteLength, sha256, download_url };
  });

  app.route({
    method: ['GET', 'HEAD'],
    url: `${API_PREFIX}/files/:id`,
    handler: async (request, reply) => {
      const id = pathId(request, 'file');
      const leafId = await checkLink(context, request, id);
      const sum = await findSum(domain.db, id);
      if (sum !== undefined) {
        const { byte_length: byteLength, sha256 } = sum;
        const type = MEDIA_TYPES.safetensors;
        return sendBlob(context, request, reply, {
          id,
          byteLength,
          sha256,
          type,
          ending: 'partial.safetensors',
        });
      }
      const asked = queryFormat(request, REPRESENTATIONS);
      if (asked === undefined)
        reply.header('vary', [reply.getHeader('vary') ?? [], 'Accept'].flat().join(', '));
      const representation = asked ?? acceptedFormat(request.headers.accept) ?? 'npy';
      return sendFile(context, request, reply, await getResult(domain.db, id), representation, leafId);
    },
  });
}

/**
 * An absolute link to a file that works without credentials for five minutes; `leafId` is empty for operators. Signed is
 * who may fetch what until when; in which format is the reader's own affair.
 */
export function downloadLink(
  context: RouteContext,
  id: string,
  leafId: string,
  representation?: Representation,
): string {
  const expires = context.domain.now() + LINK_MS;
  const query = new URLSearchParams({
    leaf: leafId,
    expires: String(expires),
    signature: signLink(context.linkKey, id, leafId, expires),
    ...(representation === undefined ? {} : { format: representation }),
  });
  return `${context.baseUrl()}${paths.file(id)}?${query}`;
}

/**
 * Has the file of a link made before the link is given: a failure is told where it is looked for, and the reader of the
 * link finds bytes.
 */
export async function prepare(
  context: RouteContext,
  result: Result,
  representation: Representation,
): Promise<Pick<HeldFile, 'byteLength' | 'sha256'>> {
  const file = await context.representations.hold(result, representation);
  file.release();
  return file;
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

/** Sends the file of an aggregation, or the part of it that was asked for. Throws Refusal. */
export async function sendFile(
  context: RouteContext,
  request: FastifyRequest,
  reply: FastifyReply,
  result: Result,
  representation: Representation,
  leafId: string,
): Promise<FastifyReply> {
  const id = result.aggregation_id;
  const file = await context.representations.hold(result, representation);
  reply.raw.once('close', file.release);
  if (reply.raw.destroyed) file.release();
  const format = FORMAT_OF[representation];
  const isOurs = representation === format && representation !== 'npy';
  const onWhole = () => {
    if (leafId === '') return;
    markFetched(context.domain, id, leafId).catch((error: unknown) =>
      request.log.error({ err: error }, 'a fetch could not be noted'),
    );
  };
  const type = isOurs ? MEDIA_TYPES[format] : 'application/octet-stream';
  const named = { ...file, name: id, type, ending: format };
  return sendBlob(context, request, reply, named, onWhole);
}

/** A blob and what its reader is told of it. */
interface SentBlob {
  readonly id: string;
  readonly byteLength: number;
  /** Lower-case hexadecimal. */
  readonly sha256: string;
  readonly type: string;
  /** The file's name: the id of the blob unless given. */
  readonly name?: string;
  /** And how it ends. */
  readonly ending: string;
}

/** Sends a blob, or the part of it that was asked for. @param onWhole called when its last byte is out */
function sendBlob(
  context: RouteContext,
  request: FastifyRequest,
  reply: FastifyReply,
  { id, byteLength: size, sha256, type, name = id, ending }: SentBlob,
  onWhole: () => void = () => {},
): FastifyReply {
  const etag = `"${sha256}"`;
  reply
    .header('content-type', type)
    .header('content-disposition', `attachment; filename="${name}.${ending}"`)
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
  if (end === size - 1) reply.raw.once('finish', onWhole);
  return reply.send(context.domain.blobs.read(id, { start, end }));
}

/** What `format` in the query says; undefined when it is not there. Throws Refusal `query-invalid`. */
function queryFormat<T extends string>(request: FastifyRequest, known: readonly T[]): T | undefined {
  const { format } = request.query as Readonly<Record<string, unknown>>;
  if (format === undefined) return undefined;
  const found = known.find((name) => name === format);
  if (found !== undefined) return found;
  throw new Refusal('malformed', 'query-invalid', `"format" in the query is one of ${known.join(', ')}`);
}

/**
 * The format that `Accept` (RFC 9110) likes best among ours; undefined when it names none of them, whatever else it
 * says: some clients have a slip in theirs, and all of them mean weights.
 */
export function acceptedFormat(header: string | undefined): FileFormat | undefined {
  let best: FileFormat | undefined;
  let bestQuality = 0;
  for (const entry of (header ?? '').split(',')) {
    const [type = '', ...parameters] = entry.split(';').map((part) => part.trim().toLowerCase());
    const format = FILE_FORMATS.find((name) => MEDIA_TYPES[name] === type);
    const weight = parameters.find((parameter) => parameter.startsWith('q='))?.slice(2) ?? '1';
    const quality = /^(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)$/.test(weight) ? Number(weight) : 0;
    if (format === undefined || quality <= bestQuality) continue;
    best = format;
    bestQuality = quality;
  }
  return best;
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
