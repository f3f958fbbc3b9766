import { tmpdir } from 'node:os';
import type { SumLeaf } from '../aggregate/partial-file.ts';
import { FormatError, isCambiumError } from '../errors.ts';
import { openWeights } from '../formats/open.ts';
import { unpackWeights } from '../formats/weights.ts';
import { openFileSource, openFileSourceSync } from '../node/files.ts';
import { tensorStatistics } from '../node/statistics.ts';
import { layoutOfSum, openWeightsOrSum } from '../node/sum-layout.ts';
import { unpackingIn } from '../node/unpacking.ts';
import type { ByteSource } from '../tensor/bytes.ts';
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

/**
 * `cambium inspect FILE…`: the layout of weight files, and of exact partial sums with their leaves; a file that is none gets its
 * error in its place.
 */
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
    if (!stats) return { file, ...(await describeHead(source)) };
    const weights = await openWeights(source);
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

/** What stands in the head of a file: of weights their layout, of an exact partial sum that of its mean, and its leaves. */
async function describeHead(source: ByteSource) {
  const found = await openWeightsOrSum(source);
  if ('weights' in found) return describe(found.weights.layout);
  const { sum } = found;
  return { ...(await describe(layoutOfSum(sum))), leaves: sum.leaves };
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

type Entry = Awaited<ReturnType<typeof inspectFile>> & { readonly leaves?: readonly SumLeaf[] };

/** Beside the format. */
function kindOf({ isDifference, leaves }: Entry): string {
  if (leaves !== undefined) return `, an exact partial sum of ${counted(leaves.length, 'leaf', 'leaves')}`;
  return isDifference === true ? ', a difference to a global model' : '';
}

function printEntry(entry: Entry, withBlankLine: boolean): void {
  const { file, format, weighting, tensors, leaves } = entry;
  const what = format + kindOf(entry);
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
  if (leaves !== undefined) {
    printTable(
      ['leaf', 'weighting'],
      leaves.map(({ leaf, weighting }) => [leaf, weighting ?? '-']),
    );
  }
  if (withBlankLine) printLine();
}
