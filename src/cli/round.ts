import type { Http, HttpRequest } from '../transport/http.ts';
import {
  type AggregationBody,
  paths,
  type RoundBody,
  type RoundStatus,
  type SumLinkBody,
} from '../wire/cambium.ts';
import { UsageError } from './exit.ts';
import { saveLinked } from './linked-file.ts';
import { intoNewFile } from './new-file.ts';
import { fileBody, list, type OperatorOptions, openOperator } from './operator.ts';
import { counted, formatBytes, printJson, printLine, printTable } from './output.ts';
import { integerOf, optional } from './settings.ts';

interface ListOptions extends OperatorOptions {
  readonly run?: string;
  readonly status?: RoundStatus;
  readonly limit?: string;
}

/** `cambium round list BRANCH` */
export async function listRounds(branch: string, options: ListOptions): Promise<void> {
  const { status, signal } = options;
  const countOf = (name: 'run' | 'limit') =>
    optional(options[name], (text) => integerOf(name, text, 1, 999_999_999));
  const query = { run: countOf('run'), status, limit: countOf('limit') };
  const http = await openOperator(options);
  const rounds = await list<RoundBody>(http, paths.rounds(branch), { query, signal });
  if (options.json) return printJson(rounds);
  printTable(
    ['run', 'round', 'status', 'updates', 'weighting', 'aggregation', 'id'],
    rounds.map((round) => [
      round.run_number,
      round.round,
      round.status,
      contributing(round),
      round.total_weighting ?? '-',
      aggregationOf(round) ?? '-',
      round.id,
    ]),
  );
}

/** `cambium round retry ID` */
export function retryRound(id: string, options: OperatorOptions): Promise<void> {
  return change(paths.roundRetry(id), options);
}

/** `cambium round discard ID` */
export function discardRound(id: string, options: OperatorOptions): Promise<void> {
  return change(paths.roundDiscard(id), options);
}

/** `cambium round close ID` */
export function closeRound(id: string, options: OperatorOptions): Promise<void> {
  return change(paths.roundClose(id), options);
}

/** `cambium leaf exclude LEAF --round ID` */
export function excludeLeaf(
  leaf: string,
  options: OperatorOptions & { readonly round: string },
): Promise<void> {
  return change(paths.roundExclude(options.round), options, { leaf_id: leaf });
}

interface SaveOptions extends OperatorOptions {
  readonly output: string;
  readonly branch?: string;
  readonly sum: boolean;
}

/** `cambium round save ID -o FILE`: an aggregation, or of a round the mean of one branch or the exact sum. */
export async function saveRound(id: string, options: SaveOptions): Promise<void> {
  const { output, branch, sum, signal } = options;
  if (sum && branch !== undefined) throw new UsageError('--sum is of the whole round: no --branch');
  const http = await openOperator(options);
  const ask = async () =>
    sum
      ? ((await http.json({ method: 'GET', target: paths.roundSum(id), signal })) as SumLinkBody)
      : resultOf(http, id, branch, signal);
  const result = await intoNewFile(output, 0o666, () => saveLinked(http, ask, output, signal));
  if (options.json) printJson({ output, ...result });
  else printLine(`${output}: ${result.byte_length} bytes, sha256 ${result.sha256}`);
}

/** An aggregation by its id, or the mean of one branch of a round. */
async function resultOf(
  http: Http,
  id: string,
  branch: string | undefined,
  signal: AbortSignal,
): Promise<AggregationBody> {
  const ask = async (request: Pick<HttpRequest, 'method' | 'target' | 'json'>) =>
    (await http.json({ ...request, signal })) as AggregationBody;
  if (branch === undefined) return ask({ method: 'GET', target: paths.aggregation(id) });
  return ask({ method: 'POST', target: paths.roundAverage(id), json: { branch_id: branch } });
}

/** `cambium round hand-down ROUND FILE`: what `relay` does in the end, by hand. */
export async function handDownRound(
  id: string,
  file: string,
  options: OperatorOptions & { readonly leaves?: string },
): Promise<void> {
  const { leaves, signal } = options;
  const query =
    leaves === undefined ? {} : { leaves: integerOf('leaves', leaves, 1, Number.MAX_SAFE_INTEGER) };
  const http = await openOperator(options);
  const body = await fileBody(file);
  const target = paths.roundAggregation(id);
  const round = (await http.json({ method: 'POST', target, query, body, signal })) as RoundBody;
  if (options.json) printJson(round);
  else printLine(roundLine(round));
}

async function change(target: string, options: OperatorOptions, json?: object): Promise<void> {
  const http = await openOperator(options);
  const round = (await http.json({
    method: 'POST',
    target,
    signal: options.signal,
    ...(json === undefined ? {} : { json }),
  })) as RoundBody;
  if (options.json) printJson(round);
  else printLine(roundLine(round));
}

/** One line that tells a round. */
export function roundLine(round: RoundBody): string {
  const { failure } = round;
  const parts = [roundStanding(round)];
  const aggregation = aggregationOf(round);
  if (aggregation !== undefined) parts.push(`aggregation ${aggregation}`);
  if (failure !== null) parts.push(failureOf(round));
  return parts.join(', ');
}

/** How a round stands, without the long ids. */
export function roundStanding(round: RoundBody): string {
  const count = contributing(round);
  const leftOut = round.updates.length - count;
  const parts = [`run ${round.run_number} round ${round.round}: ${round.status}`, counted(count, 'update')];
  if (leftOut > 0) parts.push(`${leftOut} left out`);
  if (round.total_weighting !== null) parts.push(`weighting ${round.total_weighting}`);
  if (round.strategy !== null && round.strategy.name !== 'mean') parts.push(round.strategy.name);
  if (round.missing.length > 0) parts.push(`${round.missing.length} missing`);
  if (round.aggregation_seconds !== null) {
    const speed = (round.bytes_read ?? 0) / round.aggregation_seconds;
    parts.push(`${(round.aggregation_seconds * 1000).toFixed(1)} ms`, `${formatBytes(speed)}/s`);
  }
  if (round.status === 'summed') parts.push('waiting for the server above');
  return parts.join(', ');
}

/** The aggregation of a round that is done: before, it is but an id that waits. */
export function aggregationOf({
  status,
  aggregation_id,
  aggregation_removed_at,
}: RoundBody): string | undefined {
  if (status !== 'done') return undefined;
  // Missing in answers of older servers.
  return aggregation_removed_at ? `${aggregation_id} (not kept)` : aggregation_id!;
}

/** Updates that count. */
function contributing({ updates }: RoundBody): number {
  return updates.filter(({ left_out }) => left_out === null).length;
}

/** Why a round failed, and by whose update where one is to blame. */
export function failureOf({ failure, updates }: RoundBody): string {
  const leaf = failure?.details?.leaf;
  const update = updates.find(({ leaf_id }) => leaf_id === leaf);
  const whose = update === undefined ? '' : `, the update of ${update.leaf_name}`;
  return `${failure?.message}${whose} [${failure?.code}]`;
}
