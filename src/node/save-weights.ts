import { extname } from 'node:path';
import { UPDATE_FORMATS, type UpdateFormat } from '../client/dialect.ts';
import { weightings } from '../client/weightings.ts';
import { CambiumError } from '../errors.ts';
import { writeWeights } from '../formats/write.ts';
import type { ModelUpdate } from '../tensor/tensor.ts';
import { openFileSink } from './files.ts';
import { formatOfName } from './output-format.ts';

export interface SaveWeightsOptions {
  /** Default: what the ending of the path says. */
  readonly format?: UpdateFormat | undefined;
  /** Deflate the arrays of an `npz`, as numpy.savez_compressed does. Default true. */
  readonly compress?: boolean | undefined;
}

/** A file that `saveWeights` wrote. */
export interface SavedWeights {
  /** With the ending that it was given. */
  readonly path: string;
  readonly format: UpdateFormat;
  readonly byteLength: number;
}

/**
 * Writes an update as a weight file: a compressed `.npz` unless the ending of the path says `.npy` (an object array) or
 * `.safetensors`. A path without an ending gets `.npz`. The file appears complete or not at all, and is on the disk then.
 *
 * @param update see `updateFromArrays`, `weightings`
 * @throws RangeError for a weighting outside [2^-64, 2^53], and tensors whose bytes do not fit their shapes; CambiumError
 *   `output-format` for an ending that says no format of updates; FileError
 */
export async function saveWeights(
  path: string,
  update: ModelUpdate,
  options: SaveWeightsOptions = {},
): Promise<SavedWeights> {
  const { weighting } = update;
  weightings.manual(weighting ?? Number.NaN);
  const named = extname(path) === '' && options.format === undefined ? `${path}.npz` : path;
  const format = options.format ?? formatOfName(named, false);
  if (!isUpdateFormat(format)) {
    throw new CambiumError(
      'output-format',
      `${named}: end the name in .npz, .npy or .safetensors, or give the format: ${UPDATE_FORMATS.join(', ')}`,
    );
  }
  const { compress = true } = options;
  const open = () => openFileSink(named, { durable: true });
  const byteLength = await writeWeights(open, update, { format, compress: compress && format === 'npz' });
  return { path: named, format, byteLength };
}

function isUpdateFormat(format: string | undefined): format is UpdateFormat {
  return (UPDATE_FORMATS as readonly (string | undefined)[]).includes(format);
}
