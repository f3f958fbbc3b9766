import { aggregateFiles } from '../node/aggregate-files.ts';
import { UsageError } from './exit.ts';
import { formatOption } from './formats.ts';
import { formatBytes, openProgress, printJson, printLine, printNote } from './output.ts';

interface AggregateOptions {
  readonly output: string;
  readonly weights?: string;
  readonly ids?: string;
  readonly strategy: string;
  readonly format?: string;
  readonly nonFinite: string;
  readonly json: boolean;
  readonly signal: AbortSignal;
}

/** `cambium aggregate FILE… -o OUT`: the weighted mean, file to file. */
export async function aggregate(files: readonly string[], options: AggregateOptions): Promise<void> {
  if (options.strategy !== 'mean')
    throw new UsageError(`--strategy ${options.strategy}: the strategy here is mean`);
  const { nonFinite } = options;
  if (nonFinite !== 'reject' && nonFinite !== 'propagate') {
    throw new UsageError(`--non-finite ${nonFinite}: reject or propagate`);
  }
  const format = formatOption(options.format);
  const weights = options.weights === undefined ? undefined : numbersOf(options.weights, files.length);
  const ids = options.ids === undefined ? files : namesOf(options.ids, files.length);
  if (new Set(ids).size < ids.length) {
    const twice = ids.find((id, i) => ids.indexOf(id) !== i);
    throw new UsageError(`${twice} is given more than once: each input needs an id of its own (--ids)`);
  }
  const progress = openProgress('averaging');
  const report = await aggregateFiles(
    {
      inputs: files.map((path, i) => ({ path, leaf: ids[i], weighting: weights?.[i] })),
      output: options.output,
      format,
      nonFinite,
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
    `${report.output}: ${report.strategy} of ${report.leaves} updates, total weighting ${report.totalWeighting}, ` +
      `${report.tensors} tensors, ${report.parameters} parameters`,
  );
  printLine(
    `read ${formatBytes(report.bytesRead)} in ${report.seconds.toFixed(3)} s ` +
      `(${formatBytes(report.bytesRead / report.seconds)}/s), sha256 ${report.sha256}`,
  );
}

function numbersOf(text: string, count: number): number[] {
  return namesOf(text, count, '--weights').map((part) => {
    if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$|^[+-]?inf(inity)?$|^nan$/i.test(part)) {
      throw new UsageError(`--weights: ${part} is not a number`);
    }
    if (/nan/i.test(part)) return Number.NaN;
    return /inf/i.test(part) ? Number(`${part.startsWith('-') ? '-' : ''}Infinity`) : Number(part);
  });
}

function namesOf(text: string, count: number, option = '--ids'): string[] {
  const parts = text.split(',').map((part) => part.trim());
  if (parts.length !== count)
    throw new UsageError(`${option} has ${parts.length} entries for ${count} files`);
  return parts;
}
