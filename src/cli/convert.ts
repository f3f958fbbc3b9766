import { convertFile } from '../node/convert-file.ts';
import { formatOfName } from '../node/output-format.ts';
import { UsageError } from './exit.ts';
import { formatOption } from './formats.ts';
import { formatBytes, openProgress, printJson, printLine } from './output.ts';

interface ConvertOptions {
  readonly format?: string;
  readonly weighting?: string;
  readonly void16?: string;
  readonly compress: boolean;
  readonly align: boolean;
  readonly json: boolean;
  readonly signal: AbortSignal;
}

/** `cambium convert IN OUT`: the same tensors in another format. */
export async function convert(input: string, output: string, options: ConvertOptions): Promise<void> {
  const format = formatOption(options.format);
  if (format === undefined && formatOfName(output, true) === undefined) {
    throw new UsageError(`${output}: its name says no format; give --format`);
  }
  const { void16, compress, align } = options;
  if (void16 !== undefined && void16 !== 'bfloat16') throw new UsageError(`--void16 ${void16}: bfloat16`);
  const progress = openProgress('converting');
  const report = await convertFile(
    { input, output, format, weighting: weightingOf(options.weighting), void16, compress, align },
    {
      signal: options.signal,
      onProgress: ({ bytesDone, bytesTotal }) => progress.update(bytesDone, bytesTotal),
    },
  ).finally(() => progress.close());
  if (options.json) return printJson(report);
  printLine(
    `${output}: ${report.format}, weighting ${report.weighting ?? 'none'}, ${report.tensors} tensors, ` +
      `${report.parameters} parameters`,
  );
  printLine(
    `read ${formatBytes(report.bytesRead)} in ${report.seconds.toFixed(3)} s, sha256 ${report.sha256}`,
  );
}

function weightingOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!/^\d+\.?\d*(e[+-]?\d+)?$/i.test(text) || !Number.isFinite(value)) {
    throw new UsageError(`--weighting ${text}: a number from 0 on`);
  }
  return value;
}
