/**
 * Every answer of 400 and above is JSON with `error`, `message` and `code`, whoever found the fault: the domain, a
 * route, fastify, or the HTTP parser. What nobody expected is logged, and the sender learns no more than that.
 */
import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { ErrorBody } from '../../wire/cambium.ts';
import { Refusal, type RefusalReason } from '../domain/refusal.ts';

const STATUS: Readonly<Record<RefusalReason, number>> = {
  malformed: 400,
  unauthenticated: 401,
  forbidden: 403,
  missing: 404,
  unacceptable: 406,
  'too-slow': 408,
  conflict: 409,
  'too-large': 413,
  unprocessable: 422,
  'disk-full': 507,
};

/** Faults that fastify and its plugins find, by their codes. */
const FRAMEWORK: Readonly<Record<string, readonly [status: number, code: string, message?: string]>> = {
  FST_ERR_VALIDATION: [422, 'request-invalid'],
  FST_ERR_CTP_INVALID_JSON_BODY: [400, 'json-invalid', 'the body is not valid JSON'],
  FST_ERR_CTP_EMPTY_JSON_BODY: [400, 'json-invalid', 'the body is empty, JSON was expected'],
  FST_ERR_CTP_BODY_TOO_LARGE: [413, 'body-too-large'],
  FST_ERR_CTP_INVALID_MEDIA_TYPE: [415, 'media-type-unsupported'],
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: [
    400,
    'upload-incomplete',
    'the body has another length than its header says',
  ],
  FST_ERR_BAD_URL: [400, 'path-invalid', 'the path is not valid'],
  FST_INVALID_MULTIPART_CONTENT_TYPE: [415, 'media-type-unsupported', 'the body must be multipart/form-data'],
  FST_MP_PREMATURE_CLOSE: [400, 'upload-incomplete', 'the upload ended before its last byte'],
};

/** The body of an error answer. */
export function errorBody(code: string, message: string, details?: ErrorBody['details']): ErrorBody {
  return { error: message, message, code, ...(details === undefined ? {} : { details }) };
}

/** Answers with an error. */
export function sendError(reply: FastifyReply, status: number, body: ErrorBody): FastifyReply {
  return reply
    .status(status)
    .header('cache-control', 'no-store')
    .type('application/json; charset=utf-8')
    .send(JSON.stringify(body));
}

/** Turns whatever a handler threw into an answer. */
export function handleError(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  if (error instanceof Refusal) {
    if (error.reason === 'unauthenticated' && !reply.hasHeader('www-authenticate')) {
      reply.header('www-authenticate', 'Bearer realm="cambium"');
    }
    // Nothing more is going to come, or too late: the connection cannot be used for another request.
    if (error.reason === 'too-slow') reply.header('connection', 'close');
    return sendError(reply, STATUS[error.reason], errorBody(error.code, error.message, error.details));
  }
  const { code = '', statusCode = 500, message } = error as Partial<FastifyError>;
  const known = FRAMEWORK[code];
  if (known !== undefined) {
    const [status, ours, sentence] = known;
    return sendError(reply, status, errorBody(ours, sentence ?? message ?? ours));
  }
  if (error instanceof SyntaxError && statusCode === 400) {
    return sendError(reply, 400, errorBody('json-invalid', 'the body is not valid JSON'));
  }
  if (statusCode >= 400 && statusCode < 500) {
    return sendError(
      reply,
      statusCode,
      errorBody('request-invalid', message ?? STATUS_CODES[statusCode] ?? ''),
    );
  }
  request.log.error({ err: error }, 'unexpected error');
  return sendError(
    reply,
    500,
    errorBody('internal', 'the server met an unexpected error; its log says more under this request'),
  );
}

/** Answers for paths that nobody has, and for methods that a path does not have. Register before any route. */
export function answerUnknownPaths(app: FastifyInstance): void {
  const methods = new Map<string, Set<string>>();
  app.addHook('onRoute', ({ url, method }) => {
    const known = methods.get(url) ?? new Set();
    methods.set(url, known);
    for (const name of [method].flat()) known.add(name);
  });
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?', 1)[0]!.split('/');
    for (const [url, allowed] of methods) {
      const pattern = url.split('/');
      const isMatch =
        pattern.length === path.length &&
        pattern.every((part, i) => (part.startsWith(':') ? path[i] !== '' : part === path[i]));
      if (!isMatch || allowed.has(request.method)) continue;
      reply.header('allow', [...allowed].sort().join(', '));
      return sendError(
        reply,
        405,
        errorBody('method-not-allowed', `${request.method} is not a method of this path`),
      );
    }
    return sendError(reply, 404, errorBody('path-unknown', 'there is nothing at this path'));
  });
}

/** Answers what is not even HTTP, then hangs up. */
export function answerBadHttp(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const [status, code] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? [431, 'headers-too-large']
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? [408, 'request-timeout']
        : [400, 'http-invalid'];
  const body = JSON.stringify(errorBody(code as string, STATUS_CODES[status as number]!));
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status as number]}\r\nContent-Type: application/json; charset=utf-8\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
