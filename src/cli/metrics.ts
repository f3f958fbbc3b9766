import { type MetricsBody, paths } from '../wire/cambium.ts';
import { list, type OperatorOptions, openOperator } from './operator.ts';
import { printJson, printTable, toJson } from './output.ts';

/** `cambium metrics list BRANCH` */
export async function listMetrics(branch: string, options: OperatorOptions): Promise<void> {
  const metrics = await list<MetricsBody>(await openOperator(options), paths.branchMetrics(branch), options);
  if (options.json) return printJson(metrics);
  printTable(
    ['aggregation', 'leaf', 'mode', 'data'],
    metrics.map(({ aggregation_id, leaf_id, mode, data }) => [
      aggregation_id,
      leaf_id,
      mode,
      typeof data === 'string' ? data : toJson(data),
    ]),
  );
}
