import { eventNotices } from '../transport/events.ts';
import { paths, type RoundBody, type RunBody, type RunRecord, type RunStatus } from '../wire/cambium.ts';
import { fileBody, list, type OperatorOptions, openOperator } from './operator.ts';
import { counted, printJson, printLine, printTable } from './output.ts';
import { roundLine } from './round.ts';
import { type Drawn, redrawRound } from './round-table.ts';
import { integerOf, optional } from './settings.ts';

/** `cambium run start|pause|stop BRANCH` */
export async function changeRun(branch: string, status: RunStatus, options: OperatorOptions): Promise<void> {
  const http = await openOperator(options);
  const { signal } = options;
  const json = { run_status: status };
  printRun(
    (await http.json({ method: 'POST', target: paths.run(branch), json, signal })) as RunBody,
    options,
  );
}

/** `cambium run start BRANCH --model FILE`: the file is the run's first global model. */
export async function startRun(
  branch: string,
  options: OperatorOptions & { readonly model?: string },
): Promise<void> {
  const { model, signal } = options;
  if (model === undefined) return changeRun(branch, 'start', options);
  const http = await openOperator(options);
  const body = await fileBody(model);
  printRun(
    (await http.json({ method: 'POST', target: paths.runModel(branch), body, signal })) as RunBody,
    options,
  );
}

/** `cambium run list BRANCH` */
export async function listRuns(branch: string, options: OperatorOptions): Promise<void> {
  const runs = await list<RunRecord>(await openOperator(options), paths.runs(branch), options);
  if (options.json) return printJson(runs);
  printTable(
    ['run', 'status', 'rounds', 'started', 'newest aggregation'],
    runs.map((run) => [
      run.run_number,
      run.run_status,
      run.rounds,
      new Date(run.started_at).toISOString(),
      run.aggregation_id ?? '-',
    ]),
  );
}

/** `cambium run reset-model BRANCH`: undoes what the first update of the run fixed, before its first aggregation. */
export async function resetModel(branch: string, options: OperatorOptions): Promise<void> {
  const http = await openOperator(options);
  const { signal } = options;
  printRun(
    (await http.json({ method: 'POST', target: paths.resetModel(branch), signal })) as RunBody,
    options,
  );
}

/** `cambium run show BRANCH` */
export async function showRun(branch: string, options: OperatorOptions): Promise<void> {
  const http = await openOperator(options);
  const { signal } = options;
  printRun((await http.json({ method: 'GET', target: paths.run(branch), signal })) as RunBody, options);
}

function printRun(run: RunBody, { json }: OperatorOptions): void {
  if (json) printJson(run);
  else
    printLine(
      `run ${run.run_number} of branch ${run.branch_id}: ${run.run_status}, round ${run.round}, ` +
        `${counted(run.updates, 'update')} (target ${run.aggregation_target}), newest aggregation ${run.aggregation_id ?? 'none'}`,
    );
}

/**
 * `cambium run watch BRANCH`: the round as a live table on a terminal, a line at each change elsewhere, JSON for programs;
 * until interrupted or `--rounds` are finished.
 */
export async function watchRun(
  branch: string,
  options: OperatorOptions & { readonly rounds?: string },
): Promise<void> {
  const most = optional(options.rounds, (text) => integerOf('rounds', text, 1, 1e9)) ?? Infinity;
  const http = await openOperator(options);
  const finished = new Set<string>();
  let drawn: Drawn | undefined;
  for await (const { type, data } of eventNotices(http, paths.watch(branch)).open({
    signal: options.signal,
  })) {
    if (type !== 'round') continue;
    const round = JSON.parse(data) as RoundBody;
    if (options.json) printJson(round);
    else if (process.stdout.isTTY) drawn = redrawRound(round, drawn);
    else printLine(roundLine(round));
    if (round.status === 'done' || round.status === 'discarded') finished.add(round.id);
    if (finished.size >= most) return;
  }
}
