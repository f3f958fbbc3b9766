import { totalWeightingOf } from '../aggregate/partial-file.ts';
import { openPartialSum, type PartialSum, verifyPartialSum } from '../aggregate/partial-reader.ts';
import { isCambiumError } from '../errors.ts';
import { openWeights, type Weights } from '../formats/open.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { itemSize } from '../tensor/dtypes.ts';
import { elementCount, type Layout } from '../tensor/layout.ts';
import { nodeCrc32 } from './inflate.ts';

/** Opens an exact partial sum, its checksum compared, and tells its layout. Throws FormatError `partial-…`, `st-…`. */
export async function readSumLayout(source: ByteSource): Promise<Layout> {
  const sum = await openPartialSum(source);
  await verifyPartialSum(sum, { crc32: nodeCrc32 });
  return layoutOfSum(sum);
}

/** The layout of a sum is that of the mean of its leaves; its elements lie nowhere. */
export function layoutOfSum({ source, tensors, leaves, total }: PartialSum): Layout {
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

/** Opens weights or an exact partial sum, whichever it is. Throws as `openWeights` and `openPartialSum`. */
export async function openWeightsOrSum(
  file: ByteSource,
): Promise<{ readonly weights: Weights } | { readonly sum: PartialSum }> {
  try {
    return { weights: await openWeights(file) };
  } catch (error) {
    if (isCambiumError(error) && error.code === 'weights-partial-sum')
      return { sum: await openPartialSum(file) };
    throw error;
  }
}
