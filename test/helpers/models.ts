import { type DType, itemSize } from '../../src/tensor/dtypes.ts';
import type { TensorLayout } from '../../src/tensor/layout.ts';

/** Vectors `t0`, `t1`, … that lie one behind the other from the begin of a file on. */
export function vectors(shapes: readonly (readonly [DType, number])[]): {
  readonly tensors: readonly (TensorLayout & { readonly byteOffset: number })[];
  readonly byteLength: number;
} {
  let byteLength = 0;
  const tensors = shapes.map(([dtype, length], i) => {
    const byteOffset = byteLength;
    const size = length * itemSize(dtype);
    byteLength += size;
    return {
      name: `t${i}`,
      dtype,
      shape: [length],
      order: 'C' as const,
      byteOrder: 'little' as const,
      byteOffset,
      byteLength: size,
    };
  });
  return { tensors, byteLength };
}
