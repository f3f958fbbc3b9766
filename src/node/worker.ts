/**
 * The worker thread: heavy jobs on files, one at a time, with synchronous reads straight into the core's memory.
 * `workers.ts` is the other end.
 */
import { availableParallelism } from 'node:os';
import { dirname } from 'node:path';
import { parentPort } from 'node:worker_threads';
import { Aggregation, type AggregationInput, type Stop } from '../aggregate/aggregation.ts';
import { findNonFiniteElements } from '../aggregate/finite.ts';
import type { LaneOrder } from '../aggregate/lanes.ts';
import { openStrategy } from '../aggregate/strategies/index.ts';
import { AggregationError, CambiumError } from '../errors.ts';
import { encodeWeights } from '../formats/encode.ts';
import type { Encoding, WeightsSpec } from '../formats/encoding.ts';
import { openWeights } from '../formats/open.ts';
import { unpackWeights, type Weights } from '../formats/weights.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import type { WeightsFormat } from '../tensor/layout.ts';
import { convert } from './convert.ts';
import { openFileSourceSync } from './files.ts';
import type { AggregateReport, AggregateRequest, Examination } from './jobs.ts';
import { openLanes } from './lanes.ts';
import { withOnlyBytes } from './only-bytes.ts';
import { checkForm, formatOfName } from './output-format.ts';
import { fileScratch } from './scratch.ts';
import { SourcePool } from './source-pool.ts';
import { unpackingIn } from './unpacking.ts';
import { packError } from './worker-errors.ts';
import type { ExamineMessage, FromWorker, ToWorker } from './worker-messages.ts';
import { writeOutput } from './write-output.ts';

/** Progress is told at most this often: a message costs more than a block. */
const PROGRESS_INTERVAL_MS = 50;

const port = parentPort;
if (port === null) throw new Error('this file runs in a worker thread');

const send = (message: FromWorker) => port.postMessage(message);

port.on('message', async (message: ToWorker) => {
  const { id } = message;
  const stop = stopOf(message.abortFlag);
  try {
    const value =
      message.type === 'examine'
        ? await examine(message, stop)
        : message.type === 'aggregate'
          ? await aggregate(message.request, stop, progressOf(id))
          : await convert(message.request, { signal: stop, onProgress: progressOf(id) });
    send({ id, type: 'done', value });
  } catch (error) {
    send({ id, type: 'failed', error: packError(error) });
  }
});

function progressOf(id: number) {
  let last = 0;
  return (progress: { readonly bytesDone: number; readonly bytesTotal: number }) => {
    const now = performance.now();
    if (now - last < PROGRESS_INTERVAL_MS && progress.bytesDone < progress.bytesTotal) return;
    last = now;
    send({ id, type: 'progress', progress });
  };
}

/** What the other side sets in shared memory, in the form of a signal. */
function stopOf(flag: Int32Array): Stop {
  return {
    throwIfAborted() {
      if (Atomics.load(flag, 0) !== 0) throw new DOMException('The job was aborted', 'AbortError');
    },
  };
}

async function examine({ path, name, checkFinite }: ExamineMessage, signal: Stop): Promise<Examination> {
  const source = openFileSourceSync(path, name);
  try {
    const weights = await openWeights(source);
    const { layout } = weights;
    if (!checkFinite) return { layout, nonFinite: [] };
    const unpacked = await unpackWeights(weights, unpackingIn(dirname(path), signal));
    try {
      const nonFinite = await findNonFiniteElements(unpacked.source, unpacked.layout, name, signal);
      return { layout, nonFinite };
    } finally {
      if (unpacked.source !== source) await unpacked.source.close();
    }
  } finally {
    await source.close();
  }
}

async function aggregate(
  request: AggregateRequest,
  signal: Stop,
  onProgress: (progress: { readonly bytesDone: number; readonly bytesTotal: number }) => void,
): Promise<AggregateReport> {
  const startedAt = performance.now();
  const inputs: AggregationInput[] = [];
  const pool = new SourcePool();
  const opened: ByteSource[] = [];
  const formats = new Set<WeightsFormat>();
  const openInput = async (path: string, leaf: string): Promise<Weights> => {
    const file = pool.open(path, leaf);
    opened.push(file);
    const weights = await openWeights(file);
    const unpacked = await unpackWeights(weights, unpackingIn(dirname(request.output), signal));
    if (unpacked.source !== file) opened.push(unpacked.source);
    return unpacked;
  };
  try {
    for (const { path, leaf = path, weighting } of request.inputs) {
      const { source, layout } = await openInput(path, leaf);
      formats.add(layout.format);
      inputs.push({ leaf, source, layout, weighting: weighting ?? layout.weighting });
    }
    let model: AggregationInput | undefined;
    if (request.model !== undefined) {
      const { source, layout } = await openInput(request.model, request.model);
      model = { leaf: request.model, source, layout, weighting: null };
    }
    pool.reserve();
    const strategy = openStrategy(request.strategy?.name ?? 'mean', request.strategy?.parameters);
    const aggregation = await Aggregation.open(inputs, {
      strategy,
      model,
      nonFinite: request.nonFinite,
      scratch: fileScratch(dirname(request.output)),
    });
    try {
      const { totalWeighting } = aggregation;
      const format = formatOf(request, formats);
      checkForm(request.output, format, request);
      // A rule that measures would do so twice.
      const isShared = format === 'npy-object' && strategy.settle === undefined;
      const tensors = isShared ? await withOnlyBytes(aggregation) : aggregation.tensors;
      const encoding = await encode({
        format,
        weighting: totalWeighting,
        tensors,
        align: request.align ? 64 : undefined,
      });
      const sha256 = await writeOutput(aggregation, encoding, request, {
        signal,
        onProgress,
        openLanes: lanesFor(request, encoding.byteLength * inputs.length),
      });
      return {
        output: request.output,
        format,
        strategy: strategy.name,
        leaves: aggregation.leaves.length,
        totalWeighting,
        tensors: tensors.length,
        parameters: aggregation.parameters,
        bytesRead: aggregation.bytesRead,
        seconds: (performance.now() - startedAt) / 1000,
        sha256,
        countsEqually: inputs.every((input) => input.weighting === null),
      };
    } finally {
      await aggregation.close();
    }
  } finally {
    for (const source of opened) await source.close();
  }
}

/** Input below which a second thread costs more than it brings, in bytes. */
const WORTH_A_THREAD = 16 << 20;

/** Threads besides this one. */
function lanesFor({ threads = availableParallelism() }: AggregateRequest, bytes: number) {
  const count = Math.min(threads, Math.ceil(bytes / WORTH_A_THREAD)) - 1;
  return count < 1 ? undefined : (order: LaneOrder) => openLanes(count, order);
}

/** What is asked for, else what the name of the output says, else what the inputs have in common. */
function formatOf({ format, output }: AggregateRequest, inputs: ReadonlySet<WeightsFormat>): WeightsFormat {
  const [first = 'npy-object'] = inputs;
  const isPlain = inputs.size === 1 && first === 'npy';
  const asked = format ?? formatOfName(output, isPlain);
  if (asked !== undefined) return asked;
  if (inputs.size === 1) return first;
  if ([...inputs].every((input) => input.startsWith('npy'))) return 'npy-object';
  throw new CambiumError(
    'output-format',
    `${output}: its name says no format, and the inputs have several (${[...inputs].join(', ')}): name one`,
  );
}

/** What a format cannot hold is the fault of the inputs here, not of a program. */
async function encode(spec: WeightsSpec): Promise<Encoding> {
  try {
    return await encodeWeights(spec);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new AggregationError(
      'aggregate-format',
      `the result as ${spec.format}: ${cause.message}`,
      {},
      { cause },
    );
  }
}
