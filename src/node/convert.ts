/**
 * One weight file into another format, in constant memory: an aggregation of a single input whose rule is to copy.
 *
 * The names of tensors are kept where the format has names. The weighting is kept where the format has room for one: all
 * but the plain array do.
 */
import { dirname } from 'node:path';
import { Aggregation, type RunOptions } from '../aggregate/aggregation.ts';
import { copy } from '../aggregate/strategies/copy.ts';
import { FormatError } from '../errors.ts';
import { encodeWeights } from '../formats/encode.ts';
import type { Encoding, WeightsSpec } from '../formats/encoding.ts';
import { openWeights } from '../formats/open.ts';
import { unpackWeights } from '../formats/weights.ts';
import { openFileSourceSync } from './files.ts';
import type { ConvertReport, ConvertRequest } from './jobs.ts';
import { withOnlyBytes } from './only-bytes.ts';
import { checkForm, formatOfName } from './output-format.ts';
import { unpackingIn } from './unpacking.ts';
import { writeOutput } from './write-output.ts';

/**
 * Converts a file; for workers.
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
    const { source, layout } = await unpackWeights(weights, unpacking);
    try {
      const given = request.weighting === undefined ? layout.weighting : request.weighting;
      const isPlain = layout.tensors.length === 1 && given === null;
      const format = request.format ?? formatOfName(output, isPlain);
      if (format === undefined) throw new RangeError(`the name ${output} says no format`);
      checkForm(output, format, request);
      const weighting = format === 'npy' ? null : given;
      const aggregation = await Aggregation.open([{ leaf: input, source, layout, weighting: 1 }], {
        strategy: copy,
        nonFinite: 'propagate',
        scratch: unpacking.scratch,
      });
      try {
        const { parameters } = aggregation;
        const found = format === 'npy-object' ? await withOnlyBytes(aggregation) : aggregation.tensors;
        const tensors = request.names === 'drop' ? found.map((tensor) => ({ ...tensor, name: null })) : found;
        const weightingType = request.weighting === undefined ? layout.weightingType : null;
        const encoding = await encode(input, {
          format,
          weighting,
          weightingType: weightingType ?? undefined,
          tensors,
          align: request.align ? 64 : undefined,
        });
        const sha256 = await writeOutput(aggregation, encoding, request, run);
        return {
          input,
          output,
          format,
          weighting,
          tensors: tensors.length,
          parameters,
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

/** What a format cannot hold is the fault of the file here, not of a program. */
async function encode(input: string, spec: WeightsSpec): Promise<Encoding> {
  if (spec.format === 'npy-object' && spec.weighting === null) {
    throw new FormatError(
      'weighting-missing',
      `${input} has no weighting, which npy-object needs: give one (--weighting)`,
      { file: input },
    );
  }
  try {
    return await encodeWeights(spec);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new FormatError(
      'convert-format',
      `${input} cannot become ${spec.format}: ${cause.message}`,
      { file: input },
      { cause },
    );
  }
}
