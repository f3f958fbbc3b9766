/**
 * Gathers the elements of strided views into scratch room, in C order and in constant memory.
 *
 * A view is cut along its slowest axes until what the rest of it spans, and what it makes, both fit a buffer: then one
 * read brings the span, and one write takes what was picked out of it. A span is read once for each piece that lies in
 * it, so a view whose fastest axis has by far the largest stride costs many reads; torch makes such views by permuting
 * the axes of tensors that are larger than a buffer, which state dicts hardly contain.
 */
import type { ByteSource, Scratch } from '../tensor/bytes.ts';
import { type DType, itemSize } from '../tensor/dtypes.ts';
import { elementCount, type Layout } from '../tensor/layout.ts';
import { readExactly } from './exact.ts';
import { unpackBehind } from './unpack.ts';
import type { UnpackOptions } from './weights.ts';

/** A view that lies within its source. */
export interface View {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** In elements, not negative. */
  readonly strides: readonly number[];
  /** In which it is contiguous; null when it must be gathered. */
  readonly order: 'C' | 'F' | null;
  /** Of its first element. */
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** Bytes of a span, and of what is made of it. */
const BUFFER = 8 << 20;

/**
 * Gives the scattered ones among `views`, the tensors of `layout`, a place behind the source.
 *
 * @param bufferBytes for tests: the size of a buffer
 * @returns a source of both, whose closing closes the scratch room only, and the layout in it
 */
export async function gatherViews(
  source: ByteSource,
  layout: Layout,
  views: readonly View[],
  options: UnpackOptions,
  bufferBytes = BUFFER,
): Promise<{ source: ByteSource; layout: Layout }> {
  return unpackBehind(source, layout, options, {
    code: 'torch-storage',
    fill: (tensor, scratch, place) => gather(source, views[tensor]!, scratch, place, options, bufferBytes),
  });
}

/** Writes the elements of a view to `scratch` from `place` on. */
async function gather(
  source: ByteSource,
  view: View,
  scratch: Scratch,
  place: number,
  { signal }: UnpackOptions,
  bufferBytes: number,
): Promise<void> {
  const { shape, strides } = view;
  const size = itemSize(view.dtype);
  // The axes from `inner` on fit a buffer, span and result; `step` indices of the axis before them do too.
  const fits = (axis: number) =>
    spanOf(shape.slice(axis), strides.slice(axis)) * size <= bufferBytes &&
    elementCount(shape.slice(axis)) * size <= bufferBytes;
  let inner = shape.length;
  while (inner > 0 && fits(inner - 1)) inner--;
  const axis = inner - 1;
  const rest = shape.slice(inner);
  const restStrides = strides.slice(inner);
  let step = 1;
  if (axis >= 0) {
    const made = elementCount(rest) * size;
    const more = strides[axis]! * size;
    const spare = (bufferBytes - spanOf(rest, restStrides) * size) / (more || 1);
    step = Math.max(1, Math.min(shape[axis]!, Math.floor(bufferBytes / made), 1 + Math.floor(spare)));
  }
  const outer = shape.slice(0, Math.max(axis, 0));
  const span = new Uint8Array(
    spanOf([step, ...rest], [axis < 0 ? 0 : strides[axis]!, ...restStrides]) * size,
  );
  const out = new Uint8Array(step * elementCount(rest) * size);
  let at = place;
  for (const first of positions(outer, strides)) {
    for (let i = 0; i < (axis < 0 ? 1 : shape[axis]!); i += step) {
      signal?.throwIfAborted();
      const count = axis < 0 ? 1 : Math.min(step, shape[axis]! - i);
      const stride = axis < 0 ? 0 : strides[axis]!;
      const pieceShape = [count, ...rest];
      const pieceStrides = [stride, ...restStrides];
      const bytes = span.subarray(0, spanOf(pieceShape, pieceStrides) * size);
      const offset = view.byteOffset + (first + i * stride) * size;
      await readExactly(source, offset, bytes, 'torch-storage');
      const made = out.subarray(0, elementCount(pieceShape) * size);
      pick(bytes, pieceShape, pieceStrides, size, made);
      const writing = scratch.write(at, made);
      if (writing !== undefined) await writing;
      at += made.byteLength;
    }
  }
}

/** Elements from the first to the last one of a view that is not empty, both included. */
function spanOf(shape: readonly number[], strides: readonly number[]): number {
  return shape.reduce((sum, dimension, axis) => sum + (dimension - 1) * strides[axis]!, 1);
}

/** Where the elements of a view lie, counted from its first one, the last axis moving fastest. */
function* positions(shape: readonly number[], strides: readonly number[]): Generator<number> {
  const index = shape.map(() => 0);
  for (let position = 0; ; ) {
    yield position;
    let axis = shape.length - 1;
    for (; axis >= 0; axis--) {
      position += strides[axis]!;
      index[axis]!++;
      if (index[axis]! < shape[axis]!) break;
      position -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
    if (axis < 0) return;
  }
}

/** Copies the elements of a view that begins with `from`. */
function pick(
  from: Uint8Array,
  shape: readonly number[],
  strides: readonly number[],
  size: number,
  to: Uint8Array,
): void {
  const last = shape.length - 1;
  const count = shape[last]!;
  const stride = strides[last]! * size;
  let at = 0;
  for (const position of positions(shape.slice(0, last), strides)) {
    let start = position * size;
    if (stride === size) {
      to.set(from.subarray(start, start + count * size), at);
      at += count * size;
      continue;
    }
    for (let i = 0; i < count; i++, start += stride) {
      for (let b = 0; b < size; b++) to[at++] = from[start + b]!;
    }
  }
}
