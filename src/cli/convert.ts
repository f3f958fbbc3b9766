import { isBlock, MAX_BLOCK, MIN_BLOCK } from '../formats/encoded.ts';
import { convertFile } from '../node/convert-file.ts';
import type { EncodeRequest } from '../node/jobs.ts';
import { formatOfName } from '../node/output-format.ts';
import { QUANTISATIONS } from '../tensor/layout.ts';
import { UsageError } from './exit.ts';
import { formatOption } from './formats.ts';
import { counted, formatBytes, openProgress, printJson, printLine, printNote } from './output.ts';

interface ConvertOptions {
  readonly format?: string;
  readonly weighting?: string;
  readonly void16?: string;
  readonly quantise?: string;
  readonly topK?: string;
  readonly differenceTo?: string;
  readonly residual?: string;
  readonly addTo?: string;
  readonly compress: boolean;
  readonly align: boolean;
  readonly json: boolean;
  readonly signal: AbortSignal;
}

/** `cambium convert IN OUT`: the same tensors in another format. */
export async function convert(input: string, output: string, options: ConvertOptions): Promise<void> {
  const format = formatOption(options.format);
  const encode = encodeOption(options);
  if (encode === undefined && format === undefined && formatOfName(output, true) === undefined) {
    throw new UsageError(`${output}: its name says no format; give --format`);
  }
  const { void16, compress, align, addTo } = options;
  if (encode !== undefined && addTo !== undefined) {
    throw new UsageError('--add-to makes a model of a difference: nothing is encoded then');
  }
  if (void16 !== undefined && void16 !== 'bfloat16') throw new UsageError(`--void16 ${void16}: bfloat16`);
  const progress = openProgress('converting');
  const report = await convertFile(
    {
      ...{ input, output, format, void16, compress, align, encode, addTo },
      weighting: weightingOf(options.weighting),
    },
    {
      signal: options.signal,
      onProgress: ({ bytesDone, bytesTotal }) => progress.update(bytesDone, bytesTotal),
    },
  ).finally(() => progress.close());
  if (report.isDifference && encode === undefined) {
    printNote(
      `cambium: ${output} holds a difference to a global model and cannot say so: aggregate it with --differences`,
    );
  }
  if (options.json) return printJson(report);
  printLine(
    `${output}: ${report.format}, weighting ${report.weighting ?? 'none'}, ${counted(report.tensors, 'tensor')}, ` +
      counted(report.parameters, 'parameter'),
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

/** What is asked of an encoded update; undefined where none is. Throws UsageError. */
function encodeOption({ quantise, topK, differenceTo, residual }: ConvertOptions): EncodeRequest | undefined {
  if (quantise === undefined && topK === undefined && differenceTo === undefined && residual === undefined) {
    return undefined;
  }
  if (quantise !== undefined && topK !== undefined) throw new UsageError('either --quantise or --top-k');
  if (residual !== undefined && quantise === undefined && topK === undefined) {
    throw new UsageError('--residual needs --quantise or --top-k: nothing is left over otherwise');
  }
  return {
    ...(quantise === undefined ? {} : quantiseOf(quantise)),
    topK: shareOf(topK),
    differenceTo,
    residual,
  };
}

function quantiseOf(text: string): Pick<EncodeRequest, 'quantise' | 'block'> {
  const [kind, size, ...rest] = text.split(':');
  const quantise = QUANTISATIONS.find((known) => known === kind);
  const block = size === undefined ? undefined : Number(size);
  if (quantise === undefined || rest.length > 0 || (block !== undefined && quantise !== 'int8-block')) {
    throw new UsageError(`--quantise ${text}: int8, int8-block, int8-block:N, float16 or bfloat16`);
  }
  if (block !== undefined && !isBlock(block)) {
    throw new UsageError(`--quantise ${text}: a block is a power of two from ${MIN_BLOCK} to ${MAX_BLOCK}`);
  }
  return { quantise, block };
}

function shareOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const share = Number(text);
  if (!(share > 0 && share <= 1)) throw new UsageError(`--top-k ${text}: a share above 0, at most 1`);
  return share;
}
