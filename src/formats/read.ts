import { type ByteSource, memoryScratch } from '../tensor/bytes.ts';
import { type DType, itemSize, numberSize } from '../tensor/dtypes.ts';
import { elementCount, type Layout, type TensorLayout, tensorLabel } from '../tensor/layout.ts';
import type { ModelUpdate, Tensor } from '../tensor/tensor.ts';
import { readExactly } from './exact.ts';
import type { ReadOptions } from './npy.ts';
import { openWeights } from './open.ts';
import { unpackWeights } from './weights.ts';

/**
 * Reads a whole weight file into memory: every tensor in C order, little endian. For models that fit; aggregation
 * streams instead.
 *
 * @param layout what `openWeights` found, when the caller has it already
 * @throws FormatError as `openWeights`, and `npy-data-truncated` for a source that became shorter; for archives `zip-crc` and
 *   `zip-deflate` too, for encoded updates `encoded-indices`. RangeError when `layout` has a tensor that is not contiguous
 */
export async function readTensors(
  source: ByteSource,
  layout?: Layout | undefined,
  options: ReadOptions = {},
): Promise<ModelUpdate & { readonly layout: Layout }> {
  if (layout !== undefined) return readAll(source, layout, layout);
  const weights = await openWeights(source, options);
  const unpacked = await unpackWeights(weights, { scratch: memoryScratch });
  try {
    return await readAll(unpacked.source, unpacked.layout, weights.layout);
  } finally {
    if (unpacked.source !== source) await unpacked.source.close();
  }
}

async function readAll(
  source: ByteSource,
  { weighting, tensors }: Layout,
  layout: Layout,
): Promise<ModelUpdate & { readonly layout: Layout }> {
  const read: Tensor[] = [];
  for (const [i, tensor] of tensors.entries()) read.push(await readTensor(source, tensor, i));
  return { weighting, tensors: read, layout };
}

async function readTensor(source: ByteSource, tensor: TensorLayout, position: number): Promise<Tensor> {
  const { name, dtype, shape, byteOffset, byteLength } = tensor;
  if (byteOffset === null) {
    throw new RangeError(`${source.name}: ${tensorLabel(tensor, position)} is not contiguous in the file`);
  }
  const stored = new Uint8Array(byteLength);
  await readExactly(source, byteOffset, stored, 'npy-data-truncated', position);
  if (tensor.byteOrder === 'big') swapElements(stored, dtype);
  return {
    name,
    dtype,
    shape,
    data: tensor.order === 'F' ? toOrderC(stored, shape, itemSize(dtype)) : stored,
  };
}

/** Reverses the bytes of each number in place; of complex ones each component. */
function swapElements(bytes: Uint8Array, dtype: DType): void {
  const size = numberSize(dtype);
  for (let start = 0; start < bytes.byteLength; start += size) {
    for (let low = start, high = start + size - 1; low < high; low++, high--) {
      const byte = bytes[low]!;
      bytes[low] = bytes[high]!;
      bytes[high] = byte;
    }
  }
}

/** The elements with the last index moving fastest, from elements with the first index moving fastest. */
function toOrderC(stored: Uint8Array, shape: readonly number[], size: number): Uint8Array {
  const count = elementCount(shape);
  const out = new Uint8Array(stored.byteLength);
  const strides: number[] = [];
  let stride = size;
  for (const dimension of shape) {
    strides.push(stride);
    stride *= dimension;
  }
  const index = shape.map(() => 0);
  let from = 0;
  for (let i = 0; i < count; i++) {
    for (let k = 0; k < size; k++) out[i * size + k] = stored[from + k]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index[axis]!++;
      from += strides[axis]!;
      if (index[axis]! < shape[axis]!) break;
      from -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
  return out;
}
