import type { FastifyInstance } from 'fastify';
import { paths } from '../../wire/cambium.ts';
import type { RouteContext } from './context.ts';
import { describeApi } from './description.ts';

/** What the API is, and whether it is there; both without credentials. */
export function openapiRoutes(app: FastifyInstance, { version }: RouteContext): void {
  const description = describeApi(version);
  app.get(paths.openapi(), async () => description);
  app.get(paths.health(), async () => ({ status: 'ok', version }));
}
