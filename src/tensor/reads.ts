/**
 * How the bytes of a range are read from one input: neighbouring tensors in one span where the bytes between them are
 * few, so that a model of many small tensors costs as few reads as one big tensor.
 */

/** What a range needs of one input: `byteLength` bytes at `offset` of the input's file. */
export interface Want {
  readonly offset: number;
  readonly byteLength: number;
}

/** One positional read: `byteLength` bytes at `offset` of the file go to `at` of the input's block. */
export interface Read {
  readonly offset: number;
  readonly byteLength: number;
  readonly at: number;
}

/** Reading this many bytes more is cheaper than a second read. */
const WORTHWHILE_GAP = 4096;

/**
 * Plans the reads for `wants` (in the order of the range's segments).
 *
 * @param spare bytes that may be spent on gaps: the block holds the wants and that many bytes more
 * @returns the reads, and for each want the place of its bytes in the block
 */
export function planReads(wants: readonly Want[], spare: number): { reads: Read[]; places: number[] } {
  const reads: { offset: number; byteLength: number; at: number }[] = [];
  const places: number[] = [];
  let filled = 0;
  let left = spare;
  for (const want of wants) {
    const last = reads[reads.length - 1];
    const gap = last === undefined ? -1 : want.offset - (last.offset + last.byteLength);
    if (last !== undefined && gap >= 0 && gap <= WORTHWHILE_GAP && gap <= left) {
      left -= gap;
      filled += gap;
      last.byteLength += gap + want.byteLength;
    } else {
      reads.push({ ...want, at: filled });
    }
    places.push(filled);
    filled += want.byteLength;
  }
  return { reads, places };
}
