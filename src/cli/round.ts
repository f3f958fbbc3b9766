import { paths, type RoundBody } from '../wire/cambium.ts';
import { list, type OperatorOptions, openOperator } from './operator.ts';
import { printJson, printLine, printTable } from './output.ts';

/** `cambium round list BRANCH` */
export async function listRounds(branch: string, options: OperatorOptions): Promise<void> {
  const rounds = await list<RoundBody>(await openOperator(options), paths.rounds(branch), options);
  if (options.json) return printJson(rounds);
  printTable(
    ['run', 'round', 'status', 'updates', 'weighting', 'aggregation', 'id'],
    rounds.map((round) => [
      round.run_number,
      round.round,
      round.status,
      round.updates.length,
      round.total_weighting ?? '-',
      round.aggregation_id ?? '-',
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

async function change(target: string, options: OperatorOptions): Promise<void> {
  const http = await openOperator(options);
  const round = (await http.json({ method: 'POST', target, signal: options.signal })) as RoundBody;
  if (options.json) printJson(round);
  else printLine(roundLine(round));
}

/** One line that tells a round. */
export function roundLine(round: RoundBody): string {
  const parts = [
    `run ${round.run_number} round ${round.round}: ${round.status}`,
    `${round.updates.length} updates`,
  ];
  if (round.total_weighting !== null) parts.push(`weighting ${round.total_weighting}`);
  if (round.aggregation_seconds !== null) parts.push(`${(round.aggregation_seconds * 1000).toFixed(1)} ms`);
  if (round.status === 'done') parts.push(`aggregation ${round.aggregation_id}`);
  if (round.failure !== null) parts.push(`${round.failure.message} [${round.failure.code}]`);
  return parts.join(', ');
}
