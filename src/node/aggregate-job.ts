/** The aggregation of files into a file: opens, checks, aggregates, writes. For workers: reads are synchronous. */
import { dirname } from 'node:path';
import {
  Aggregation,
  type AggregationInput,
  type RunOptions,
  type StateInput,
  type Stop,
} from '../aggregate/aggregation.ts';
import { checkUsed } from '../aggregate/check-used.ts';
import { type StateOwner, stateInputs } from '../aggregate/optimiser-state.ts';
import { commonFormat, encodeResult } from '../aggregate/result.ts';
import { SharedLayouts } from '../aggregate/shared-layouts.ts';
import { keepsState } from '../aggregate/steps.ts';
import { openRequest, type Strategy } from '../aggregate/strategies/index.ts';
import { AggregationError, CambiumError } from '../errors.ts';
import type { Encoding } from '../formats/encoding.ts';
import type { ReadOptions } from '../formats/npy.ts';
import type { Weights } from '../formats/weights.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import type { WeightsFormat } from '../tensor/layout.ts';
import { digestOf } from './digest.ts';
import type { AggregateInput, AggregateReport, AggregateRequest } from './jobs.ts';
import { lanesFor } from './lanes.ts';
import { checkForm, formatOfName } from './output-format.ts';
import { SourcePool } from './source-pool.ts';
import { createStateFile, type NextState, type OpenedState, openStateFile } from './state-file.ts';
import { openPrepared, unpackingIn } from './unpacking.ts';
import { writeOutput } from './write-output.ts';
import { digestOfWritten, rememberModel } from './written-model.ts';

/** @throws FormatError, AggregationError, FileError; the reason of `signal`. Nothing is left behind then */
export async function aggregateJob(
  request: AggregateRequest,
  signal: Stop,
  onProgress: RunOptions['onProgress'],
): Promise<AggregateReport> {
  const startedAt = performance.now();
  const inputs: AggregationInput[] = [];
  const pool = new SourcePool();
  const opened: ByteSource[] = [];
  const formats = new Set<WeightsFormat>();
  const layouts = new SharedLayouts();
  const unpacking = unpackingIn(dirname(request.output), signal);
  const openInput = async (input: AggregateInput, options?: ReadOptions) => {
    const file = pool.openInput(input, input.leaf);
    return { ...(await openPrepared(file, unpacking, opened, options)), file };
  };
  try {
    for (const input of request.inputs) {
      const { leaf = input.path, weighting } = input;
      const { source, layout } = await openInput(input);
      formats.add(layout.format);
      const { isDifference } = layout;
      inputs.push({
        leaf,
        source,
        layout: { tensors: layouts.share(layout.tensors), isDifference },
        weighting: weighting ?? layout.weighting,
      });
    }
    const strategy = openRequest(request.strategy);
    checkUsed(strategy, inputs, request);
    const model =
      request.model === undefined
        ? undefined
        : // What has two bytes and no type in a .npy is bfloat16 here: no rule knows another element of that kind.
          { leaf: request.model, ...(await openInput({ path: request.model }, { void16: 'bfloat16' })) };
    pool.reserve();
    const state = await openState(strategy, model, request.state);
    if (state?.before !== undefined) opened.push(state.before.source);
    const aggregation = await Aggregation.open(inputs, {
      strategy,
      model,
      differences: request.differences,
      tensors: request.tensors,
      state: state?.inputs,
      nonFinite: request.nonFinite,
      scratch: unpacking.scratch,
    });
    try {
      const format = formatOf(request, formats);
      checkForm(request.output, format, { ...request, isNamed: request.names !== undefined });
      const encoding = await encodeResult(aggregation, strategy, { ...request, format });
      const run = {
        signal,
        onProgress,
        openLanes: lanesFor(request, encoding.byteLength * inputs.length),
      };
      const sha256 =
        state === null
          ? await writeOutput(aggregation, encoding, request, run)
          : await writeWithState(aggregation, encoding, request, run, state);
      return {
        output: request.output,
        format,
        strategy: strategy.name,
        leaves: aggregation.leaves.length,
        totalWeighting: aggregation.totalWeighting,
        tensors: aggregation.tensors.length,
        parameters: aggregation.parameters,
        bytesRead: aggregation.bytesRead,
        seconds: (performance.now() - startedAt) / 1000,
        sha256,
        countsEqually: inputs.every((input) => input.weighting === null),
      };
    } finally {
      await aggregation.close();
    }
  } finally {
    for (const source of opened) await source.close();
  }
}

/** The state of a rule that keeps one, before the round, and what is needed to write it after the round. */
interface RuleState {
  readonly path: string;
  readonly owner: StateOwner;
  readonly before: OpenedState | undefined;
  readonly inputs: readonly StateInput[] | undefined;
}

/** @throws AggregationError `strategy-state-missing`, `state-mismatch` */
async function openState(
  strategy: Strategy,
  model: { readonly file: ByteSource; readonly layout: Weights['layout'] } | undefined,
  path: string | undefined,
): Promise<RuleState | null> {
  const { name, step } = strategy;
  if (step === undefined || !keepsState(strategy) || model === undefined) return null;
  if (path === undefined) {
    throw new AggregationError(
      'strategy-state-missing',
      `"${name}" keeps a state from round to round: name a file for it`,
    );
  }
  const tensors = model.layout.tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape }));
  const owner = { strategy: name, step, tensors };
  const { file } = model;
  const digest = digestOfWritten(file) ?? (await digestOf(file, file.byteLength));
  const before = (await openStateFile(path, owner, digest)) ?? undefined;
  if (before === undefined) return { path, owner, before, inputs: undefined };
  const inputs = stateInputs(owner, before.source, before.byteOffsets);
  return { path, owner, before, inputs };
}

/** Model and state in the order that a crash between them does no harm to (`state-file.ts`). */
async function writeWithState(
  aggregation: Aggregation,
  encoding: Encoding,
  request: AggregateRequest,
  run: Pick<RunOptions, 'signal' | 'onProgress' | 'openLanes'>,
  { path, owner, before }: RuleState,
): Promise<string | null> {
  const next: NextState = createStateFile(path, owner, (before?.round ?? 0) + 1, request.durable);
  try {
    const sha256 = await writeOutput(
      aggregation,
      encoding,
      { ...request, digest: true, beforeCommit: next.prepare },
      { ...run, state: next },
    );
    next.finish();
    if (sha256 !== null) rememberModel(request.output, sha256);
    return sha256;
  } catch (error) {
    await next.discard();
    throw error;
  }
}

/** What is asked for, else what the name of the output says, else what the inputs have in common. */
function formatOf({ format, output }: AggregateRequest, inputs: ReadonlySet<WeightsFormat>): WeightsFormat {
  const isPlain = inputs.size === 1 && inputs.has('npy');
  const asked = format ?? formatOfName(output, isPlain) ?? commonFormat(inputs);
  if (asked !== undefined) return asked;
  throw new CambiumError(
    'output-format',
    `${output}: its name says no format, and the inputs have several (${[...inputs].join(', ')}): name one`,
  );
}
