/**
 * The OpenAPI document of Cambium's own API, written from the tables in `description/`. A test holds them against the routes
 * that are registered.
 */
import { API_PREFIX } from '../../wire/cambium.ts';
import type { Operation } from './description/operation.ts';
import { results } from './description/results.ts';
import { rounds } from './description/rounds.ts';
import { server } from './description/server.ts';
import { trees } from './description/trees.ts';
import { updates } from './description/updates.ts';
import { id, schemas, string } from './schemas.ts';

/** Every operation below `/cambium/v1`. */
export const operations: readonly Operation[] = [...server, ...trees, ...rounds, ...updates, ...results];

/** The OpenAPI document. */
export function describeApi(version: string): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const operation of operations) {
    const path = API_PREFIX + operation.path;
    paths[path] = { ...paths[path], [operation.method]: describe(operation) };
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Cambium', version, license: { name: 'Apache-2.0', identifier: 'Apache-2.0' } },
    paths,
    components: {
      schemas,
      securitySchemes: {
        operator: { type: 'http', scheme: 'bearer', description: 'The token of an operator.' },
        leaf: { type: 'http', scheme: 'bearer', description: '<leaf id>:<session token>' },
      },
    },
  };
}

function describe(operation: Operation): object {
  const { path, summary, who, query = {}, headers = {}, status, answer, codes = [] } = operation;
  const { body, mediaTypes = { 'application/octet-stream': '' }, otherAnswers = {} } = operation;
  const parameter = (place: string) => (entry: [string, string]) => ({
    name: entry[0],
    in: place,
    description: entry[1],
    schema: string,
  });
  const schemes = who.split(' or ').filter((name) => name === 'operator' || name === 'leaf');
  return {
    summary,
    description: `For: ${who}.${codes.length > 0 ? ` Codes of refusals: ${codes.join(', ')}.` : ''}`,
    security: schemes.map((name) => ({ [name]: [] })),
    parameters: [
      ...(path.includes('{id}') ? [{ name: 'id', in: 'path', required: true, schema: id }] : []),
      ...Object.entries(query).map(parameter('query')),
      ...Object.entries(headers).map(parameter('header')),
    ],
    ...(body === undefined ? {} : { requestBody: { required: true, content: content(body, mediaTypes) } }),
    responses: {
      ...Object.fromEntries(
        Object.entries(otherAnswers).map(([other, description]) => [
          other,
          { description, ...answerHeaders(operation) },
        ]),
      ),
      [status]: {
        description: answer,
        ...answerHeaders(operation),
        ...(answer === 'nothing' ? {} : { content: answerContent(answer) }),
      },
      default: {
        description: 'A refusal.',
        content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } },
      },
    },
  };
}

function content(body: object | 'bytes', mediaTypes: Readonly<Record<string, string>>): object {
  if (body !== 'bytes') return { 'application/json': { schema: body } };
  return Object.fromEntries(
    Object.entries(mediaTypes).map(([type, description]) => [
      type,
      description === '' ? {} : { schema: { ...string, format: 'binary', description } },
    ]),
  );
}

function answerHeaders({ answerHeaders: headers }: Operation): object {
  if (headers === undefined) return {};
  const described = Object.entries(headers).map(([name, description]) => [
    name,
    { description, schema: string },
  ]);
  return { headers: Object.fromEntries(described) };
}

function answerContent(answer: string): object {
  if (answer === 'bytes') return { 'application/octet-stream': {} };
  if (answer === 'events') return { 'text/event-stream': {} };
  return { 'application/json': { schema: { $ref: `#/components/schemas/${answer}` } } };
}
