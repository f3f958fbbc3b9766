import type { MergeRequest } from '../node/jobs.ts';
import { mergeFiles } from '../node/merge-files.ts';
import { UsageError } from './exit.ts';
import { formatOption } from './formats.ts';
import { counted, formatBytes, openProgress, printJson, printLine, printNote } from './output.ts';

interface MergeOptions {
  readonly output: string;
  readonly without: readonly string[];
  readonly partial: boolean;
  readonly format?: string;
  readonly nonFinite: string;
  readonly threads?: string;
  readonly compress: boolean;
  readonly align: boolean;
  readonly json: boolean;
  readonly signal: AbortSignal;
}

/** `cambium merge INPUT… [--without SUM]… -o OUT`: updates and exact partial sums to a partial sum or to the mean. */
export async function merge(files: readonly string[], options: MergeOptions): Promise<void> {
  const { output, without, compress, align } = options;
  const to = options.partial || /\.partial\.safetensors$/i.test(output) ? 'sum' : 'mean';
  const format = formatOption(options.format);
  if (to === 'sum' && (format !== undefined || compress || align)) {
    throw new UsageError('a partial sum has one form: no --format, --compress or --align');
  }
  await printMerge(
    {
      inputs: files.map((path) => ({ path })),
      without,
      output,
      to,
      format,
      nonFinite: nonFiniteOption(options.nonFinite),
      threads: threadsOption(options.threads),
      compress,
      align,
    },
    options,
  );
}

/** What `--non-finite` asks for. Throws UsageError. */
export function nonFiniteOption(policy: string): 'reject' | 'propagate' {
  if (policy === 'reject' || policy === 'propagate') return policy;
  throw new UsageError(`--non-finite ${policy}: reject or propagate`);
}

/** Threads beyond this help nobody and cost memory each. */
const MAX_THREADS = 64;

/** What `--threads` asks for. Throws UsageError. */
export function threadsOption(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1 || count > MAX_THREADS) {
    throw new UsageError(`--threads ${text}: a whole number from 1 to ${MAX_THREADS}`);
  }
  return count;
}

/** Merges and tells what came out. */
export async function printMerge(
  request: MergeRequest,
  { json, signal }: { readonly json: boolean; readonly signal: AbortSignal },
): Promise<void> {
  const progress = openProgress('adding');
  const report = await mergeFiles(request, {
    signal,
    onProgress: ({ bytesDone, bytesTotal }) => progress.update(bytesDone, bytesTotal),
  }).finally(() => progress.close());
  if (report.countsEqually) printNote('cambium: no leaf has a weighting: each counts 1');
  const { countsEqually: _, ...shape } = report;
  const bytesPerParameter = report.parameters === 0 ? null : report.byteLength / report.parameters;
  if (json) {
    printJson({ ...shape, bytesPerParameter });
    return;
  }
  const what = request.to === 'sum' ? 'exact sum' : 'mean';
  printLine(
    `${report.output}: ${what} of ${report.leaves === 1 ? '1 leaf' : `${report.leaves} leaves`}, total weighting ${report.totalWeighting}, ` +
      `${counted(report.tensors, 'tensor')}, ${counted(report.parameters, 'parameter')}`,
  );
  const size = bytesPerParameter === null ? '' : ` (${bytesPerParameter.toFixed(3)} a parameter)`;
  const residues = report.residues === null ? '' : `, ${counted(report.residues, 'residue')}`;
  printLine(`${formatBytes(report.byteLength)}${size}${residues}`);
  printLine(
    `read ${formatBytes(report.bytesRead)} in ${report.seconds.toFixed(3)} s, sha256 ${report.sha256}`,
  );
}
