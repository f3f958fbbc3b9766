import { type BranchBody, paths } from '../wire/cambium.ts';
import { list, type OperatorOptions, openOperator } from './operator.ts';
import { counted, printJson, printLine, printTable } from './output.ts';
import { type PolicyOptions, policyOf } from './policy.ts';

interface CreateOptions extends OperatorOptions, PolicyOptions {
  readonly tree: string;
  readonly target: string;
  readonly parent?: string;
}

/** `cambium branch create NAME --tree ID --target N` */
export async function createBranch(name: string, options: CreateOptions): Promise<void> {
  const { tree, parent, signal } = options;
  const policy = policyOf(options);
  const http = await openOperator(options);
  const branch = (await http.json({
    method: 'POST',
    target: paths.branches(),
    json: {
      name,
      tree_id: tree,
      ...policy,
      ...(parent !== undefined && { parent_id: parent }),
    },
    signal,
  })) as BranchBody;
  if (options.json) printJson(branch);
  else
    printLine(
      `branch ${branch.name}: ${branch.id}, a round closes at ${counted(branch.aggregation_target, 'update')}`,
    );
}

/** `cambium branch set BRANCH`: changes its policy or its parent. */
export async function setBranch(
  id: string,
  options: OperatorOptions & PolicyOptions & { readonly parent?: string },
): Promise<void> {
  const { parent, signal } = options;
  const json = {
    ...policyOf(options),
    ...(parent === undefined ? {} : { parent_id: parent === 'none' ? null : parent }),
  };
  const http = await openOperator(options);
  const branch = (await http.json({ method: 'PATCH', target: paths.branch(id), json, signal })) as BranchBody;
  if (options.json) printJson(branch);
  else printLine(`branch ${branch.name}: ${JSON.stringify(branch.policy)}`);
}

/** `cambium branch delete BRANCH` */
export async function deleteBranch(id: string, options: OperatorOptions): Promise<void> {
  const http = await openOperator(options);
  const body = await http.json({ method: 'DELETE', target: paths.branch(id), signal: options.signal });
  if (options.json) printJson(body ?? {});
  else printLine(`branch ${id}: deleted, its leaves are revoked`);
}

/** `cambium branch list` */
export async function listBranches(options: OperatorOptions): Promise<void> {
  const branches = await list<BranchBody>(await openOperator(options), paths.branches(), options);
  if (options.json) return printJson(branches);
  printTable(
    ['branch', 'name', 'tree', 'parent', 'target'],
    branches.map(({ id, name, tree_id, parent_id, aggregation_target }) => [
      ...[id, name, tree_id, parent_id ?? '-'],
      aggregation_target,
    ]),
  );
}
