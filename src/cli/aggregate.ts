import { DEFINITIONS, openRequest, type StrategyRequest } from '../aggregate/strategies/index.ts';
import { AggregationError } from '../errors.ts';
import { aggregateFiles } from '../node/aggregate-files.ts';
import { UsageError } from './exit.ts';
import { formatOption } from './formats.ts';
import { nonFiniteOption, printMerge, threadsOption } from './merge.ts';
import { counted, formatBytes, openProgress, printJson, printLine, printNote } from './output.ts';
import { strategyOf } from './strategy.ts';

interface AggregateOptions {
  readonly output: string;
  readonly weights?: string;
  readonly ids?: string;
  readonly strategy: string;
  readonly model?: string;
  readonly differences: boolean;
  readonly state?: string;
  readonly threads?: string;
  readonly names?: string;
  readonly perLeaf?: string;
  readonly format?: string;
  readonly nonFinite: string;
  readonly partial: boolean;
  readonly compress: boolean;
  readonly align: boolean;
  readonly json: boolean;
  readonly signal: AbortSignal;
}

/** `cambium aggregate FILE… -o OUT`: the weighted mean or another rule, file to file. */
export async function aggregate(files: readonly string[], options: AggregateOptions): Promise<void> {
  const threads = threadsOption(options.threads);
  const nonFinite = nonFiniteOption(options.nonFinite);
  const format = formatOption(options.format);
  const weights = options.weights === undefined ? undefined : numbersOf(options.weights, files.length);
  const ids = options.ids === undefined ? files : namesOf(options.ids, files.length);
  if (new Set(ids).size < ids.length) {
    const twice = ids.find((id, i) => ids.indexOf(id) !== i);
    throw new UsageError(`${twice} is given more than once: each input needs an id of its own (--ids)`);
  }
  const strategy = strategyOption(options.strategy, ids, options.perLeaf);
  const inputs = files.map((path, i) => ({ path, leaf: ids[i], weighting: weights?.[i] }));
  if (options.partial) {
    checkPartial(options, strategy);
    await printMerge({ inputs, output: options.output, to: 'sum', nonFinite, threads }, options);
    return;
  }
  const progress = openProgress('averaging');
  const report = await aggregateFiles(
    {
      inputs,
      output: options.output,
      format,
      strategy,
      model: options.model,
      differences: options.differences,
      state: options.state,
      names: options.names?.split(',').map((name) => name.trim()),
      threads,
      nonFinite,
      compress: options.compress,
      align: options.align,
    },
    {
      signal: options.signal,
      onProgress: ({ bytesDone, bytesTotal }) => progress.update(bytesDone, bytesTotal),
    },
  ).finally(() => progress.close());
  if (report.countsEqually) printNote('cambium: no input has a weighting: each counts 1');
  if (options.json) {
    const { countsEqually: _, ...shape } = report;
    printJson(shape);
    return;
  }
  printLine(
    `${report.output}: ${report.strategy} of ${counted(report.leaves, 'update')}, total weighting ${report.totalWeighting}, ` +
      `${counted(report.tensors, 'tensor')}, ${counted(report.parameters, 'parameter')}`,
  );
  printLine(
    `read ${formatBytes(report.bytesRead)} in ${report.seconds.toFixed(3)} s ` +
      `(${formatBytes(report.bytesRead / report.seconds)}/s), sha256 ${report.sha256}`,
  );
}

/** Partial sums are those of the mean, and have one form. Throws UsageError. */
function checkPartial(options: AggregateOptions, { name }: StrategyRequest): void {
  if (name !== 'mean') throw new UsageError(`--partial is there for the mean, not for ${name}`);
  for (const key of ['model', 'differences', 'state', 'names', 'format', 'compress', 'align'] as const) {
    if (options[key]) throw new UsageError(`--${key} has no meaning with --partial`);
  }
}

/** The rule, with what it wants to know of each leaf. Throws UsageError, AggregationError. */
function strategyOption(
  text: string,
  ids: readonly string[],
  perLeafText: string | undefined,
): StrategyRequest {
  const { name, parameters } = strategyOf(text);
  const numbers = perLeafText === undefined ? undefined : numbersOf(perLeafText, ids.length, '--per-leaf');
  const perLeaf = numbers === undefined ? undefined : new Map(ids.map((id, i) => [id, numbers[i]!]));
  const strategy = { name, parameters, perLeaf };
  openRequest(strategy); // refuses what makes no sense before anything is read
  const wanted = DEFINITIONS.find((definition) => definition.name === name)?.perLeaf;
  if (wanted !== undefined && perLeaf === undefined) {
    throw new AggregationError(
      'strategy-parameter',
      `${name} counts the ${wanted} of each leaf: give --per-leaf, a number for each file`,
    );
  }
  return strategy;
}

function numbersOf(text: string, count: number, option = '--weights'): number[] {
  return namesOf(text, count, option).map((part) => {
    if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$|^[+-]?inf(inity)?$|^nan$/i.test(part)) {
      throw new UsageError(`${option}: ${part} is not a number`);
    }
    if (/nan/i.test(part)) return Number.NaN;
    return /inf/i.test(part) ? Number(`${part.startsWith('-') ? '-' : ''}Infinity`) : Number(part);
  });
}

function namesOf(text: string, count: number, option = '--ids'): string[] {
  const parts = text.split(',').map((part) => part.trim());
  if (parts.length !== count)
    throw new UsageError(
      `${option} has ${parts.length === 1 ? '1 entry' : `${parts.length} entries`} for ${counted(count, 'file')}`,
    );
  return parts;
}
