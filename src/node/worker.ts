/**
 * The worker thread: heavy jobs on files, one at a time, with synchronous reads straight into the core's memory.
 * `workers.ts` is the other end.
 */
import { createHash } from 'node:crypto';
import { dirname } from 'node:path';
import { parentPort } from 'node:worker_threads';
import { Aggregation, type AggregationInput, type Stop } from '../aggregate/aggregation.ts';
import { findNonFiniteElements } from '../aggregate/finite.ts';
import { AggregationError } from '../errors.ts';
import { encodeWeights } from '../formats/encode.ts';
import { openWeights } from '../formats/open.ts';
import { type UnpackOptions, unpackWeights } from '../formats/weights.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import type { WeightsFormat } from '../tensor/layout.ts';
import { openFileSinkSync, openFileSourceSync } from './files.ts';
import { nodeCrc32, nodeInflate } from './inflate.ts';
import type { AggregateReport, AggregateRequest, Examination } from './jobs.ts';
import { fileScratch } from './scratch.ts';
import { packError } from './worker-errors.ts';
import type { ExamineMessage, FromWorker, ToWorker } from './worker-messages.ts';

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
        : await aggregate(message.request, stop, progressOf(id));
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

/** Archives are unpacked into files of a folder; they lose their names at once. */
function unpackingIn(folder: string, signal: Stop): UnpackOptions {
  return { scratch: fileScratch(folder), inflate: nodeInflate, crc32: nodeCrc32, signal };
}

async function aggregate(
  request: AggregateRequest,
  signal: Stop,
  onProgress: (progress: { readonly bytesDone: number; readonly bytesTotal: number }) => void,
): Promise<AggregateReport> {
  const startedAt = performance.now();
  const inputs: AggregationInput[] = [];
  const opened: ByteSource[] = [];
  const formats = new Set<WeightsFormat>();
  try {
    for (const { path, leaf = path, weighting } of request.inputs) {
      const file = openFileSourceSync(path, leaf);
      opened.push(file);
      const weights = await openWeights(file);
      const { source, layout } = await unpackWeights(weights, unpackingIn(dirname(request.output), signal));
      if (source !== file) opened.push(source);
      formats.add(layout.format);
      inputs.push({ leaf, source, layout, weighting: weighting ?? layout.weighting });
    }
    const aggregation = await Aggregation.open(inputs, {
      nonFinite: request.nonFinite,
      scratch: fileScratch(dirname(request.output)),
    });
    try {
      const { tensors, totalWeighting } = aggregation;
      const format = request.format ?? (formats.size === 1 && formats.has('npy') ? 'npy' : 'npy-object');
      if (format === 'npy' && tensors.length !== 1) {
        throw new AggregationError(
          'aggregate-format',
          `a plain .npy file holds one tensor, the mean has ${tensors.length}: take npy-object`,
        );
      }
      const encoding = await encodeWeights({ format, weighting: totalWeighting, tensors });
      const hash = request.digest === false ? null : createHash('sha256');
      const sink = openFileSinkSync(request.output, { durable: request.durable });
      try {
        await aggregation.run(sink, encoding, {
          signal,
          onProgress,
          onBlock: (bytes) => hash?.update(bytes),
        });
        await sink.commit();
      } catch (error) {
        await sink.discard();
        throw error;
      }
      return {
        output: request.output,
        format,
        strategy: 'mean',
        leaves: aggregation.leaves.length,
        totalWeighting,
        tensors: tensors.length,
        parameters: aggregation.parameters,
        bytesRead: aggregation.bytesRead,
        seconds: (performance.now() - startedAt) / 1000,
        sha256: hash === null ? null : hash.digest('hex'),
        countsEqually: inputs.every((input) => input.weighting === null),
      };
    } finally {
      await aggregation.close();
    }
  } finally {
    for (const source of opened) await source.close();
  }
}
