import { type BranchBody, paths } from '../wire/cambium.ts';
import { UsageError } from './exit.ts';
import { list, type OperatorOptions, openOperator } from './operator.ts';
import { printJson, printLine, printTable } from './output.ts';

interface CreateOptions extends OperatorOptions {
  readonly tree: string;
  readonly target: string;
  readonly parent?: string;
}

/** `cambium branch create NAME --tree ID --target N` */
export async function createBranch(name: string, options: CreateOptions): Promise<void> {
  const { tree, parent, signal } = options;
  const target = Number(options.target);
  if (!Number.isInteger(target) || target < 1) {
    throw new UsageError(`--target ${options.target}: a whole number of updates, at least 1`);
  }
  const http = await openOperator(options);
  const branch = (await http.json({
    method: 'POST',
    target: paths.branches(),
    json: {
      name,
      tree_id: tree,
      aggregation_target: target,
      ...(parent !== undefined && { parent_id: parent }),
    },
    signal,
  })) as BranchBody;
  if (options.json) printJson(branch);
  else
    printLine(`branch ${branch.name}: ${branch.id}, a round closes at ${branch.aggregation_target} updates`);
}

/** `cambium branch list` */
export async function listBranches(options: OperatorOptions): Promise<void> {
  const branches = await list<BranchBody>(await openOperator(options), paths.branches(), options);
  if (options.json) return printJson(branches);
  printTable(
    ['branch', 'name', 'tree', 'target'],
    branches.map((branch) => [branch.id, branch.name, branch.tree_id, branch.aggregation_target]),
  );
}
