/** Weight files of any size as encoded updates, with the residual of error feedback in a file. For workers. */
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import type { AggregationInput, RunOptions } from '../aggregate/aggregation.ts';
import { UpdateEncoder } from '../aggregate/update-encoder.ts';
import { FormatError } from '../errors.ts';
import { encodeWeights } from '../formats/encode.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { openFileSinkSync, openFileSourceSync } from './files.ts';
import type { ConvertReport, ConvertRequest } from './jobs.ts';
import { openPrepared, unpackingIn } from './unpacking.ts';
import { writeOutput } from './write-output.ts';

/**
 * Encodes a file, in constant memory. The new residual appears right after the output, both of them complete.
 *
 * @throws as `UpdateEncoder.open` and `run`; FormatError for what is no weight file, and `convert-format` for what an encoded
 *   update cannot hold; FileError; the reason of `signal`
 */
export async function encodeJob(
  request: ConvertRequest,
  run: Pick<RunOptions, 'signal' | 'onProgress'>,
): Promise<ConvertReport> {
  const startedAt = performance.now();
  const { input, output } = request;
  const { differenceTo, residual, ...form } = request.encode!; // the caller looked
  const unpacking = unpackingIn(dirname(output), run.signal);
  const opened: ByteSource[] = [];
  const open = async (path: string, void16?: 'bfloat16'): Promise<AggregationInput> => {
    const weights = await openPrepared(openFileSourceSync(path), unpacking, opened, { void16 });
    return { leaf: path, ...weights, weighting: weights.layout.weighting };
  };
  try {
    const update = await open(input, request.void16);
    const weighting = request.weighting === undefined ? update.weighting : request.weighting;
    const before = residual !== undefined && existsSync(residual) ? await open(residual) : undefined;
    const inputs = {
      update: { ...update, weighting },
      differenceTo: differenceTo === undefined ? undefined : await open(differenceTo, request.void16),
      residual: before,
    };
    const encoder = await UpdateEncoder.open(inputs, form, unpacking.scratch).catch((cause: unknown) => {
      // It is the fault of the file here, not of a program.
      throw cause instanceof RangeError ? formatOf(input, cause) : cause;
    });
    try {
      const sha256 = await writeBoth(encoder, request, run, residual);
      return {
        input,
        output,
        format: 'safetensors',
        weighting,
        isDifference: differenceTo !== undefined || update.layout.isDifference === true,
        tensors: encoder.tensors.length,
        parameters: encoder.parameters,
        bytesRead: encoder.bytesRead,
        seconds: (performance.now() - startedAt) / 1000,
        sha256,
      };
    } finally {
      await encoder.close();
    }
  } finally {
    for (const source of opened) await source.close();
  }
}

/** The encoded update and, where it is kept, the residual: as weights of the update's tensors, without a weighting. */
async function writeBoth(
  encoder: UpdateEncoder,
  request: ConvertRequest,
  run: Pick<RunOptions, 'signal' | 'onProgress'>,
  path: string | undefined,
): Promise<string | null> {
  if (path === undefined) return writeOutput(encoder, encoder.encoding, { output: request.output }, run);
  const rest = await encodeWeights({ format: 'safetensors', weighting: null, tensors: encoder.tensors });
  const sink = openFileSinkSync(path);
  try {
    for (const { offset, bytes } of rest.literals) await sink.write(offset, bytes);
    const residual = { sink, byteOffsets: rest.payloads.map(({ offset }) => offset) };
    const keeping = {
      run: (...[to, encoding, options]: Parameters<UpdateEncoder['run']>) =>
        encoder.run(to, encoding, { ...options, residual }),
    };
    const sha256 = await writeOutput(keeping, encoder.encoding, { output: request.output }, run);
    await sink.commit();
    return sha256;
  } catch (error) {
    await sink.discard();
    throw error;
  }
}

function formatOf(input: string, cause: RangeError): FormatError {
  const sentence = `${input} cannot become an encoded update: ${cause.message}`;
  return new FormatError('convert-format', sentence, { file: input }, { cause });
}
