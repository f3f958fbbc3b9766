import { paths, type TreeBody } from '../wire/cambium.ts';
import { list, type OperatorOptions, openOperator } from './operator.ts';
import { printJson, printLine, printTable } from './output.ts';

/** `cambium tree create NAME` */
export async function createTree(name: string, options: OperatorOptions): Promise<void> {
  const http = await openOperator(options);
  const { signal } = options;
  const tree = (await http.json({
    method: 'POST',
    target: paths.trees(),
    json: { name },
    signal,
  })) as TreeBody;
  if (options.json) printJson(tree);
  else printLine(`tree ${tree.name}: ${tree.id}`);
}

/** `cambium tree list` */
export async function listTrees(options: OperatorOptions): Promise<void> {
  const trees = await list<TreeBody>(await openOperator(options), paths.trees(), options);
  if (options.json) return printJson(trees);
  printTable(
    ['tree', 'name'],
    trees.map((tree) => [tree.id, tree.name]),
  );
}
