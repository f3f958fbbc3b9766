/** The model as weight files. */
import { writeFile } from 'node:fs/promises';
import { encodeUpdate } from '../../client/weights.ts';
import { FormatError } from '../../errors.ts';
import { openWeights } from '../../formats/open.ts';
import { fileError } from '../../node/file-errors.ts';
import { openFileSource } from '../../node/files.ts';
import { tensorOf } from '../../tensor/tensor.ts';
import type { WeightArray } from './model.ts';

/**
 * Writes an update, `[weighting, [arrays]]`, as NumPy would read it.
 *
 * @param weighting the number of samples that the model was trained on
 */
export async function writeUpdate(
  path: string,
  weighting: number,
  weights: readonly WeightArray[],
): Promise<void> {
  const tensors = weights.map(({ shape, values }) => tensorOf(values, shape));
  const bytes = await encodeUpdate({ weighting, tensors });
  try {
    await writeFile(path, bytes);
  } catch (cause) {
    throw fileError(cause, path, 'write');
  }
}

/** Reads the arrays of a global model. Throws FormatError when it holds anything but float32 in C order. */
export async function readModel(path: string): Promise<WeightArray[]> {
  const source = await openFileSource(path);
  try {
    const { layout } = await openWeights(source);
    const weights: WeightArray[] = [];
    for (const [i, { dtype, shape, order, byteOrder, byteOffset, byteLength }] of layout.tensors.entries()) {
      if (dtype !== 'float32' || order !== 'C' || byteOrder !== 'little' || byteOffset === null) {
        throw new FormatError('format-model', `${path}: array ${i} is no plain float32`, {
          file: path,
          tensor: i,
        });
      }
      const values = new Float32Array(byteLength / 4);
      await source.readInto(byteOffset, new Uint8Array(values.buffer));
      weights.push({ shape, values });
    }
    return weights;
  } finally {
    await source.close();
  }
}
