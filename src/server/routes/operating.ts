/** The operators' part of Cambium's own API: trees, branches, leaves, runs, rounds. */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import {
  type AggregationBody,
  API_PREFIX,
  type BranchChange,
  type CredentialsBody,
  ROUND_STATUSES,
  type RoundStatus,
  type RunChange,
  type SumLinkBody,
} from '../../wire/cambium.ts';
import { averageOf } from '../domain/averages.ts';
import { changeBranch, deleteBranch } from '../domain/branches.ts';
import { closeNow, excludeLeaf, giveUpRound, retryRound } from '../domain/correcting.ts';
import { createLeaf, listLeaves, revokeLeaf } from '../domain/leaves.ts';
import { listMetrics } from '../domain/metrics.ts';
import { Refusal } from '../domain/refusal.ts';
import { listRounds } from '../domain/round-view.ts';
import { changeRun, getRun, listRuns, resetModel } from '../domain/runs.ts';
import {
  createBranch,
  createTree,
  getBranch,
  listBranches,
  listTrees,
  type NewBranch,
} from '../domain/trees.ts';
import { getSum } from '../domain/upstream.ts';
import type { RouteContext } from './context.ts';
import { anyoneOf, isId, operatorOf, pathId } from './credentials.ts';
import { downloadLink } from './files.ts';
import { bodies } from './schemas.ts';

export function operatingRoutes(app: FastifyInstance, context: RouteContext): void {
  const { domain } = context;
  const { db } = domain;
  app.get(at('/branches/:id/run'), async (request) => {
    const { leaf } = await anyoneOf(db, request);
    const run = await getRun(domain, pathId(request, 'branch'));
    if (leaf !== undefined && leaf.branch_id !== run.branch_id) {
      throw new Refusal('forbidden', 'branch-other', 'the leaf belongs to another branch');
    }
    return run;
  });

  app.register(async (scope) => {
    // Before any body is read: nobody else gets that far.
    scope.addHook('onRequest', async (request) => {
      await operatorOf(db, request);
    });
    operatorRoutes(scope, context);
  });
}

function operatorRoutes(app: FastifyInstance, context: RouteContext): void {
  const { domain } = context;
  const { db } = domain;

  app.get(at('/trees'), async () => ({ items: await listTrees(domain) }));

  app.post(at('/trees'), { schema: { body: bodies.tree } }, async (request, reply) => {
    const owner = await operatorOf(db, request);
    const { name } = request.body as { name: string };
    return reply.status(201).send(await createTree(domain, owner, name));
  });

  app.get(at('/branches'), async () => ({ items: await listBranches(domain) }));

  app.post(at('/branches'), { schema: { body: bodies.branch } }, async (request, reply) => {
    return reply.status(201).send(await createBranch(domain, request.body as NewBranch));
  });

  app.get(at('/branches/:id'), async (request) => {
    return getBranch(domain, pathId(request, 'branch'));
  });

  app.patch(at('/branches/:id'), { schema: { body: bodies.branchChange } }, async (request) => {
    return changeBranch(domain, pathId(request, 'branch'), request.body as BranchChange);
  });

  app.delete(at('/branches/:id'), async (request, reply) => {
    const id = pathId(request, 'branch');
    const { tree_id } = await getBranch(domain, id);
    for (const leaf of await deleteBranch(domain, id)) {
      await context.broker.removeLeaf({ id: leaf, branch_id: id, tree_id });
    }
    domain.signals.emit(`notices:${id}`);
    return reply.status(204).send();
  });

  app.get(at('/branches/:id/runs'), async (request) => {
    return { items: await listRuns(domain, pathId(request, 'branch')) };
  });

  app.post(at('/branches/:id/run'), { schema: { body: bodies.run } }, async (request) => {
    return changeRun(domain, pathId(request, 'branch'), (request.body as RunChange).run_status);
  });

  app.post(at('/branches/:id/run/reset-model'), async (request) => {
    return resetModel(domain, pathId(request, 'branch'));
  });

  app.get(at('/branches/:id/rounds'), async (request) => {
    const id = pathId(request, 'branch');
    const items = await listRounds(db, id, {
      run: queryNumber(request, 'run'),
      status: queryStatus(request),
      limit: queryNumber(request, 'limit'),
    });
    return { items };
  });

  app.get(at('/branches/:id/metrics'), async (request) => {
    return { items: await listMetrics(domain, pathId(request, 'branch')) };
  });

  app.post(at('/rounds/:id/retry'), async (request) => {
    return retryRound(domain, pathId(request, 'round'));
  });

  app.post(at('/rounds/:id/close'), async (request) => {
    return closeNow(domain, pathId(request, 'round'));
  });

  app.post(at('/rounds/:id/exclude'), { schema: { body: bodies.exclusion } }, async (request) => {
    const { leaf_id } = request.body as { leaf_id: string };
    return excludeLeaf(domain, pathId(request, 'round'), leaf_id);
  });

  app.post(
    at('/rounds/:id/average'),
    { schema: { body: bodies.average } },
    async (request): Promise<AggregationBody> => {
      const { branch_id } = request.body as { branch_id: string };
      const result = await averageOf(domain, pathId(request, 'round'), branch_id);
      return { ...result, download_url: downloadLink(context, result.aggregation_id, '') };
    },
  );

  app.get(at('/rounds/:id/sum'), async (request): Promise<SumLinkBody> => {
    const sum = await getSum(db, pathId(request, 'round'));
    return { ...sum, download_url: downloadLink(context, sum.file_id, '') };
  });

  app.post(at('/rounds/:id/discard'), async (request) => {
    return giveUpRound(domain, pathId(request, 'round'));
  });

  app.get(at('/leaves'), async (request) => {
    const { branch } = request.query as { branch?: unknown };
    if (branch !== undefined && (typeof branch !== 'string' || !isId(branch))) {
      throw new Refusal('malformed', 'query-invalid', '"branch" in the query must be the id of a branch');
    }
    return { items: await listLeaves(domain, branch) };
  });

  app.post(at('/leaves'), { schema: { body: bodies.leaf } }, async (request, reply) => {
    const leaf = await createLeaf(domain, request.body as { name: string; branch_id: string });
    await context.broker.addLeaf(leaf);
    const credentials: CredentialsBody = {
      server: context.baseUrl(),
      id: leaf.id,
      name: leaf.name,
      session_token: leaf.token,
      owner_id: leaf.user_id,
      tree_id: leaf.tree_id,
      branch_id: leaf.branch_id,
      leaf_id: leaf.id,
      leaf_name: leaf.name,
      leaf_session_token: leaf.token,
      leaf_password: leaf.token,
      performance_analyser_username: leaf.id,
      performance_analyser_password: leaf.token,
      response_host: new URL(context.baseUrl()).hostname,
      ...context.broker.credentials(leaf.branch_id),
    };
    return reply.status(201).send(credentials);
  });

  app.delete(at('/leaves/:id'), async (request, reply) => {
    await context.broker.removeLeaf(await revokeLeaf(domain, pathId(request, 'leaf')));
    return reply.status(204).send();
  });
}

/** A path of the API. */
function at(path: string): string {
  return `${API_PREFIX}${path}`;
}

function queryStatus(request: FastifyRequest): RoundStatus | undefined {
  const { status } = request.query as Readonly<Record<string, unknown>>;
  const found = ROUND_STATUSES.find((known) => known === status);
  if (status === undefined || found !== undefined) return found;
  throw new Refusal(
    'malformed',
    'query-invalid',
    `"status" in the query is one of ${ROUND_STATUSES.join(', ')}`,
  );
}

/** A number from 1 in the query; undefined when it is not given. Throws Refusal `query-invalid`. */
export function queryNumber(request: FastifyRequest, name: string): number | undefined {
  const value = (request.query as Readonly<Record<string, unknown>>)[name];
  if (value === undefined) return undefined;
  if (typeof value !== 'string' || !/^[1-9]\d{0,8}$/.test(value)) {
    throw new Refusal(
      'malformed',
      'query-invalid',
      `${JSON.stringify(name)} in the query must be a whole number from 1`,
    );
  }
  return Number(value);
}
