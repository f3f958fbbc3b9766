/** Measuring a range chunk by chunk, loaded by rules that measure: chunks have sums of their own, whatever the ranges are. */
import { CHUNK } from '../../assembly/abi.ts';
import type { Core } from '../core/core.ts';
import type { FoldExports } from '../core/exports.ts';
import type { TensorSpec } from '../formats/encoding.ts';
import { DTYPES, itemSize } from '../tensor/dtypes.ts';
import type { Measure } from './kernels.ts';
import type { Range } from './ranges.ts';

/** Where a range has been read to. */
interface ReadRange {
  readonly core: Core<FoldExports>;
  readonly measure: Measure;
  readonly leaves: readonly string[];
  /** The global model's elements are there too, behind those of the leaves. */
  readonly readsModel: boolean;
  /** Addresses of the elements of a segment, one for each leaf and the model. */
  readonly table: number;
  readonly out: number;
}

/**
 * @param fillTable makes the table that of a segment, by its position
 * @returns the sums of the chunks in order, `width` each
 */
export function measureRange(
  { core, measure, leaves, readsModel, table: address, out }: ReadRange,
  { segments }: Range,
  tensors: readonly TensorSpec[],
  fillTable: (segment: number) => void,
): Float64Array {
  const entries = leaves.length + (readsModel ? 1 : 0);
  const chunks = segments.reduce((sum, { count }) => sum + Math.ceil(count / CHUNK), 0);
  const sums = new Float64Array(chunks * measure.width);
  let at = 0;
  for (const [s, { tensor, count }] of segments.entries()) {
    const { dtype } = tensors[tensor]!;
    fillTable(s);
    const table = core.view(address, 4 * entries);
    for (let start = 0; start < count; start += CHUNK) {
      const model = readsModel ? table.getUint32(4 * leaves.length, true) : 0;
      measure.measure(DTYPES[dtype].code, address, Math.min(CHUNK, count - start), model, out);
      const view = core.view(out, 8 * measure.width);
      for (let i = 0; i < measure.width; i++) sums[at++] = view.getFloat64(8 * i, true);
      for (let i = 0; i < entries; i++) {
        const next = table.getUint32(4 * i, true) + CHUNK * itemSize(dtype);
        table.setUint32(4 * i, next, true);
      }
    }
  }
  return sums;
}
