import { type ByteSource, joinSources, type Scratch } from '../tensor/bytes.ts';
import type { Layout, TensorLayout } from '../tensor/layout.ts';
import { formatError } from './format-error.ts';
import type { UnpackOptions } from './weights.ts';

/** What the elements of a file may take when they are unpacked, unless the caller says otherwise. */
const MAX_UNPACKED = 64 * 2 ** 30;

/**
 * Where one place in a file may stand for any number of tensors, they may take so many times the bytes of the file, or
 * this many bytes where that is more.
 */
const MAX_EXPANSION = 16;
const FREE_EXPANSION = 16 << 20;

/** Elements begin at multiples of this in scratch room. */
const ALIGNMENT = 64;

/** How the elements that have no place in a file are put into scratch room. */
interface Filling {
  /** Code of the refusal where they take more than is allowed. */
  readonly code: string;
  /** Tensors that are filled at the same time (default 1). */
  readonly parallel?: number | undefined;
  /** Writes the elements of a tensor to `scratch`, from `place` on. */
  fill(tensor: number, scratch: Scratch, place: number): Promise<void>;
}

/** Bytes that a file may mean whose tensors may share what they are made of. */
export function maxExpanded(source: ByteSource): number {
  return Math.max(MAX_EXPANSION * source.byteLength, FREE_EXPANSION);
}

/**
 * Gives every tensor that has no place in its file one behind the file, in scratch room.
 *
 * @returns a source of both, whose closing closes the scratch room only, and the layout in it
 * @throws FormatError with the code of `filling` when the elements take more than is allowed; what `fill` throws
 */
export async function unpackBehind(
  source: ByteSource,
  layout: Layout,
  { scratch: makeScratch, maxByteLength = MAX_UNPACKED }: UnpackOptions,
  { code, parallel = 1, fill }: Filling,
): Promise<{ source: ByteSource; layout: Layout }> {
  let room = 0;
  const places = layout.tensors.map(({ byteOffset, byteLength }) => {
    const place = room;
    if (byteOffset === null) room += Math.ceil(byteLength / ALIGNMENT) * ALIGNMENT;
    return place;
  });
  if (room > maxByteLength) {
    throw formatError(
      code,
      `its elements take ${room} bytes when they are unpacked; ${maxByteLength} are allowed`,
      { file: source.name, offset: 0 },
    );
  }
  const scratch = await makeScratch(room);
  try {
    const waiting = layout.tensors.entries();
    const work = async () => {
      for (const [i, { byteOffset }] of waiting) {
        if (byteOffset === null) await fill(i, scratch, places[i]!);
      }
    };
    const done = await Promise.allSettled(Array.from({ length: parallel }, work));
    for (const outcome of done) if (outcome.status === 'rejected') throw outcome.reason;
  } catch (error) {
    await scratch.close();
    throw error;
  }
  const base = source.byteLength;
  return {
    source: joinSources(source, scratch),
    layout: {
      ...layout,
      byteLength: base + room,
      tensors: layout.tensors.map(
        (tensor, i): TensorLayout => ({ ...tensor, byteOffset: tensor.byteOffset ?? base + places[i]! }),
      ),
    },
  };
}
