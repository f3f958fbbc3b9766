/**
 * The weight file: an object array [weighting, [arrays]] in a `.npy`.
 *
 *     .npy header with descr '|O' and shape (2,)      128 bytes from every NumPy since 1.14
 *     pickle of the array                             ends the file
 *
 * np.save writes pickle protocol 2 up to NumPy 1.16, 3 from 1.17 to 1.26, 4 (names under numpy._core, frames) from 2.0
 * on. In 3 and 4 each array is spelled as
 *
 *     numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), b'b'), filled with
 *     (1, shape, dtype, is Fortran order, elements)
 *
 * so that the elements stand contiguously, and behind everything that explains them. Protocol 5, which np.save never
 * writes, has them before shape and dtype. Protocol 2 of Python 2 has them as a byte string; that of Python 3 as text,
 * where bytes above 7f take two: those have no place in the file and are unpacked (latin1.ts).
 *
 * The weighting is an int, a float, a NumPy scalar or an array of one element. The list may be a tuple, may hold lists,
 * and may hold [name, array] pairs. Readers must not rely on numbers of the memo, on the alignment of elements, or on
 * one payload per array: equal short ones, and the same array met twice, are stored once. Shape and dtype of the header
 * are not those of the pickle by nature; NumPy believes the pickle, we want both to say (2,).
 *
 * The pickle is walked by the core (assembly/pickle.ts says how it stays safe).
 */
import type { Core } from '../core/core.ts';
import type { TensorRecord } from '../core/records.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { itemSize } from '../tensor/dtypes.ts';
import { elementCount, type Layout, type TensorLayout } from '../tensor/layout.ts';
import { formatError, refusalError } from './format-error.ts';
import { type ReadOptions, tensorLayout } from './npy.ts';
import { decodeNames, walkPickle } from './pickle.ts';
import type { UnpackOptions, Weights } from './weights.ts';

/**
 * Opens a weight file.
 *
 * @param core an instance that is used for this alone: its whole arena is taken. It stays the caller's
 * @param header what the .npy header says
 */
export async function openNpyObject(
  source: ByteSource,
  core: Core,
  header: TensorRecord,
  options: ReadOptions,
): Promise<Weights> {
  const { name: file, byteLength } = source;
  if (header.shape.length !== 1 || header.shape[0] !== 2) {
    throw formatError(
      'weights-form',
      `an object array of shape (${header.shape.join(', ')}${header.shape.length === 1 ? ',' : ''}); a weight file has (2,): a weighting and a list of arrays`,
      { file, offset: 0 },
    );
  }
  const place = { begin: header.byteOffset, end: byteLength, isTorch: false };
  const { walk, weighting } = await walkPickle(source, core, place);
  const taken = walk.takeTensors();
  if (taken.kind === 'refused') throw await refusalError(taken, file, taken.tensor);
  const { records } = taken;
  const names = decodeNames(records, file);
  const layout: Layout = {
    format: 'npy-object',
    weighting: weighting.weighting,
    weightingType: weighting.isFloat ? 'float' : 'int',
    tensors: records.map((record, i) => {
      const tensor = tensorLayout(record, names[i] ?? null, options);
      return record.isEncoded ? withoutPlace(tensor) : tensor;
    }),
    byteLength,
  };
  const unpack = records.some(({ isEncoded }) => isEncoded)
    ? async (unpacking: UnpackOptions): Promise<Weights> => {
        const { decodeTexts } = await import('./latin1.ts');
        return decodeTexts(source, layout, records, unpacking);
      }
    : null;
  return { source, layout, unpack };
}

/** Elements that are text have a length of their own: that of the file is the text's. */
function withoutPlace(tensor: TensorLayout): TensorLayout {
  return {
    ...tensor,
    byteOffset: null,
    byteLength: elementCount(tensor.shape) * itemSize(tensor.dtype),
  };
}
