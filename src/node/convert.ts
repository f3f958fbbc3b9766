import { dirname } from 'node:path';
import type { RunOptions } from '../aggregate/aggregation.ts';
import { openConversion } from '../aggregate/conversion.ts';
import { openWeights } from '../formats/open.ts';
import { prepareWeights } from '../formats/weights.ts';
import { openFileSourceSync } from './files.ts';
import type { ConvertReport, ConvertRequest } from './jobs.ts';
import { checkForm, formatOfName } from './output-format.ts';
import { unpackingIn } from './unpacking.ts';
import { writeOutput } from './write-output.ts';

/**
 * Converts a file, in constant memory; for workers.
 *
 * @throws FormatError for a file that is no weight file, `weighting-missing` and `convert-format` for one that the other
 *   format cannot hold; FileError; the reason of `signal`
 */
export async function convert(
  request: ConvertRequest,
  run: Pick<RunOptions, 'signal' | 'onProgress'>,
): Promise<ConvertReport> {
  const startedAt = performance.now();
  const { input, output } = request;
  const file = openFileSourceSync(input);
  try {
    const weights = await openWeights(file, { void16: request.void16 });
    const unpacking = unpackingIn(dirname(output), run.signal);
    const unpacked = await prepareWeights(weights, unpacking);
    const { source, layout } = unpacked;
    try {
      const given = request.weighting === undefined ? layout.weighting : request.weighting;
      const isPlain = layout.tensors.length === 1 && given === null;
      const format = request.format ?? formatOfName(output, isPlain);
      if (format === undefined) throw new RangeError(`the name ${output} says no format`);
      checkForm(output, format, request);
      const { aggregation, encoding, weighting } = await openConversion(
        input,
        unpacked,
        format,
        request,
        unpacking.scratch,
      );
      try {
        const sha256 = await writeOutput(aggregation, encoding, request, run);
        return {
          input,
          output,
          format,
          weighting,
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
      if (source !== file) await source.close();
    }
  } finally {
    await file.close();
  }
}
