import { dirname, extname } from 'node:path';
import { UPDATE_FORMATS, type UpdateFormat } from '../client/dialect.ts';
import { weightings } from '../client/weightings.ts';
import { CambiumError } from '../errors.ts';
import { updateSource } from '../formats/update-source.ts';
import { writeWeights } from '../formats/write.ts';
import type { ByteSink } from '../tensor/bytes.ts';
import type { ModelUpdate } from '../tensor/tensor.ts';
import { deflateMembers, writeDeflated } from './deflate.ts';
import { openFileSink } from './files.ts';
import { formatOfName } from './output-format.ts';
import { fileScratch } from './scratch.ts';

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
  const byteLength =
    compress && format === 'npz'
      ? await writeCompressed(open, update, dirname(named))
      : await writeWeights(open, update, { format });
  return { path: named, format, byteLength };
}

/** In constant memory besides the update itself; scratch room is in the folder. */
async function writeCompressed(
  open: () => Promise<ByteSink>,
  update: ModelUpdate,
  folder: string,
): Promise<number> {
  const deflated = await deflateMembers(
    await updateSource(update, { format: 'npz' }),
    fileScratch(folder),
    {},
  );
  try {
    const sink = await open();
    try {
      await writeDeflated(deflated, sink, {});
      await sink.commit();
    } catch (error) {
      await sink.discard();
      throw error;
    }
    return deflated.encoding.byteLength;
  } finally {
    await deflated.packed.close();
  }
}

function isUpdateFormat(format: string | undefined): format is UpdateFormat {
  return (UPDATE_FORMATS as readonly (string | undefined)[]).includes(format);
}
