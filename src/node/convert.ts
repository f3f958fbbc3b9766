import { dirname } from 'node:path';
import type { RunOptions } from '../aggregate/aggregation.ts';
import { openConversion } from '../aggregate/conversion.ts';
import { CambiumError } from '../errors.ts';
import { openWeights } from '../formats/open.ts';
import { prepareWeights, type UnpackOptions, type Weights } from '../formats/weights.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { encodeJob } from './encode-job.ts';
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
  const { input, output, addTo } = request;
  if (request.encode !== undefined) {
    checkEncoded(request);
    return encodeJob(request, run);
  }
  const opened: ByteSource[] = [];
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
      const model = addTo === undefined ? undefined : await openModel(addTo, request, unpacking, opened);
      const { aggregation, encoding, weighting } = await openConversion(
        input,
        unpacked,
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
    for (const source of [file, ...opened]) await source.close();
  }
}

/** Opens the global model that a difference is added to. */
async function openModel(
  path: string,
  { void16 }: ConvertRequest,
  unpacking: UnpackOptions,
  opened: ByteSource[],
): Promise<{ readonly leaf: string } & Weights> {
  const file = openFileSourceSync(path);
  opened.push(file);
  const weights = await prepareWeights(await openWeights(file, { void16 }), unpacking);
  if (weights.source !== file) opened.push(weights.source);
  return { leaf: path, ...weights };
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
