import { AggregationError } from '../errors.ts';
import type { TensorSpec } from '../formats/encoding.ts';
import { type Layout, tensorLabel } from '../tensor/layout.ts';

/** Which tensor of an input belongs to which tensor of the output. */
export interface Match {
  readonly tensors: readonly TensorSpec[];
  /** `sources[input][tensor]` is the position of the output's tensor in that input. */
  readonly sources: readonly (readonly number[])[];
}

/**
 * Pairs the tensors of several inputs: by name when every input has names for all of its tensors, else by position.
 * The first input decides order and names, or `expected` does, whoever takes part; then each input is paired with that by itself:
 * by name when both have names, else by position.
 *
 * @throws AggregationError `average-count`, `average-name`, `average-dtype`, `average-shape`, naming leaf and tensor
 */
export function matchTensors(
  inputs: readonly { readonly leaf: string; readonly layout: Pick<Layout, 'tensors'> }[],
  expected?: readonly TensorSpec[],
): Match {
  const [first] = inputs;
  if (first === undefined) throw new RangeError('nothing to match');
  const other = expected ? 'the model' : first.leaf;
  const tensors = (expected ?? first.layout.tensors).map(({ name, dtype, shape }) => ({
    name,
    dtype,
    shape,
  }));
  const deciding = expected ? [expected] : [...new Set(inputs.map(({ layout }) => layout.tensors))];
  const isNamed = deciding.every(hasDistinctNames);
  // Inputs that share a list of tensors share the answer.
  const matched = new Map<Layout['tensors'], readonly number[]>();
  return {
    tensors,
    sources: inputs.map(({ leaf, layout }) => {
      const known = matched.get(layout.tensors);
      if (known !== undefined) return known;
      if (layout.tensors.length !== tensors.length) {
        throw new AggregationError(
          'average-count',
          `${leaf} has ${layout.tensors.length} tensors, ${other} has ${tensors.length}`,
          { leaf },
        );
      }
      const byName = isNamed && hasDistinctNames(layout.tensors);
      const positions = byName ? new Map(layout.tensors.map((tensor, i) => [tensor.name, i])) : undefined;
      const found = tensors.map((expected, i) => {
        const position = positions === undefined ? i : positions.get(expected.name);
        if (position === undefined) {
          throw new AggregationError('average-name', `${leaf} has no ${tensorLabel(expected, i)}`, {
            leaf,
            tensor: expected.name ?? i,
          });
        }
        checkSame(expected, layout.tensors[position]!, { leaf, other, position: i });
        return position;
      });
      matched.set(layout.tensors, found);
      return found;
    }),
  };
}

/**
 * Checks that a tensor has the dtype and the shape that are expected.
 *
 * @throws AggregationError `average-dtype`, `average-shape`
 */
function checkSame(
  expected: TensorSpec,
  actual: Omit<TensorSpec, 'name'>,
  at: { readonly leaf: string; readonly other: string; readonly position: number },
): void {
  const place = { leaf: at.leaf, tensor: expected.name ?? at.position };
  const label = tensorLabel(expected, at.position);
  if (actual.dtype !== expected.dtype) {
    throw new AggregationError(
      'average-dtype',
      `${at.leaf}: ${label} is ${actual.dtype}, in ${at.other} it is ${expected.dtype}`,
      place,
    );
  }
  if (
    actual.shape.length !== expected.shape.length ||
    actual.shape.some((dimension, i) => dimension !== expected.shape[i])
  ) {
    throw new AggregationError(
      'average-shape',
      `${at.leaf}: ${label} has the shape (${actual.shape.join(', ')}), in ${at.other} it has (${expected.shape.join(', ')})`,
      place,
    );
  }
}

/** Whether tensors can be told by their names. */
export function hasDistinctNames(tensors: readonly Pick<TensorSpec, 'name'>[]): boolean {
  const names = new Set(tensors.map((tensor) => tensor.name));
  return !names.has(null) && names.size === tensors.length;
}
