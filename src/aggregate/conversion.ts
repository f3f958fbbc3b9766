/**
 * One weight file into another format: an aggregation of a single input whose rule is to copy.
 *
 * The names of tensors are kept where the format has names. The weighting is kept where the format has room for one: all
 * but the plain array do.
 */
import { FormatError } from '../errors.ts';
import { encodeWeights } from '../formats/encode.ts';
import type { Encoding, WeightsSpec } from '../formats/encoding.ts';
import type { Weights } from '../formats/weights.ts';
import type { ScratchFactory } from '../tensor/bytes.ts';
import type { WeightsFormat } from '../tensor/layout.ts';
import { Aggregation, type AggregationInput } from './aggregation.ts';
import { withOnlyBytes } from './only-bytes.ts';
import { copy } from './strategies/copy.ts';

/** What is to become of a file; the same for paths and Blobs. */
export interface ConversionForm {
  /** Overrides the weighting of the file; null leaves it out. */
  readonly weighting?: number | null | undefined;
  /** What becomes of the names of tensors: kept (default), or dropped, so that positions remain. */
  readonly names?: 'keep' | 'drop' | undefined;
  /** Put the elements of an `npy-object` at multiples of 64 bytes, so that views of the file need no copy (default false). */
  readonly align?: boolean | undefined;
}

interface Conversion {
  /** Carries it out; the caller closes it. */
  readonly aggregation: Aggregation;
  readonly encoding: Encoding;
  /** As it is in the output: null where there is none, or the format has no room for one. */
  readonly weighting: number | null;
}

/**
 * Prepares a conversion.
 *
 * With `addTo` in the form, the global model, the file is a difference to it and becomes a model. Throws AggregationError
 * `aggregate-difference` and those of tensors that do not fit then.
 *
 * @param name what errors call the file
 * @param weights unpacked ones
 * @throws FormatError `weighting-missing` and `convert-format` for a file that the format cannot hold
 */
export async function openConversion(
  name: string,
  { source, layout }: Pick<Weights, 'source' | 'layout'>,
  format: WeightsFormat,
  form: ConversionForm & { readonly addTo?: Omit<AggregationInput, 'weighting'> | undefined },
  scratch: ScratchFactory,
): Promise<Conversion> {
  const given = form.weighting === undefined ? layout.weighting : form.weighting;
  const weighting = format === 'npy' ? null : given;
  const { addTo: model } = form;
  // Without a model a difference stays one, in a file that does not say so.
  const own = model === undefined ? { tensors: layout.tensors } : layout;
  const aggregation = await Aggregation.open([{ leaf: name, source, layout: own, weighting: 1 }], {
    strategy: copy,
    model,
    differences: model !== undefined,
    nonFinite: 'propagate',
    scratch,
  });
  try {
    const found = format === 'npy-object' ? await withOnlyBytes(aggregation) : aggregation.tensors;
    const tensors = form.names === 'drop' ? found.map((tensor) => ({ ...tensor, name: null })) : found;
    const weightingType = form.weighting === undefined ? layout.weightingType : null;
    const encoding = await encode(name, {
      format,
      weighting,
      weightingType: weightingType ?? undefined,
      tensors,
      align: form.align ? 64 : undefined,
    });
    return { aggregation, encoding, weighting };
  } catch (error) {
    await aggregation.close();
    throw error;
  }
}

/** What a format cannot hold is the fault of the file here, not of a program. */
async function encode(name: string, spec: WeightsSpec): Promise<Encoding> {
  if (spec.format === 'npy-object' && spec.weighting === null) {
    throw new FormatError('weighting-missing', `${name} has no weighting, which npy-object needs: give one`, {
      file: name,
    });
  }
  try {
    return await encodeWeights(spec);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new FormatError(
      'convert-format',
      `${name} cannot become ${spec.format}: ${cause.message}`,
      { file: name },
      { cause },
    );
  }
}
