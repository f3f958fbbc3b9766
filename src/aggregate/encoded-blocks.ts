/** The blocks of an encoded update: what `Blocks` uses for a reader whose elements are decoded as they are read. */
import type { Core } from '../core/core.ts';
import type { StrategyExports } from '../core/exports.ts';
import { Decoder, type Piece } from '../formats/decode.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import type { Reader } from './blocks.ts';
import { sourceOf } from './plan.ts';
import type { Range } from './ranges.ts';

export interface EncodedBlocks {
  /** Bytes read so far. */
  readonly bytesRead: number;
  /**
   * Decodes the elements of a range one behind the other from `block` on. What has to be waited for is added to `waits`.
   *
   * @returns by segment the address of its elements
   */
  read(range: Range, block: number, waits: Promise<unknown>[]): number[];
}

/** @returns undefined for an input of plain elements only */
export function openEncodedBlocks(
  core: Core<StrategyExports>,
  sources: readonly ByteSource[],
  { input, itemSizes }: Reader,
  roomBytes: number,
): EncodedBlocks | undefined {
  const { parts } = input;
  if (parts === undefined) return undefined;
  const decoder = new Decoder(core, roomBytes);
  return {
    get bytesRead() {
      return decoder.bytesRead;
    },
    read({ segments }, block, waits) {
      if (segments.length === 0) return [];
      let out = block;
      const pieces = segments.map(({ tensor, start, count }): Piece => {
        const itemSize = itemSizes[tensor]!;
        const piece = {
          parts: parts[tensor],
          byteOffset: input.byteOffsets[tensor]!,
          itemSize,
          start,
          count,
          out,
        };
        out += count * itemSize;
        return piece;
      });
      // The tensors of an encoded update all lie in its file.
      const source = sources[sourceOf(input, segments[0]!.tensor)]!;
      const decoding = decoder.decode(source, pieces);
      if (decoding !== undefined) waits.push(decoding);
      return pieces.map((piece) => piece.out);
    },
  };
}
