/** The file that an aggregation becomes: its format, and everything in it but the elements. */
import { AggregationError } from '../errors.ts';
import { encodeWeights } from '../formats/encode.ts';
import type { Encoding, TensorSpec } from '../formats/encoding.ts';
import type { WeightsFormat } from '../tensor/layout.ts';
import type { Aggregation } from './aggregation.ts';
import { withOnlyBytes } from './only-bytes.ts';
import type { Strategy } from './strategies/strategy.ts';

/** The format that the inputs have in common; undefined when they are of several kinds. */
export function commonFormat(inputs: ReadonlySet<WeightsFormat>): WeightsFormat | undefined {
  const [first = 'npy-object'] = inputs;
  if (inputs.size <= 1) return first;
  return [...inputs].every((input) => input.startsWith('npy')) ? 'npy-object' : undefined;
}

/** What the result is written as. */
interface ResultForm {
  readonly format: WeightsFormat;
  /** Put the elements of an `npy-object` at multiples of 64 bytes. */
  readonly align?: boolean | undefined;
  /** Names of the tensors in their order; those of the inputs unless given. */
  readonly names?: readonly string[] | undefined;
}

/**
 * Encodes the result of an aggregation.
 *
 * @throws AggregationError `aggregate-format` for what the format cannot hold, `aggregate-names` when there are not as many
 *   names as tensors; as `Aggregation.run`
 */
export async function encodeResult(
  aggregation: Pick<Aggregation, 'tensors' | 'totalWeighting' | 'run'>,
  strategy: Pick<Strategy, 'settle'>,
  { format, align, names }: ResultForm,
): Promise<Encoding> {
  // A rule that measures would do so twice.
  const isShared = format === 'npy-object' && strategy.settle === undefined;
  const tensors = isShared ? await withOnlyBytes(aggregation) : aggregation.tensors;
  try {
    return await encodeWeights({
      format,
      weighting: aggregation.totalWeighting,
      tensors: named(tensors, names),
      align: align ? 64 : undefined,
    });
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    // It is the fault of the inputs here, not of a program.
    throw new AggregationError(
      'aggregate-format',
      `the result as ${format}: ${cause.message}`,
      {},
      { cause },
    );
  }
}

function named(tensors: readonly TensorSpec[], names: readonly string[] | undefined): readonly TensorSpec[] {
  if (names === undefined) return tensors;
  if (names.length !== tensors.length) {
    throw new AggregationError(
      'aggregate-names',
      `there are ${names.length} names for ${tensors.length} tensors`,
    );
  }
  return tensors.map((tensor, i) => ({ ...tensor, name: names[i]! }));
}
