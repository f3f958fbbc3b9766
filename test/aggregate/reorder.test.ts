import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { needsReorder, reorderInto } from '../../src/aggregate/reorder.ts';
import { memoryScratch, memorySource } from '../../src/tensor/bytes.ts';
import { type DType, itemSize } from '../../src/tensor/dtypes.ts';
import { elementCount, type TensorLayout } from '../../src/tensor/layout.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';

const test = suite('reorder');

function layoutOf(shape: readonly number[], dtype: DType, byteOffset = 3): TensorLayout {
  const byteLength = elementCount(shape) * itemSize(dtype);
  return { name: null, dtype, shape, order: 'F', byteOrder: 'little', byteOffset, byteLength };
}

/** Element by element: C order from Fortran order. */
function naive(stored: Uint8Array, shape: readonly number[], size: number): Uint8Array {
  const result = new Uint8Array(stored.length);
  for (let c = 0; c < elementCount(shape); c++) {
    let rest = c;
    const index = shape.map(() => 0);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index[axis] = rest % shape[axis]!;
      rest = Math.floor(rest / shape[axis]!);
    }
    let f = 0;
    for (let axis = shape.length - 1; axis >= 0; axis--) f = f * shape[axis]! + index[axis]!;
    result.set(stored.subarray(f * size, (f + 1) * size), c * size);
  }
  return result;
}

for (const [shape, dtype] of [
  [[2, 3], 'float32'],
  [[3, 4, 2], 'float64'],
  [[5, 1, 7], 'uint8'],
  [[1, 9], 'float16'],
  [[64, 33], 'complex128'],
  [[2000, 40], 'float32'],
  [[7, 3, 5, 2], 'int16'],
] as const) {
  for (const slabBytes of [1, 64, 4096, 160_000, 8 << 20]) {
    test(`${dtype} (${shape.join(', ')}) in slabs of ${slabBytes}`, async () => {
      const layout = layoutOf(shape, dtype);
      const stored = Uint8Array.from({ length: layout.byteLength }, (_, i) => (i * 7 + (i >> 8)) & 255);
      const file = new Uint8Array(layout.byteLength + 3);
      file.set(stored, 3);
      const scratch = memoryScratch(layout.byteLength);
      await reorderInto(memorySource(file), layout, scratch, slabBytes);
      const result = new Uint8Array(layout.byteLength);
      scratch.readInto(0, result);
      sameBytes(result, naive(stored, shape, itemSize(dtype)));
    });
  }
}

test('only what has two long axes needs it', () => {
  assert.is(needsReorder(layoutOf([4, 1, 1], 'float32')), false);
  assert.is(needsReorder(layoutOf([], 'float32')), false);
  assert.is(needsReorder(layoutOf([2, 2], 'float32')), true);
  assert.is(needsReorder({ ...layoutOf([2, 2], 'float32'), order: 'C' }), false);
});

test('a source that has become shorter is noticed', async () => {
  const layout = layoutOf([2, 3], 'float32');
  await failsWith('file-changed', () =>
    reorderInto(memorySource(new Uint8Array(20)), layout, memoryScratch(layout.byteLength)),
  );
});

test.run();
