import type { TensorSpec } from '../formats/encoding.ts';
import { memorySink } from '../tensor/bytes.ts';
import { itemSize } from '../tensor/dtypes.ts';
import { elementCount } from '../tensor/layout.ts';
import type { Aggregation } from './aggregation.ts';

/** What has one byte is an integer or bool, and these have no state. */
const NO_STATE = { byteOffsets: [], sink: { write() {} } };

/**
 * The tensors of an aggregation with the results of those that are one byte: a writer that shares such payloads by their
 * value, as NumPy does, must know them before it knows where anything stands.
 *
 * @throws as `Aggregation.run`
 */
export async function withOnlyBytes(
  aggregation: Pick<Aggregation, 'tensors' | 'run'>,
): Promise<readonly TensorSpec[]> {
  const { tensors } = aggregation;
  let byteLength = 0;
  const payloads = tensors.map(({ dtype, shape }) => {
    const isOne = elementCount(shape) * itemSize(dtype) === 1;
    return { offset: isOne ? byteLength++ : byteLength, byteLength: isOne ? 1 : 0 };
  });
  if (byteLength === 0) return tensors;
  const { bytes, ...sink } = memorySink(byteLength);
  await aggregation.run(sink, { byteLength, literals: [], payloads }, { state: NO_STATE });
  return tensors.map((tensor, i) => {
    const { offset, byteLength: length } = payloads[i]!;
    return length === 0 ? tensor : { ...tensor, onlyByte: bytes[offset] };
  });
}
