/** The leaves' part of Cambium's own API that is plain JSON. */
import type { FastifyInstance } from 'fastify';
import { API_PREFIX, type AuthenticatedBody, type MetricsChange } from '../../wire/cambium.ts';
import { addMetrics } from '../domain/metrics.ts';
import { listOwnUpdates } from '../domain/own-updates.ts';
import { Refusal } from '../domain/refusal.ts';
import type { RouteContext } from './context.ts';
import { leafOf, leafOfPath, pathId } from './credentials.ts';
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

  app.get(`${API_PREFIX}/leaves/:id/updates`, async (request) => {
    const leaf = await leafOfPath(domain.db, request);
    const { sha256 } = request.query as { sha256?: unknown };
    if (sha256 !== undefined && !(typeof sha256 === 'string' && /^[0-9a-f]{64}$/.test(sha256))) {
      throw new Refusal(
        'malformed',
        'query-invalid',
        '"sha256" in the query is one in lower-case hexadecimal',
      );
    }
    return { items: await listOwnUpdates(domain.db, leaf, sha256) };
  });

  app.post(
    `${API_PREFIX}/aggregations/:id/metrics`,
    {
      schema: { body: bodies.metrics },
      // Before any body is read: nobody else gets that far.
      onRequest: async (request) => {
        await leafOf(domain.db, request);
      },
    },
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
