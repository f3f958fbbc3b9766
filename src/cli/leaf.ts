import { writeFile } from 'node:fs/promises';
import { type CredentialsBody, type LeafBody, paths } from '../wire/cambium.ts';
import { intoNewFile } from './new-file.ts';
import { list, type OperatorOptions, openOperator } from './operator.ts';
import { printJson, printLine, printTable } from './output.ts';

interface CreateOptions extends OperatorOptions {
  readonly branch: string;
  readonly out?: string;
  readonly for?: keyof typeof GENERATIONS;
}

/** The credentials that each generation of the BranchKey client reads, by their keys. */
const GENERATIONS = {
  'branchkey-2.0': [
    'leaf_name',
    'leaf_password',
    'tree_id',
    'branch_id',
    'queue_password',
    'response_host',
    'port',
  ],
  'branchkey-2.3': ['leaf_name', 'leaf_id', 'leaf_session_token', 'response_host'],
  'branchkey-2.4': [
    'leaf_name',
    'leaf_id',
    'leaf_session_token',
    'performance_analyser_username',
    'performance_analyser_password',
    'response_host',
  ],
  'branchkey-2.7': ['name', 'id', 'session_token', 'tree_id', 'branch_id', 'owner_id'],
} as const satisfies Record<string, readonly (keyof CredentialsBody)[]>;

/** `cambium leaf create NAME --branch ID --out FILE`: the token is shown once, here or in the file. */
export async function createLeaf(name: string, options: CreateOptions): Promise<void> {
  const { branch, out, signal } = options;
  const http = await openOperator(options);
  const create = async () => {
    const json = { name, branch_id: branch };
    return (await http.json({ method: 'POST', target: paths.leaves(), json, signal })) as CredentialsBody;
  };
  const shownOf = (leaf: CredentialsBody) =>
    options.for === undefined ? leaf : pick(leaf, GENERATIONS[options.for]);
  if (out === undefined) return printJson(shownOf(await create()));
  // The file is there before the leaf is: a token that cannot be kept would be lost.
  const leaf = await intoNewFile(out, 0o600, async () => {
    const created = await create();
    await writeFile(out, `${JSON.stringify(shownOf(created), undefined, 2)}\n`);
    return created;
  });
  if (options.json) printJson(shownOf(leaf));
  else printLine(`leaf ${leaf.leaf_name}: ${leaf.leaf_id}, credentials in ${out}`);
}

/** `cambium leaf list --branch ID` */
export async function listLeaves(options: OperatorOptions & { readonly branch: string }): Promise<void> {
  const query = { branch: options.branch };
  const leaves = await list<LeafBody>(await openOperator(options), paths.leaves(), { ...options, query });
  if (options.json) return printJson(leaves);
  printTable(
    ['leaf', 'name', 'state'],
    leaves.map((leaf) => [leaf.id, leaf.name, leaf.revoked_at === null ? 'active' : 'revoked']),
  );
}

/** `cambium leaf revoke ID` */
export async function revokeLeaf(id: string, options: OperatorOptions): Promise<void> {
  const http = await openOperator(options);
  const body = await http.json({ method: 'DELETE', target: paths.leaf(id), signal: options.signal });
  if (options.json) printJson(body ?? {});
  else printLine(`leaf ${id}: revoked`);
}

function pick(leaf: CredentialsBody, keys: readonly (keyof CredentialsBody)[]): Partial<CredentialsBody> {
  return Object.fromEntries(keys.map((key) => [key, leaf[key]]));
}
