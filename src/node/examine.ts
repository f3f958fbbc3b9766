/** A look at a weight file, or at an exact partial sum, and at every element of it. For workers: reads are synchronous. */
import { dirname } from 'node:path';
import type { Stop } from '../aggregate/aggregation.ts';
import { findNonFiniteElements } from '../aggregate/finite.ts';
import { openPartialSum, type PartialSum, totalWeightingOf } from '../aggregate/partial-file.ts';
import { encodeResult } from '../aggregate/result.ts';
import { Summation } from '../aggregate/summation.ts';
import { AggregationError, isCambiumError, type NonFiniteElement } from '../errors.ts';
import { openWeights, type Weights } from '../formats/open.ts';
import { prepareWeights } from '../formats/weights.ts';
import type { ByteSink, ByteSource } from '../tensor/bytes.ts';
import { itemSize } from '../tensor/dtypes.ts';
import { elementCount, type Layout } from '../tensor/layout.ts';
import { openFileSourceSync } from './files.ts';
import { nodeCrc32 } from './inflate.ts';
import type { Examination } from './jobs.ts';
import { fileScratch } from './scratch.ts';
import { unpackingIn } from './unpacking.ts';
import type { ExamineMessage } from './worker-messages.ts';

/** @throws as `Jobs.examine` */
export async function examine(message: ExamineMessage, signal: Stop): Promise<Examination> {
  const { path, name, checkFinite, maxUnpackedBytes, sums } = message;
  const source = openFileSourceSync(path, name);
  try {
    const weights = await (sums ? openUnlessSum(source) : openWeights(source));
    if (weights === null) return await examineSum(source, message, signal);
    const { layout } = weights;
    if (!checkFinite) return { layout, nonFinite: [] };
    const unpacked = await prepareWeights(weights, {
      ...unpackingIn(dirname(path), signal),
      maxByteLength: maxUnpackedBytes,
    });
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

/** Weights; null for a partial sum. Throws as `openWeights`. */
export async function openUnlessSum(file: ByteSource): Promise<Weights | null> {
  try {
    return await openWeights(file);
  } catch (error) {
    if (isCambiumError(error) && error.code === 'weights-partial-sum') return null;
    throw error;
  }
}

async function examineSum(
  source: ByteSource,
  { path, checkFinite }: ExamineMessage,
  signal: Stop,
): Promise<Examination> {
  const sum = await openPartialSum(source, { crc32: nodeCrc32, signal });
  const layout = layoutOf(sum);
  const nonFinite = checkFinite ? await checkNumbers(sum, dirname(path), signal) : [];
  return { layout, nonFinite, sum: sum.leaves };
}

function layoutOf({ source, tensors, leaves, total }: PartialSum): Layout {
  const isCounted = leaves[0]!.weighting !== null; // a sum has leaves
  return {
    format: 'safetensors',
    weighting: isCounted ? totalWeightingOf(total) : null,
    weightingType: isCounted ? 'float' : null,
    tensors: tensors.map((tensor) => ({
      ...tensor,
      order: 'C',
      byteOrder: 'little',
      byteOffset: null,
      byteLength: elementCount(tensor.shape) * itemSize(tensor.dtype),
    })),
    byteLength: source.byteLength,
  };
}

/**
 * Makes the mean of a sum and throws it away: what is wrong with it, residues that no sum has or a mean beyond its type, would
 * make every round fail that it is in.
 *
 * @returns the first number that is NaN or infinite
 */
async function checkNumbers(
  sum: PartialSum,
  folder: string,
  signal: Stop,
): Promise<readonly NonFiniteElement[]> {
  const work = async (nonFinite: 'reject' | 'propagate') => {
    const inputs = { updates: [], sums: [sum], without: [] };
    const summation = await Summation.open(inputs, { nonFinite, scratch: fileScratch(folder) });
    try {
      const encoding = await encodeResult(summation, {}, { format: 'npy-object' });
      await summation.run(NOWHERE, encoding, { signal });
    } finally {
      await summation.close();
    }
  };
  try {
    await work('reject');
    return [];
  } catch (error) {
    if (!(error instanceof AggregationError) || error.code !== 'non-finite') throw error;
    await work('propagate');
    return error.nonFinite ?? [];
  }
}

const NOWHERE: ByteSink = { write() {}, commit() {}, discard() {} };
