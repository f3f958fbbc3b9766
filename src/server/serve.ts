/** The server as a whole: data directory, domain, routes, port; and the way down, which never hangs. */
import { randomBytes, randomUUID } from 'node:crypto';
import { createServer, type RequestListener, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, isIP } from 'node:net';
import Fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from 'fastify';
import { pino } from 'pino';
import { CambiumError } from '../errors.ts';
import type { Jobs } from '../node/jobs.ts';
import { type BrokerOptions, readBrokerOptions, startBroker } from './broker/broker.ts';
import { noBroker } from './broker/contract.ts';
import { BrokerRegister } from './broker/register.ts';
import { Aggregator } from './domain/aggregations.ts';
import { Deadlines } from './domain/deadlines.ts';
import type { Domain } from './domain/domain.ts';
import { addOperator, hasOperators } from './domain/operators.ts';
import { Representations } from './domain/representations.ts';
import { Signals } from './domain/signals.ts';
import { sweepBlobs } from './domain/sweep.ts';
import { branchkeyRoutes } from './routes/branchkey.ts';
import type { RouteContext } from './routes/context.ts';
import { allowOrigins } from './routes/cors.ts';
import { answerBadHttp, answerUnknownPaths, errorBody, handleError, sendError } from './routes/errors.ts';
import { eventRoutes } from './routes/events.ts';
import { fileRoutes } from './routes/files.ts';
import { leafRoutes } from './routes/leaves.ts';
import { openapiRoutes } from './routes/openapi.ts';
import { operatingRoutes } from './routes/operating.ts';
import { rabbitmqRoutes } from './routes/rabbitmq.ts';
import { resumableRoutes } from './routes/resumable.ts';
import { uploadRoutes } from './routes/uploads.ts';
import { Sockets } from './sockets.ts';
import { fileBlobs } from './store/blobs.ts';
import { type DataFolder, openDataFolder, readOperatorFile, writeOperatorFile } from './store/folder.ts';
import { getMeta, setMeta } from './store/migrations.ts';
import { Partials } from './store/partials.ts';
import { Spool, type SpoolOptions } from './store/spool.ts';
import { realTimers, type Timers } from './timers.ts';
import { newToken } from './tokens.ts';
import { Work } from './work.ts';

export interface ServerOptions {
  /** Made if it is missing. One process at a time may serve it. */
  readonly dataDir: string;
  /** Address to listen on, 127.0.0.1 by default. Others need TLS or a proxy that has it. */
  readonly host?: string | undefined;
  /** 8740 by default, 0 takes a free one. */
  readonly port?: number | undefined;
  /** Base of the links that are given out, for instance `https://average.example.org`; the address unless given. */
  readonly publicUrl?: string | undefined;
  /** Largest upload in bytes, 2 GiB by default. */
  readonly maxUploadBytes?: number | undefined;
  /** For how many rounds after its own an update is kept, 1 by default; 0 removes it with its aggregation. */
  readonly keepUpdates?: number | undefined;
  /** Web origins whose pages may call the API, none by default. */
  readonly corsOrigins?: readonly string[] | undefined;
  /** Address of the proxy whose forwarded headers are believed. */
  readonly behindProxy?: string | undefined;
  /** PEM texts of the certificate chain and its key: both or none. */
  readonly tlsCert?: string | undefined;
  readonly tlsKey?: string | undefined;
  /** RabbitMQ, beside server-sent events. It need not be there when the server starts. */
  readonly broker?: BrokerOptions | undefined;
  /** Does the heavy work; it stays the caller's, who closes it after the server. */
  readonly jobs: Jobs;
  /** Told by the health check. */
  readonly version?: string | undefined;
  /** Lines of JSON on stderr unless given. */
  readonly logger?: FastifyBaseLogger | undefined;
  /** For tests: milliseconds since the epoch. */
  readonly now?: (() => number) | undefined;
  /** For tests. */
  readonly timers?: Timers | undefined;
  /** For tests: how the spool opens files and asks the disk. */
  readonly spool?: Pick<SpoolOptions, 'openFile' | 'disk'> | undefined;
}

export interface RunningServer {
  /** Base URL of the address that is listened on. */
  readonly url: string;
  /** Absolute. */
  readonly dataDir: string;
  /** Absolute path of the credentials for operators. */
  readonly operatorFile: string;
  /** Ends streams, lets uploads that are under way finish for a few seconds, and gives the data directory back. */
  close(): Promise<void>;
}

const DEFAULT_PORT = 8740;
const DEFAULT_MAX_UPLOAD = 2 * 1024 ** 3;

/** A body from which nothing comes for so long is cut. */
const IDLE_MS = 60_000;

/** Any other silence of a connection ends it a little later, so that the answer to an idle body still gets out. */
const SOCKET_IDLE_MS = 75_000;

/** What is still open so long after `close` is cut. */
const GRACE_MS = 10_000;

/**
 * Starts a server. Rounds whose aggregation an earlier process left undone are taken up again.
 *
 * @throws CambiumError `broker-…`, `serve-insecure`, `serve-public-url`, `serve-tls`, `serve-address` (taken or not ours),
 *   `data-locked`, `state-newer`; UnavailableError `unavailable-libsql`
 */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const host = options.host ?? '127.0.0.1';
  checkExposure(host, options);
  const brokerSettings = options.broker && readBrokerOptions(options.broker);
  const now = options.now ?? Date.now;
  const timers = options.timers ?? realTimers;
  const log =
    options.logger ?? (pino({ level: 'info' }, pino.destination({ fd: 2, sync: true })) as FastifyBaseLogger);
  const maxUploadBytes = options.maxUploadBytes ?? DEFAULT_MAX_UPLOAD;
  const folder = await openDataFolder(options.dataDir);
  const closing = new AbortController();
  let broker = noBroker;
  try {
    const { db } = folder;
    const domain: Domain = {
      db,
      blobs: fileBlobs(folder.blobs, folder.spool),
      jobs: options.jobs,
      signals: new Signals(),
      log,
      now,
      keepUpdates: options.keepUpdates ?? 1,
      maxUpdateBytes: maxUploadBytes,
    };
    await sweepBlobs(domain);
    const aggregator = new Aggregator(domain);
    domain.signals.on('closed', (branchId) => aggregator.schedule(branchId));
    const deadlines = new Deadlines(domain, timers);
    const queueKey = await secretKey(folder, 'queue_key');
    if (brokerSettings !== undefined) broker = await startBroker(domain, timers, queueKey, brokerSettings);
    let url = '';
    const spool = new Spool(folder.spool, {
      maxBytes: maxUploadBytes,
      idleMs: IDLE_MS,
      timers,
      ...options.spool,
    });
    const context: RouteContext = {
      domain,
      aggregator,
      deadlines,
      broker,
      representations: new Representations(domain, (bytes) => spool.checkRoom(bytes), closing.signal),
      spool,
      partials: await Partials.open(folder.uploads, { now, openFile: options.spool?.openFile }),
      timers,
      work: new Work(),
      linkKey: await secretKey(folder, 'link_key'),
      maxUploadBytes,
      idleMs: IDLE_MS,
      baseUrl: () => options.publicUrl?.replace(/\/+$/, '') ?? url,
      version: options.version ?? 'unknown',
      closing: closing.signal,
    };
    const register = brokerSettings?.auth === 'http' ? new BrokerRegister(db, queueKey) : undefined;
    const sockets = new Sockets();
    const app = await createApp(context, register, sockets, log, options);
    try {
      await listen(app, host, options.port ?? DEFAULT_PORT);
      const { address, port } = app.server.address() as AddressInfo; // it listens on a port
      url = `${options.tlsCert === undefined ? 'http' : 'https'}://${isIP(address) === 6 ? `[${address}]` : address}:${port}`;
      await giveOperator(folder, context.baseUrl(), now);
      await aggregator.resume();
      deadlines.look();
    } catch (error) {
      await app.close();
      throw error;
    }
    let closed: Promise<void> | undefined;
    return {
      url,
      dataDir: folder.path,
      operatorFile: folder.operatorFile,
      close: () => (closed ??= shutDown(app, sockets, folder, context, closing)),
    };
  } catch (error) {
    await broker.close();
    await folder.close();
    throw error;
  }
}

/** All routes on one application; nothing listens yet. */
async function createApp(
  context: RouteContext,
  register: BrokerRegister | undefined,
  sockets: Sockets,
  logger: FastifyBaseLogger,
  { tlsCert, tlsKey, behindProxy, corsOrigins }: ServerOptions,
): Promise<FastifyInstance> {
  const app = Fastify({
    loggerInstance: logger,
    // Its line would show signed links; ours is below.
    logController: new LogController({ disableRequestLogging: true }),
    exposeHeadRoutes: false,
    // Ours answers in our own shape.
    return503OnClosing: false,
    trustProxy: behindProxy ?? false,
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false } },
    frameworkErrors: (error, request, reply) => {
      handleError(error, request, reply);
    },
    serverFactory: (handler) => {
      const tls = tlsCert !== undefined && tlsKey !== undefined ? { cert: tlsCert, key: tlsKey } : undefined;
      const server = tls ? tlsServer(tls, handler) : createServer(handler);
      server.requestTimeout = 0; // big uploads may take hours, only silence is cut
      server.timeout = SOCKET_IDLE_MS;
      server.keepAliveTimeout = SOCKET_IDLE_MS;
      server.on('clientError', answerBadHttp);
      sockets.watch(server, tls !== undefined);
      return server;
    },
  });
  app.addHook('preClose', async () => sockets.hangUp());
  app.addHook('onRequest', async (_request, reply) => {
    if (!context.closing.aborted) return;
    return sendError(reply, 503, errorBody('server-closing', 'the server is going down: try again later'));
  });
  app.addHook('onSend', async (_request, reply) => {
    if (context.closing.aborted) reply.header('connection', 'close');
    reply.header('x-content-type-options', 'nosniff');
    if (!reply.hasHeader('cache-control')) reply.header('cache-control', 'no-store');
  });
  app.addHook('onResponse', async (request, reply) => {
    request.log.info(
      {
        method: request.method,
        path: request.url.split('?', 1)[0],
        status: reply.statusCode,
        ms: Math.round(reply.elapsedTime),
        from: request.ip,
      },
      'answered',
    );
  });
  app.setErrorHandler(handleError);
  answerUnknownPaths(app);
  allowOrigins(app, corsOrigins ?? []);
  await app.register(async (scope) => {
    openapiRoutes(scope, context);
    operatingRoutes(scope, context);
    leafRoutes(scope, context);
    eventRoutes(scope, context);
    fileRoutes(scope, context);
  });
  await app.register(async (scope) => {
    uploadRoutes(scope, context);
    resumableRoutes(scope, context);
  });
  if (register !== undefined) {
    await app.register(async (scope) => rabbitmqRoutes(scope, register));
  }
  await app.register(async (scope) => branchkeyRoutes(scope, context));
  await app.ready();
  return app;
}

function tlsServer(tls: { readonly cert: string; readonly key: string }, handler: RequestListener): Server {
  try {
    return createTlsServer(tls, handler) as unknown as Server; // what is used of it, both kinds have
  } catch (cause) {
    throw new CambiumError(
      'serve-tls',
      `the TLS certificate or its key cannot be used: ${(cause as Error).message}`,
      {
        cause,
      },
    );
  }
}

async function listen(app: FastifyInstance, host: string, port: number): Promise<void> {
  try {
    await app.listen({ host, port });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== 'EADDRINUSE' && code !== 'EADDRNOTAVAIL' && code !== 'EACCES') throw cause;
    throw new CambiumError(
      'serve-address',
      `cannot listen on ${host} port ${port}: ${code === 'EADDRINUSE' ? 'it is taken, choose another --port' : (cause as Error).message}`,
      { cause },
    );
  }
}

async function shutDown(
  app: FastifyInstance,
  sockets: Sockets,
  folder: DataFolder,
  { aggregator, deadlines, broker, partials, timers, work }: RouteContext,
  closing: AbortController,
): Promise<void> {
  closing.abort();
  const cancel = timers.after(GRACE_MS, () => sockets.cut());
  let forget = () => {};
  // A job that never ends holds up nothing: its upload has no receipt.
  const patience = new Promise<void>((resolve) => {
    forget = timers.after(2 * GRACE_MS, resolve);
  });
  try {
    await app.close();
    await deadlines.close();
    await aggregator.close();
    await broker.close();
    await Promise.race([work.idle().then(() => partials.idle()), patience]);
  } finally {
    cancel();
    forget();
    await folder.close();
  }
}

/**
 * Makes the first operator, and keeps the file's address right from start to start. The file comes first: a process that
 * dies between the two finds it at the next start and goes on from there.
 */
async function giveOperator(folder: DataFolder, server: string, now: () => number): Promise<void> {
  const { db, operatorFile } = folder;
  const known = await readOperatorFile(operatorFile);
  const isFirst = !(await hasOperators(db));
  // An operator who took the file away does not want a new one.
  if (known === undefined && !isFirst) return;
  const { id, role, token } = known ?? { id: randomUUID(), role: 'operator', token: newToken() };
  if (known?.server !== server) await writeOperatorFile(operatorFile, { server, id, role, token });
  if (isFirst) await addOperator(db, { id, role, token, name: 'first operator' }, now());
}

/** A key of the server's own, made once for a data directory. */
async function secretKey({ db }: DataFolder, name: 'link_key' | 'queue_key'): Promise<string> {
  const known = await getMeta(db, name);
  if (known !== undefined) return known;
  const key = randomBytes(32).toString('base64url');
  await setMeta(db, name, key);
  return key;
}

function checkExposure(host: string, { tlsCert, tlsKey, behindProxy, publicUrl }: ServerOptions): void {
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new CambiumError('serve-tls', 'TLS needs both a certificate and its key');
  }
  if (host === '0.0.0.0' || host === '::') {
    if (publicUrl === undefined) {
      throw new CambiumError('serve-public-url', `${host} is no address for links: give --public-url`);
    }
  }
  const isLocal = host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
  if (!isLocal && tlsCert === undefined && behindProxy === undefined) {
    throw new CambiumError(
      'serve-insecure',
      `tokens would travel in clear text to ${host}: give --tls-cert and --tls-key, or --behind-proxy`,
    );
  }
}
