/** The model as weight files. */
import { FormatError } from '../../errors.ts';
import { readTensors } from '../../formats/read.ts';
import { writeWeights } from '../../formats/write.ts';
import { openFileSink, openFileSource } from '../../node/files.ts';
import { tensorOf } from '../../tensor/tensor.ts';
import type { WeightArray } from './model.ts';

/**
 * Writes an update, `[weighting, [arrays]]`, as NumPy would read it.
 *
 * @param weighting the number of samples that the model was trained on
 * @throws FileError
 */
export async function writeUpdate(
  path: string,
  weighting: number,
  weights: readonly WeightArray[],
): Promise<void> {
  const tensors = weights.map(({ shape, values }) => tensorOf(values, shape));
  await writeWeights(await openFileSink(path), { weighting, tensors });
}

/** Reads the arrays of a global model. Throws FormatError when one of them is not float32; FileError. */
export async function readModel(path: string): Promise<WeightArray[]> {
  const source = await openFileSource(path);
  try {
    const { tensors } = await readTensors(source);
    return tensors.map(({ dtype, shape, data }, tensor) => {
      if (dtype !== 'float32') {
        const place = { file: path, tensor };
        throw new FormatError('weights-dtype', `${path}: array ${tensor} is ${dtype}, not float32`, place);
      }
      return { shape, values: new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4) };
    });
  } finally {
    await source.close();
  }
}
