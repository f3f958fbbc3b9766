/**
 * Fortran order to C order for a tensor of any size, in constant memory.
 *
 * In Fortran order the first axis varies fastest: the file is a sequence of "columns" of d0 elements, one for each
 * index of the other axes. In C order the first axis varies slowest. So a slab of rows r0 … r1 of the first axis is a
 * contiguous part of the result and is gathered from every column: whole columns are read in bulk where the slab's part
 * of a column is short, and only that part where it is long enough to be worth a read of its own.
 */
import { type ByteSource, readAll, type Scratch } from '../tensor/bytes.ts';
import { itemSize } from '../tensor/dtypes.ts';
import { elementCount, type TensorLayout } from '../tensor/layout.ts';

/** Bytes of a slab, and of the piece of the file that is read for it. */
const SLAB = 8 << 20;

/** A part of a column that is longer than this is read on its own. */
const LONG_RUN = 4096;

/** True when C order and the stored order are not the same bytes. */
export function needsReorder(tensor: TensorLayout): boolean {
  return tensor.order === 'F' && tensor.shape.filter((dimension) => dimension > 1).length > 1;
}

/**
 * Writes the elements of a Fortran-ordered tensor to `scratch` in C order; the byte order of the elements stays.
 *
 * @param slabBytes for tests: the size of a slab
 */
export async function reorderInto(
  source: ByteSource,
  tensor: TensorLayout,
  scratch: Scratch,
  slabBytes = SLAB,
): Promise<void> {
  const { shape, byteOffset } = tensor;
  if (byteOffset === null) throw new RangeError('the elements are not contiguous in the file');
  const size = itemSize(tensor.dtype);
  const d0 = shape[0]!;
  const columns = elementCount(shape.slice(1));
  const ranks = columnRanks(shape.slice(1));
  const rows = Math.max(1, Math.min(d0, Math.floor(slabBytes / (columns * size))));
  for (let r0 = 0; r0 < d0; r0 += rows) {
    const height = Math.min(rows, d0 - r0);
    const slab = new Uint8Array(height * columns * size);
    // Reads `width` columns at a time: all of them, or the slab's part of one.
    const isLong = height < d0 && height * size >= LONG_RUN;
    const width = isLong ? 1 : Math.max(1, Math.floor(slabBytes / (d0 * size)));
    const skip = isLong ? r0 : 0;
    const pitch = isLong ? height : d0;
    const piece = new Uint8Array(Math.min(width, columns) * pitch * size);
    for (let c0 = 0; c0 < columns; c0 += width) {
      const count = Math.min(width, columns - c0);
      const bytes = piece.subarray(0, count * pitch * size);
      await readAll(source, byteOffset + (c0 * d0 + skip) * size, bytes);
      for (let c = 0; c < count; c++) {
        const from = (c * pitch + (isLong ? 0 : r0)) * size;
        scatter(bytes, from, slab, ranks(c0 + c) * size, columns * size, height, size);
      }
    }
    const written = scratch.write(r0 * columns * size, slab);
    if (written !== undefined) await written;
  }
}

/** Copies `count` neighbouring elements to places that lie `stride` bytes apart. */
function scatter(
  from: Uint8Array,
  start: number,
  to: Uint8Array,
  first: number,
  stride: number,
  count: number,
  size: number,
): void {
  for (let i = 0; i < count; i++) {
    const source = start + i * size;
    const target = first + i * stride;
    for (let b = 0; b < size; b++) to[target + b] = from[source + b]!;
  }
}

/** Position in C order of the c-th column in Fortran order. */
function columnRanks(shape: readonly number[]): (column: number) => number {
  const strides = shape.map((_, axis) => elementCount(shape.slice(axis + 1)));
  return (column) => {
    let rank = 0;
    let rest = column;
    for (const [axis, dimension] of shape.entries()) {
      rank += (rest % dimension) * strides[axis]!;
      rest = Math.floor(rest / dimension);
    }
    return rank;
  };
}
