/** Weight files and partial sums added, to a partial sum or to a mean. For workers: reads are synchronous. */
import { dirname } from 'node:path';
import type { AggregationInput, RunOptions, Stop } from '../aggregate/aggregation.ts';
import type { PartialSum } from '../aggregate/partial-reader.ts';
import { encodeResult } from '../aggregate/result.ts';
import { Summation } from '../aggregate/summation.ts';
import { AggregationError, CambiumError } from '../errors.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { digestOf } from './digest.ts';
import { openFileSinkSync } from './files.ts';
import { nodeCrc32 } from './inflate.ts';
import type { MergeReport, MergeRequest } from './jobs.ts';
import { lanesFor } from './lanes.ts';
import { checkForm, formatOfName } from './output-format.ts';
import { SourcePool } from './source-pool.ts';
import { openWeightsOrSum } from './sum-layout.ts';
import { prepareOpened, unpackingIn } from './unpacking.ts';
import { writeOutput } from './write-output.ts';

/** @throws FormatError, AggregationError, FileError; the reason of `signal`. Nothing is left behind then */
export async function mergeJob(
  request: MergeRequest,
  signal: Stop,
  onProgress: RunOptions['onProgress'],
): Promise<MergeReport> {
  const startedAt = performance.now();
  const unpacking = unpackingIn(dirname(request.output), signal);
  const pool = new SourcePool();
  const opened: ByteSource[] = [];
  const updates: AggregationInput[] = [];
  const sums: PartialSum[] = [];
  const without: PartialSum[] = [];
  try {
    for (const input of request.inputs) {
      const { leaf = input.path, weighting } = input;
      const file = pool.openInput(input, leaf);
      opened.push(file);
      const found = await openWeightsOrSum(file);
      if ('sum' in found) {
        sums.push(found.sum);
        continue;
      }
      const { source, layout } = await prepareOpened(found.weights, unpacking, opened);
      updates.push({ leaf, source, layout, weighting: weighting ?? layout.weighting });
    }
    for (const path of request.without ?? []) {
      const file = pool.open(path);
      opened.push(file);
      const found = await openWeightsOrSum(file);
      if ('weights' in found) {
        throw new AggregationError(
          'partial-not-a-sum',
          `${path} holds weights: only a partial sum is taken out`,
        );
      }
      without.push(found.sum);
    }
    pool.reserve();
    const summation = await Summation.open(
      { updates, sums, without },
      { nonFinite: request.nonFinite ?? 'reject', tensors: request.tensors, scratch: unpacking.scratch },
    );
    try {
      const inputBytes = opened.reduce((sum, { byteLength }) => sum + byteLength, 0);
      const run = { signal, onProgress, openLanes: lanesFor(request, inputBytes) };
      const result =
        request.to === 'sum'
          ? await writeSum(summation, request, run)
          : await writeMean(summation, request, run);
      const { leaves, total, totalWeighting, tensors, parameters, bytesRead } = summation;
      return {
        output: request.output,
        format: result.format,
        leaves: leaves.length,
        ids: leaves.map(({ leaf }) => leaf),
        total: String(total),
        totalWeighting,
        tensors: tensors.length,
        parameters,
        byteLength: result.byteLength,
        residues: result.residues,
        bytesRead,
        seconds: (performance.now() - startedAt) / 1000,
        sha256: result.sha256,
        countsEqually: leaves[0]?.weighting === null,
      };
    } finally {
      await summation.close();
    }
  } finally {
    for (const source of opened) await source.close();
  }
}

type Result = Pick<MergeReport, 'format' | 'byteLength' | 'residues' | 'sha256'>;

async function writeMean(
  summation: Summation,
  request: MergeRequest,
  run: Pick<RunOptions, 'signal' | 'onProgress' | 'openLanes'>,
): Promise<Result> {
  const { output } = request;
  const { tensors, leaves } = summation;
  // Of what has a name or a weighting no plain array was made.
  const isPlain = tensors.length === 1 && tensors[0]!.name === null && leaves[0]!.weighting === null;
  const format = request.format ?? formatOfName(output, isPlain);
  if (format === undefined) {
    throw new CambiumError('output-format', `${output}: its name says no format: name one`);
  }
  checkForm(output, format, request);
  const encoding = await encodeResult(summation, {}, { format, align: request.align });
  const sha256 = await writeOutput(summation, encoding, request, run);
  return { format, byteLength: encoding.byteLength, residues: null, sha256 };
}

async function writeSum(
  summation: Summation,
  { output, digest = true, durable }: MergeRequest,
  run: Pick<RunOptions, 'signal' | 'onProgress' | 'openLanes'>,
): Promise<Result> {
  const named = formatOfName(output, true);
  if (named !== undefined && named !== 'safetensors') {
    throw new CambiumError(
      'output-format',
      `${output}: an exact partial sum is a safetensors file, not ${named}`,
    );
  }
  const sink = openFileSinkSync(output, { durable });
  try {
    const { byteLength, residues } = await summation.write(sink, { ...run, crc32: nodeCrc32 });
    // The header was written last, so the file is read once more, mostly from the page cache.
    const sha256 = digest ? await digestOf(sink, byteLength) : null;
    await sink.commit();
    return { format: 'partial-sum', byteLength, residues, sha256 };
  } catch (error) {
    await sink.discard();
    throw error;
  }
}
