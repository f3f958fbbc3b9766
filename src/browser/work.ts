/** What jobs over Blobs do, on whatever thread: in constant memory, with asynchronous reads. */
import { Aggregation, type AggregationInput, type RunOptions } from '../aggregate/aggregation.ts';
import { checkUsed } from '../aggregate/check-used.ts';
import { openConversion } from '../aggregate/conversion.ts';
import { commonFormat, encodeResult } from '../aggregate/result.ts';
import { keepsState } from '../aggregate/steps.ts';
import { openRequest, type Strategy } from '../aggregate/strategies/index.ts';
import { AggregationError, CambiumError } from '../errors.ts';
import type { Encoding } from '../formats/encoding.ts';
import type { ReadOptions } from '../formats/npy.ts';
import { openWeights } from '../formats/open.ts';
import { prepareWeights, type Weights } from '../formats/weights.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import type { WeightsFormat } from '../tensor/layout.ts';
import { blobScratch, blobSink } from './blob-pieces.ts';
import type { BlobState } from './blob-state.ts';
import { blockFor, openBlob } from './blob-streams.ts';
import { openHandleSink } from './file-sink.ts';
import type {
  BlobAggregateReport,
  BlobAggregateRequest,
  BlobConvertReport,
  BlobConvertRequest,
} from './jobs.ts';

/** An input whose body is here, and who is called something. */
interface NamedBlob {
  readonly blob: Blob;
  readonly leaf: string;
  readonly weighting: number | undefined;
}

/** Requests as plain data, for another thread. */
type AggregateWork = Omit<BlobAggregateRequest, 'inputs' | 'model' | 'state'> & {
  readonly type: 'aggregate';
  readonly inputs: readonly NamedBlob[];
  readonly model: Blob | undefined;
  readonly state: Blob | null | undefined;
};
type ConvertWork = Omit<BlobConvertRequest, 'input'> & {
  readonly type: 'convert';
  readonly input: Blob;
};

export type Work = AggregateWork | ConvertWork;
export type WorkResult = BlobAggregateReport | BlobConvertReport;

type Run = Pick<RunOptions, 'onProgress' | 'openLanes'> & { readonly signal?: AbortSignal | undefined };

/**
 * Carries a job out.
 *
 * @throws FormatError, AggregationError, FileError, UnavailableError; the reason of `signal`
 */
export function runWork(work: Work, run: Run): Promise<WorkResult> {
  return work.type === 'aggregate' ? aggregate(work, run) : convert(work, run);
}

async function aggregate(work: AggregateWork, run: Run): Promise<BlobAggregateReport> {
  const startedAt = performance.now();
  const opened: ByteSource[] = [];
  try {
    const formats = new Set<WeightsFormat>();
    const inputs: AggregationInput[] = [];
    const count = work.inputs.length + (work.model === undefined ? 0 : 1);
    for (const { blob, leaf, weighting } of work.inputs) {
      const { source, layout } = await open(blob, leaf, { count, opened, run });
      formats.add(layout.format);
      inputs.push({ leaf, source, layout, weighting: weighting ?? layout.weighting });
    }
    let model: Omit<AggregationInput, 'weighting'> | undefined;
    if (work.model !== undefined)
      model = { leaf: 'model', ...(await open(work.model, 'model', { count, opened, run })) };
    const strategy = openRequest(work.strategy);
    checkUsed(strategy, inputs, work);
    const state = await openState(work, strategy, model, run);
    const aggregation = await Aggregation.open(inputs, {
      strategy,
      model,
      state: state?.inputs,
      differences: work.differences,
      nonFinite: work.nonFinite,
      blockBytes: blockFor(count),
      scratch: blobScratch,
    });
    try {
      const format = formatOf(work, formats);
      const encoding = await encodeResult(aggregation, strategy, { format, align: work.align });
      const blob = await write(aggregation, encoding, work.output, { ...run, state });
      return {
        blob,
        state: await state?.finish(blob),
        format,
        strategy: strategy.name,
        leaves: aggregation.leaves.length,
        totalWeighting: aggregation.totalWeighting,
        tensors: aggregation.tensors.length,
        parameters: aggregation.parameters,
        bytesRead: aggregation.bytesRead,
        seconds: (performance.now() - startedAt) / 1000,
        countsEqually: inputs.every((input) => input.weighting === null),
      };
    } finally {
      await aggregation.close();
    }
  } finally {
    for (const source of opened) await source.close();
  }
}

/** @throws AggregationError `strategy-state-missing`, `state-mismatch` */
async function openState(
  work: AggregateWork,
  strategy: Strategy,
  model: { readonly layout: Pick<Weights['layout'], 'tensors'> } | undefined,
  { signal }: Run,
): Promise<BlobState | undefined> {
  const { name, step } = strategy;
  // Without the model the aggregation itself refuses the rule.
  if (step === undefined || !keepsState(strategy) || model === undefined) return undefined;
  if (work.state === undefined) {
    throw new AggregationError(
      'strategy-state-missing',
      `"${name}" keeps a state from round to round: give that of the last round, or null to begin with a new one`,
    );
  }
  const tensors = model.layout.tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape }));
  const { openBlobState } = await import('./blob-state.ts');
  return openBlobState({ strategy: name, step, tensors }, work.state, work.model!, signal); // it is there: see above
}

async function convert(work: ConvertWork, run: Run): Promise<BlobConvertReport> {
  const startedAt = performance.now();
  const opened: ByteSource[] = [];
  try {
    const name = work.input instanceof File ? work.input.name : 'blob';
    const weights = await open(work.input, name, { count: 1, opened, run }, { void16: work.void16 });
    const { aggregation, encoding, weighting } = await openConversion(
      name,
      weights,
      work.format,
      work,
      blobScratch,
    );
    try {
      return {
        blob: await write(aggregation, encoding, work.output, run),
        weighting,
        isDifference: weights.layout.isDifference === true,
        tensors: aggregation.tensors.length,
        parameters: aggregation.parameters,
        bytesRead: aggregation.bytesRead,
        seconds: (performance.now() - startedAt) / 1000,
      };
    } finally {
      await aggregation.close();
    }
  } finally {
    for (const source of opened) await source.close();
  }
}

/** What is opened for a job of `count` sources. */
interface Opening {
  readonly count: number;
  readonly opened: ByteSource[];
  readonly run: Run;
}

async function open(
  blob: Blob,
  name: string,
  { count, opened, run: { signal } }: Opening,
  options: ReadOptions = {},
): Promise<Weights> {
  const weights = await openWeights(openBlob(blob, name, count), options);
  const unpacked = await prepareWeights(weights, { scratch: blobScratch, signal });
  opened.push(unpacked.source);
  return unpacked;
}

function formatOf({ format }: AggregateWork, inputs: ReadonlySet<WeightsFormat>): WeightsFormat {
  const chosen = format ?? commonFormat(inputs);
  if (chosen !== undefined) return chosen;
  throw new CambiumError(
    'output-format',
    `the inputs have several formats (${[...inputs].join(', ')}): name the one of the result`,
  );
}

async function write(
  aggregation: Aggregation,
  encoding: Encoding,
  output: FileSystemFileHandle | undefined,
  run: Run & Pick<RunOptions, 'state'>,
): Promise<Blob> {
  const memory = output === undefined ? blobSink(encoding.byteLength) : undefined;
  const sink = memory ?? (await openHandleSink(output!)); // one of them is there
  try {
    await aggregation.run(sink, encoding, run);
    await sink.commit();
  } catch (error) {
    await sink.discard();
    throw error;
  }
  return memory === undefined ? output!.getFile() : memory.blob;
}
