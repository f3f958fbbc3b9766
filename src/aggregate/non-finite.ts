/** Reports of NaN and infinity, loaded when there is something to report. */
import type { Core } from '../core/core.ts';
import { findNonFinite } from '../core/elements.ts';
import type { FoldExports } from '../core/exports.ts';
import { AggregationError, type NonFiniteElement } from '../errors.ts';
import type { TensorSpec } from '../formats/encoding.ts';
import { tensorLabel } from '../tensor/layout.ts';

/** Elements of a tensor in the arena, and whose they are. */
interface Elements {
  readonly leaf: string;
  readonly address: number;
}

/** A run of elements of one tensor, as ranges have them. */
interface Segment {
  readonly tensor: number;
  readonly start: number;
  readonly count: number;
}

/**
 * The first elements of a segment that are not finite, ordered by index and, of one index, as `inputs` are.
 *
 * @param dtype code of the element type
 * @param most how many are asked for
 */
export function locateNonFinite(
  core: Core<FoldExports>,
  dtype: number,
  inputs: readonly Elements[],
  { tensor, start, count }: Segment,
  most: number,
): NonFiniteElement[] {
  const found: NonFiniteElement[] = [];
  for (const { leaf, address } of inputs) {
    let index = findNonFinite(core, dtype, address, count, 0);
    for (let n = 0; index >= 0 && n < most; n++) {
      found.push({ tensor, index: start + index, leaf });
      index = findNonFinite(core, dtype, address, count, index + 1);
    }
  }
  found.sort((a, b) => a.index - b.index); // stable
  return found.slice(0, most);
}

/** The error that names them. */
export function nonFiniteError(
  found: readonly NonFiniteElement[],
  tensors: readonly TensorSpec[],
): AggregationError {
  const [first] = found as [NonFiniteElement];
  const places = found.map(
    ({ tensor, index, leaf }) => `${tensorLabel(tensors[tensor]!, tensor)}[${index}] of ${leaf}`,
  );
  return new AggregationError('non-finite', `NaN or infinity in ${places.join(', ')}`, {
    ...first,
    nonFinite: found,
  });
}
