/**
 * The generations of the BranchKey protocol (wire/branchkey.ts), all on one server. Their clients compare status codes
 * for equality, send JSON without a content type, and read either `error` or `message` of a failure.
 */
import type { IncomingMessage } from 'node:http';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import {
  type AuthenticateData,
  bearerPaths,
  type DownloadData,
  type Envelope,
  type LoginData,
  type LoginRequest,
  type LogoutData,
  loginPaths,
  type PerformanceRequest,
  paths,
  type RunData,
} from '../../wire/branchkey.ts';
import { type Leaf, logIn, logOut, type TokenKind } from '../domain/leaves.ts';
import { addMetrics } from '../domain/metrics.ts';
import { Refusal } from '../domain/refusal.ts';
import type { Representation } from '../domain/representations.ts';
import { getResultFor } from '../domain/results.ts';
import { getRun } from '../domain/runs.ts';
import { branchkeyUpload } from './branchkey-upload.ts';
import type { RouteContext } from './context.ts';
import { basicLeafOf, basicPair, isId, leafOf, pathId } from './credentials.ts';
import { downloadLink, prepare, sendFile } from './files.ts';

/** How the generations differ that share their shapes. */
interface Generation {
  readonly paths: typeof paths | typeof bearerPaths;
  /** What `downloads` hold. */
  readonly representation: Representation;
  identify(request: FastifyRequest): Promise<{ readonly leaf: Leaf; readonly kind: TokenKind }>;
}

/** Metrics are short; a body of GET, which fastify does not read, ends here too. */
const MAX_JSON_BYTES = 1 << 20;

export async function branchkeyRoutes(app: FastifyInstance, context: RouteContext): Promise<void> {
  const { db } = context.domain;
  const basic: Generation = {
    paths,
    representation: 'branchkey-npy',
    identify: (request) => basicLeafOf(db, request),
  };
  const bearer: Generation = {
    paths: bearerPaths,
    representation: 'branchkey-npz',
    identify: async (request) => ({ leaf: await leafOf(db, request), kind: 'session' }),
  };
  await app.register(async (scope) => {
    parseEverythingAsJson(scope);
    await scope.register(async (inner) => {
      challengeBasic(inner);
      sessionRoutes(inner, context);
      jsonRoutes(inner, context, basic);
      // 2.4.0 sends its metrics so.
      inner.get(paths.performance(), async (request, reply) => {
        const { leaf } = await basic.identify(request);
        return addPerformance(context, leaf, parseJson(await readText(request.raw)), reply);
      });
    });
    jsonRoutes(scope, context, bearer);
  });
  await app.register(async (scope) => {
    challengeBasic(scope);
    await branchkeyUpload(scope, context, paths.upload(), basic.identify);
  });
  await app.register((scope) => branchkeyUpload(scope, context, bearerPaths.upload(), bearer.identify));
}

function parseEverythingAsJson(app: FastifyInstance): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'string', bodyLimit: MAX_JSON_BYTES }, (_request, text, done) => {
    try {
      done(null, parseJson(text as string));
    } catch (error) {
      done(error as Refusal);
    }
  });
}

/** A refusal for want of credentials says which kind is wanted. */
function challengeBasic(app: FastifyInstance): void {
  app.addHook('onError', async (_request, reply, error) => {
    if (error instanceof Refusal && error.reason === 'unauthenticated') {
      reply.header('www-authenticate', 'Basic realm="cambium", charset="UTF-8"');
    }
  });
}

/** Logging in and out up to 2.2, and authenticating from 2.3 on. */
function sessionRoutes(app: FastifyInstance, { domain, broker }: RouteContext): void {
  app.put(loginPaths.login(), async (request, reply): Promise<void> => {
    const { user, password } = basicPair(request);
    const place = loginRequest(request.body);
    const { leaf, accessToken, accessHash } = await logIn(domain, place, user, password);
    await broker.beginSession(leaf, accessHash);
    const data: LoginData = {
      id: leaf.id,
      access_token: accessToken,
      logged_in: true,
      status: 'logged_in',
    };
    return reply.status(201).send({ data } satisfies Envelope<LoginData>);
  });

  app.put(loginPaths.logout(), async (request): Promise<Envelope<LogoutData>> => {
    const { user, password } = basicPair(request);
    const leaf = await logOut(domain, user, password);
    await broker.beginSession(leaf); // with its session token again
    return { data: { id: leaf.id, logged_in: false, status: 'logged_out' } };
  });

  app.get(paths.authenticate(), async (request): Promise<Envelope<AuthenticateData>> => {
    const { leaf, kind } = await basicLeafOf(domain.db, request);
    if (kind === 'session') await broker.beginSession(leaf);
    const { id, name, tree_id, branch_id, user_id } = leaf;
    return { data: { id, name, tree_id, branch_id, user_id } };
  });
}

function jsonRoutes(app: FastifyInstance, context: RouteContext, generation: Generation): void {
  const { domain } = context;
  const { identify, representation } = generation;

  app.get(pattern(generation.paths.run), async (request): Promise<Envelope<RunData>> => {
    const { leaf } = await identify(request);
    const branchId = pathId(request, 'branch');
    if (leaf.branch_id === branchId) await context.broker.hearRun(leaf);
    const { branch_id, run_status, run_number } = await getRun(domain, branchId);
    if (leaf.branch_id !== branch_id) {
      throw new Refusal('forbidden', 'branch-other', 'the leaf belongs to another branch');
    }
    return { data: { run_status, run_number } };
  });

  app.get(pattern(generation.paths.download), async (request, reply) => {
    const { leaf, kind } = await identify(request);
    const id = pathId(request, 'aggregation');
    const result = await getResultFor(domain.db, id, leaf);
    if (kind === 'access') return sendFile(context, request, reply, result, representation, leaf.id);
    await prepare(context, result, representation);
    const data: DownloadData = { download_url: downloadLink(context, id, leaf.id, representation) };
    return reply.send({ data } satisfies Envelope<DownloadData>);
  });

  app.post(generation.paths.performance(), async (request, reply) => {
    const { leaf } = await identify(request);
    return addPerformance(context, leaf, request.body, reply);
  });
}

async function addPerformance(
  { domain }: RouteContext,
  leaf: Leaf,
  body: unknown,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const { mode = 'test', aggregation_id, data } = performanceRequest(body);
  await addMetrics(domain, leaf, aggregation_id, { mode, data: parsed(data) });
  return reply.status(201).send({ data: {} });
}

/** The pattern of a path with an id in it. */
function pattern(path: (id: string) => string): string {
  return path('ID').replace('ID', ':id');
}

function loginRequest(body: unknown): LoginRequest {
  const { tree_id, branch_id } = (body ?? {}) as Partial<Record<keyof LoginRequest, unknown>>;
  if (typeof tree_id !== 'string' || typeof branch_id !== 'string') {
    throw new Refusal('unprocessable', 'request-invalid', 'the body needs "tree_id" and "branch_id"');
  }
  if (!isId(branch_id)) {
    throw new Refusal('missing', 'branch-unknown', 'there is no branch with this id');
  }
  return { tree_id, branch_id };
}

function performanceRequest(body: unknown): PerformanceRequest {
  const fields = (body ?? {}) as Partial<Record<keyof PerformanceRequest, unknown>>;
  const { mode, aggregation_id, data } = fields;
  if (typeof aggregation_id !== 'string' || data === undefined) {
    throw new Refusal('unprocessable', 'request-invalid', 'the body needs "aggregation_id" and "data"');
  }
  if (!isId(aggregation_id)) {
    throw new Refusal('missing', 'aggregation-unknown', 'there is no aggregation with this id');
  }
  return { ...fields, mode, aggregation_id, data } as PerformanceRequest; // the mode is checked by the domain
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

/** Throws Refusal `json-invalid`. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new Refusal('malformed', 'json-invalid', 'the body is not valid JSON', undefined, { cause });
  }
}

/** Throws Refusal `body-too-large`, `upload-incomplete`. */
async function readText(body: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let byteLength = 0;
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      byteLength += chunk.byteLength;
      if (byteLength > MAX_JSON_BYTES) {
        throw new Refusal('too-large', 'body-too-large', `the body may have ${MAX_JSON_BYTES} bytes at most`);
      }
      chunks.push(chunk);
    }
  } catch (cause) {
    if (cause instanceof Refusal) throw cause;
    throw new Refusal('malformed', 'upload-incomplete', 'the body ended before its last byte', undefined, {
      cause,
    });
  }
  return Buffer.concat(chunks).toString('utf8');
}
