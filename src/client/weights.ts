import { MAX_WEIGHTING, MIN_WEIGHTING } from '../aggregate/weightings.ts';
import { AggregationError, FormatError, isCambiumError } from '../errors.ts';
import { openWeights } from '../formats/open.ts';
import { prepareWeights, type UnpackOptions, type Weights } from '../formats/weights.ts';
import { writeWeights } from '../formats/write.ts';
import { type ByteSource, memoryScratch, memorySink } from '../tensor/bytes.ts';
import { type Layout, tensorLabel } from '../tensor/layout.ts';
import type { ModelUpdate } from '../tensor/tensor.ts';
import type { UpdateFormat } from './dialect.ts';
import type { FileAccess } from './file-access.ts';

export interface ValidateOptions {
  /**
   * Look for NaN and infinity, which reads every element once: compressed ones in memory, by the Node client in scratch files of
   * the system's temporary folder. Default false.
   */
  readonly checkFinite?: boolean | undefined;
  /** The layout of a model that the tensors must be like: in number, names where both have them, dtypes and shapes. */
  readonly like?: Pick<Layout, 'tensors'> | undefined;
  /** Ends the check, which then throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Checks that a source is an update that a server can accept: it parses, has at least one tensor, and its weighting is
 * above zero and within [2^-64, 2^53]; and what the options ask besides. The source stays open.
 *
 * @returns names, types, shapes and positions of the tensors
 * @throws FormatError when it does not parse; AggregationError `layout-empty`, `weighting-missing`, `weighting-nan`,
 *   `weighting-infinite`, `weighting-zero`, `weighting-negative`, `weighting-range`, `layout-count`, `layout-name`,
 *   `layout-dtype`, `layout-shape`, `non-finite`: the codes of the server
 */
export function validateWeights(source: ByteSource, options: ValidateOptions = {}): Promise<Layout> {
  return checkWeights(source, options);
}

/** What of the host's access to files a check can use. */
type Host = Pick<FileAccess, 'readSum' | 'unpacking'>;

/** @param host reads exact partial sums too, which servers below others send; without, they are no weights */
export async function checkWeights(
  source: ByteSource,
  { checkFinite = false, like, signal }: ValidateOptions,
  { readSum, unpacking }: Host = {},
): Promise<Layout> {
  if (source.byteLength === 0) {
    throw new FormatError('format-empty', `${source.name}: the file is empty`, {
      file: source.name,
      offset: 0,
    });
  }
  const weights = await openWeights(source).catch((error: unknown) => {
    if (readSum && isCambiumError(error) && error.code === 'weights-partial-sum') return undefined;
    throw error;
  });
  const layout = weights?.layout ?? (await readSum!(source)); // there is one, else it has thrown
  if (layout.tensors.length === 0) {
    throw new AggregationError('layout-empty', `${source.name}: the update has no tensors`);
  }
  const fault = weightingFault(layout.weighting);
  if (fault !== undefined) throw new AggregationError(fault[0], `${source.name}: ${fault[1]}`);
  if (like !== undefined) await requireLike(like, layout, source.name);
  if (checkFinite && weights) await requireFinite(weights, unpacking, signal);
  return layout;
}

/** @throws AggregationError `layout-count`, `layout-name`, `layout-dtype`, `layout-shape`: an update that is not like the model */
export async function requireLike(
  model: Pick<Layout, 'tensors'>,
  layout: Layout,
  name: string,
): Promise<void> {
  const { matchTensors } = await import('../aggregate/match.ts');
  try {
    matchTensors([
      { leaf: 'the global model', layout: model },
      { leaf: name, layout },
    ]);
  } catch (error) {
    if (!isCambiumError(error)) throw error;
    const { tensor, leaf } = error as AggregationError;
    throw new AggregationError(error.code.replace('average-', 'layout-'), error.message, { leaf, tensor });
  }
}

async function requireFinite(
  weights: Weights,
  unpacking: UnpackOptions = { scratch: memoryScratch },
  signal: AbortSignal | undefined,
): Promise<void> {
  const { examineElements } = await import('../aggregate/examine.ts');
  const { source, layout } = await prepareWeights(weights, { ...unpacking, signal });
  const { name } = weights.source;
  try {
    const options = { leaf: name, scratch: unpacking.scratch, signal };
    const { nonFinite } = await examineElements({ source, layout }, options);
    const [first] = nonFinite;
    if (first === undefined) return;
    const { tensor, index } = first;
    const label = tensorLabel(layout.tensors[tensor] ?? { name: null }, tensor);
    throw new AggregationError(
      'non-finite',
      `${name}: ${label} holds NaN or infinity, first at element ${index}`,
      { leaf: name, tensor, index, nonFinite },
    );
  } finally {
    if (source !== weights.source) await source.close();
  }
}

function weightingFault(weighting: number | null): readonly [code: string, sentence: string] | undefined {
  if (weighting === null) {
    return ['weighting-missing', 'the file has no weighting: upload [weighting, [arrays]]'];
  }
  if (Number.isNaN(weighting)) return ['weighting-nan', 'the weighting is NaN'];
  if (!Number.isFinite(weighting)) {
    return ['weighting-infinite', `the weighting is ${weighting}, it must be finite`];
  }
  if (weighting === 0) return ['weighting-zero', 'the weighting is 0: the update would not count'];
  if (weighting < 0) return ['weighting-negative', `the weighting is ${weighting}, it must be positive`];
  if (weighting < MIN_WEIGHTING || weighting > MAX_WEIGHTING) {
    return ['weighting-range', `the weighting is ${weighting}, it must lie within 2^-64 and 2^53`];
  }
  return undefined;
}

/** An update as the bytes of a weight file. Throws RangeError when a tensor's bytes do not fit its shape. */
export async function encodeUpdate(
  update: ModelUpdate,
  format: UpdateFormat = 'npy-object',
): Promise<Uint8Array> {
  const fault = weightingFault(update.weighting);
  if (fault !== undefined) throw new AggregationError(fault[0], fault[1]);
  let sink = memorySink(0);
  await writeWeights((byteLength) => (sink = memorySink(byteLength)), update, { format });
  return sink.bytes;
}
