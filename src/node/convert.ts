import { dirname } from 'node:path';
import type { RunOptions } from '../aggregate/aggregation.ts';
import { openConversion } from '../aggregate/conversion.ts';
import { CambiumError } from '../errors.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { encodeJob } from './encode-job.ts';
import { openFileSourceSync } from './files.ts';
import type { ConvertReport, ConvertRequest } from './jobs.ts';
import { checkForm, formatOfName } from './output-format.ts';
import { openPrepared, unpackingIn } from './unpacking.ts';
import { writeOutput } from './write-output.ts';

/**
 * Converts a file, in constant memory; for workers.
 *
 * @throws FormatError for a file that is no weight file, `weighting-missing` and `convert-format` for one that the other
 *   format cannot hold; CambiumError `output-format`; FileError; the reason of `signal`
 */
export async function convert(
  request: ConvertRequest,
  run: Pick<RunOptions, 'signal' | 'onProgress'>,
): Promise<ConvertReport> {
  const startedAt = performance.now();
  const { input, output, addTo } = request;
  if (request.encode !== undefined) {
    checkEncoded(request);
    return encodeJob(request, run);
  }
  const opened: ByteSource[] = [];
  const unpacking = unpackingIn(dirname(output), run.signal);
  const open = (path: string) =>
    openPrepared(openFileSourceSync(path), unpacking, opened, { void16: request.void16 });
  try {
    const weights = await open(input);
    const { layout } = weights;
    const given = request.weighting === undefined ? layout.weighting : request.weighting;
    const isPlain = layout.tensors.length === 1 && given === null;
    const format = request.format ?? formatOfName(output, isPlain);
    if (format === undefined) {
      throw new CambiumError('output-format', `${output}: its name says no format: name one`);
    }
    checkForm(output, format, { ...request, isWeighted: request.weighting != null });
    const model = addTo === undefined ? undefined : { leaf: addTo, ...(await open(addTo)) };
    const { aggregation, encoding, weighting } = await openConversion(
      input,
      weights,
      format,
      { ...request, addTo: model },
      unpacking.scratch,
    );
    try {
      const sha256 = await writeOutput(aggregation, encoding, request, run);
      return {
        input,
        output,
        format,
        weighting,
        isDifference: addTo === undefined && layout.isDifference === true,
        tensors: aggregation.tensors.length,
        parameters: aggregation.parameters,
        bytesRead: aggregation.bytesRead,
        seconds: (performance.now() - startedAt) / 1000,
        sha256,
      };
    } finally {
      await aggregation.close();
    }
  } finally {
    for (const source of opened) await source.close();
  }
}

/** An encoded update has one form. Throws CambiumError `output-format`. */
function checkEncoded({ output, format, addTo, names, compress, align }: ConvertRequest): void {
  const asked = format ?? formatOfName(output, false);
  if (asked !== undefined && asked !== 'safetensors') {
    throw new CambiumError(
      'output-format',
      `${output}: an encoded update is a safetensors file, not ${asked}`,
    );
  }
  checkForm(output, 'safetensors', { compress, align });
  if (addTo !== undefined || names !== undefined) {
    throw new CambiumError(
      'output-format',
      `${output}: an encoded update keeps its names and is added to nothing`,
    );
  }
}
