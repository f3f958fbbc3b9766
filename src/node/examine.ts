/** A look at a weight file, or at an exact partial sum, and at every element of it. For workers: reads are synchronous. */
import { dirname } from 'node:path';
import type { Stop } from '../aggregate/aggregation.ts';
import { examineElements } from '../aggregate/examine.ts';
import { type PartialSum, verifyPartialSum } from '../aggregate/partial-reader.ts';
import { encodeResult } from '../aggregate/result.ts';
import { Summation } from '../aggregate/summation.ts';
import { AggregationError, type NonFiniteElement } from '../errors.ts';
import { openWeights, type Weights } from '../formats/open.ts';
import { prepareWeights } from '../formats/weights.ts';
import { type ByteSink, memorySource } from '../tensor/bytes.ts';
import { openFileSourceSync } from './files.ts';
import { nodeCrc32 } from './inflate.ts';
import type { Examination } from './jobs.ts';
import { fileScratch } from './scratch.ts';
import { layoutOfSum, openWeightsOrSum } from './sum-layout.ts';
import { unpackingIn } from './unpacking.ts';
import type { ExamineMessage } from './worker-messages.ts';

/** @throws as `Jobs.examine` */
export async function examine(message: ExamineMessage, signal: Stop): Promise<Examination> {
  const { path, bytes, name } = message;
  const source = bytes === undefined ? openFileSourceSync(path, name) : memorySource(bytes, name);
  try {
    const found = message.sums ? await openWeightsOrSum(source) : { weights: await openWeights(source) };
    if ('sum' in found) return await examineSum(found.sum, message, signal);
    const { weights } = found;
    return message.checkFinite
      ? await examineWeights(weights, message, signal)
      : { layout: weights.layout, nonFinite: [], norm: null, isDifference: false };
  } finally {
    await source.close();
  }
}

async function examineWeights(
  weights: Weights,
  { path, name, model, tensors, maxUnpackedBytes }: ExamineMessage,
  signal: Stop,
): Promise<Examination> {
  // Of a difference the elements themselves are how far it lies from the model.
  const isDifference = weights.layout.isDifference === true;
  const unpacking = unpackingIn(dirname(path), signal);
  const unpacked = await prepareWeights(weights, { ...unpacking, maxByteLength: maxUnpackedBytes });
  try {
    const global = model === undefined || isDifference ? undefined : openFileSourceSync(model);
    try {
      const report = await examineElements(unpacked, {
        leaf: name,
        // What has two bytes and no type in a .npy is bfloat16 here: no rule knows another element of that kind.
        model: global && (await openWeights(global, { void16: 'bfloat16' })),
        tensors,
        scratch: fileScratch(dirname(path)),
        signal,
      });
      return { layout: weights.layout, ...report, isDifference: isDifference || report.isDifference };
    } finally {
      await global?.close();
    }
  } finally {
    if (unpacked.source !== weights.source) await unpacked.source.close();
  }
}

async function examineSum(
  sum: PartialSum,
  { path, checkFinite }: ExamineMessage,
  signal: Stop,
): Promise<Examination> {
  const layout = layoutOfSum(sum);
  if (!checkFinite) await verifyPartialSum(sum, { crc32: nodeCrc32, signal });
  const nonFinite = checkFinite ? await checkNumbers(sum, dirname(path), signal) : [];
  return { layout, nonFinite, norm: null, isDifference: false, sum: sum.leaves };
}

/**
 * Makes the mean of a sum and throws it away: what is wrong with it, residues that no sum has or a mean beyond its type, would
 * make every round fail that it is in. Its checksum is compared on the way.
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
      await summation.run(NOWHERE, encoding, { signal, crc32: nodeCrc32 });
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
