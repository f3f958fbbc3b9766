import { tmpdir } from 'node:os';
import { FormatError, isCambiumError } from '../errors.ts';
import { openWeights } from '../formats/open.ts';
import { unpackWeights } from '../formats/weights.ts';
import { openFileSource, openFileSourceSync } from '../node/files.ts';
import { tensorStatistics } from '../node/statistics.ts';
import { unpackingIn } from '../node/unpacking.ts';
import type { Layout } from '../tensor/layout.ts';
import { EXIT, exitCodeOf } from './exit.ts';
import { counted, formatBytes, printError, printJson, printLine, printNote, printTable } from './output.ts';

interface InspectOptions {
  readonly json: boolean;
  readonly stats: boolean;
  /** False leaves SHA-256 out of the statistics. */
  readonly digest: boolean;
  readonly verbose: boolean;
}

/** `cambium inspect FILE…`: the layout of weight files; a file that is none gets its error in its place. */
export async function inspect(files: readonly string[], options: InspectOptions): Promise<number> {
  const entries: object[] = [];
  let exitCode: number = EXIT.done;
  for (const file of files) {
    try {
      const entry = await inspectFile(file, options);
      entries.push(entry);
      if (!options.json) printEntry(entry, files.length > 1);
    } catch (error) {
      if (!isCambiumError(error)) throw error;
      if (exitCode === EXIT.done) exitCode = exitCodeOf(error);
      const offset = error instanceof FormatError ? error.offset : undefined;
      entries.push({
        file,
        error: error.message,
        code: error.code,
        ...(offset === undefined ? {} : { offset }),
      });
      if (options.json) printNote(`cambium: ${error.message} [${error.code}]`);
      else printError(error, { json: false, verbose: options.verbose });
    }
  }
  if (options.json) printJson(files.length === 1 ? entries[0] : entries);
  return exitCode;
}

async function inspectFile(file: string, { stats, digest }: InspectOptions) {
  // A layout is many small reads one after the other, each of which would take the way through Node's pool: blocking reads
  // are ten times as fast, and nobody else waits for this thread. Elements are read through the pool: that takes a while,
  // in which an interrupt must be heard.
  const source = stats ? await openFileSource(file) : openFileSourceSync(file);
  try {
    const weights = await openWeights(source);
    if (!stats) return { file, ...(await describe(weights.layout)) };
    const unpacked = await unpackWeights(weights, unpackingIn(tmpdir()));
    try {
      const { layout } = unpacked;
      const statistics = (i: number) => tensorStatistics(unpacked.source, layout.tensors[i]!, { digest });
      return { file, ...(await describe(weights.layout, statistics)) };
    } finally {
      if (unpacked.source !== source) await unpacked.source.close();
    }
  } finally {
    await source.close();
  }
}

async function describe(layout: Layout, statistics?: (tensor: number) => Promise<object>) {
  const tensors = [];
  for (const [i, tensor] of layout.tensors.entries()) {
    const { name, dtype, shape, order, byteOffset, byteLength, encoding } = tensor;
    const held = encoding === undefined ? {} : { encoding };
    tensors.push({ name, dtype, shape, order, byteOffset, byteLength, ...held, ...(await statistics?.(i)) });
  }
  const { format, weighting, isDifference } = layout;
  return { format, weighting, ...(isDifference === undefined ? {} : { isDifference }), tensors };
}

type Entry = Awaited<ReturnType<typeof inspectFile>>;

function printEntry(entry: Entry, withBlankLine: boolean): void {
  const { file, format, weighting, tensors, isDifference } = entry;
  const what = isDifference === true ? `${format}, a difference to a global model` : format;
  printLine(`${file}: ${what}, weighting ${weighting ?? 'none'}, ${counted(tensors.length, 'tensor')}`);
  const extra = Object.keys(tensors[0] ?? {}).slice(6);
  printTable(
    ['#', 'name', 'dtype', 'shape', 'order', 'offset', 'size', ...extra],
    tensors.map((tensor, i) => [
      i,
      tensor.name ?? '-',
      tensor.dtype,
      `(${tensor.shape.join(', ')})`,
      tensor.order,
      tensor.byteOffset ?? '-',
      formatBytes(tensor.byteLength),
      ...extra.map((key) => String((tensor as Record<string, unknown>)[key])), // statistics, beside the layout's members
    ]),
  );
  if (withBlankLine) printLine();
}
