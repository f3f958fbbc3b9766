/** The leaves' part of Cambium's own API that is plain JSON. */
import type { FastifyInstance } from 'fastify';
import { API_PREFIX, type AuthenticatedBody, type MetricsChange } from '../../wire/cambium.ts';
import { addMetrics } from '../domain/metrics.ts';
import type { RouteContext } from './context.ts';
import { leafOf, pathId } from './credentials.ts';
import { idempotencyKey } from './idempotency.ts';
import { bodies } from './schemas.ts';

export function leafRoutes(app: FastifyInstance, { domain }: RouteContext): void {
  app.get(`${API_PREFIX}/leaves/me`, async (request): Promise<AuthenticatedBody> => {
    const leaf = await leafOf(domain.db, request);
    return {
      leaf_id: leaf.id,
      leaf_name: leaf.name,
      branch_id: leaf.branch_id,
      tree_id: leaf.tree_id,
      user_id: leaf.user_id,
    };
  });

  app.post(
    `${API_PREFIX}/aggregations/:id/metrics`,
    { schema: { body: bodies.metrics } },
    async (request, reply) => {
      const leaf = await leafOf(domain.db, request);
      const metrics = await addMetrics(
        domain,
        leaf,
        pathId(request, 'aggregation'),
        request.body as MetricsChange, // the mode is checked by the domain
        idempotencyKey(request),
      );
      return reply.status(201).send(metrics);
    },
  );
}
