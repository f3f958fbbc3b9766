import { UnavailableError } from '../errors.ts';
import type { ByteSink, ByteSource, Scratch } from '../tensor/bytes.ts';
import { openBlob } from './blob-streams.ts';

/** Bytes from `offset` on that the browser keeps. */
interface Piece {
  readonly offset: number;
  readonly blob: Blob;
}

/**
 * Bytes written in any order, later ones over earlier ones. Each write becomes a Blob, which the browser keeps outside the
 * page's heap and puts on disk when there are many; a slice of one is another name for the same bytes. So a file of any
 * length is made, patched and read again in the memory of one block.
 */
class BlobPieces {
  /** Ordered by offset, without overlap. */
  readonly #pieces: Piece[] = [];

  write(offset: number, bytes: Uint8Array): void {
    if (bytes.byteLength === 0) return;
    const end = offset + bytes.byteLength;
    const first = this.#firstEndingAfter(offset);
    let last = first;
    const rest: Piece[] = [];
    for (let piece = this.#pieces[last]; piece !== undefined && piece.offset < end; ) {
      const { blob } = piece;
      if (piece.offset < offset) {
        rest.push({ offset: piece.offset, blob: blob.slice(0, offset - piece.offset) });
      }
      if (piece.offset + blob.size > end) rest.push({ offset: end, blob: blob.slice(end - piece.offset) });
      piece = this.#pieces[++last];
    }
    const written = { offset, blob: new Blob([bytes as Uint8Array<ArrayBuffer>]) }; // the core's memory is not shared
    const kept = [...rest, written].sort((a, b) => a.offset - b.offset);
    this.#pieces.splice(first, last - first, ...kept);
  }

  /** All of it, zeros where nothing was written. */
  join(byteLength: number): Blob {
    const parts: BlobPart[] = [];
    let end = 0;
    const fillTo = (offset: number) => {
      if (offset > end) parts.push(new Uint8Array(offset - end));
    };
    for (const { offset, blob } of this.#pieces) {
      fillTo(offset);
      parts.push(blob);
      end = offset + blob.size;
    }
    fillTo(byteLength);
    return new Blob(parts);
  }

  clear(): void {
    this.#pieces.length = 0;
  }

  #firstEndingAfter(offset: number): number {
    let low = 0;
    let high = this.#pieces.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const { offset: start, blob } = this.#pieces[middle]!;
      if (start + blob.size > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

/** A sink that becomes a Blob: `blob` after `commit`. */
export function blobSink(byteLength: number): ByteSink & { readonly blob: Blob } {
  const pieces = new BlobPieces();
  let blob = new Blob();
  return {
    get blob() {
      return blob;
    },
    write: (offset, bytes) => pieces.write(offset, bytes),
    async commit() {
      blob = pieces.join(byteLength);
      pieces.clear();
      await blob
        .slice(byteLength - 1)
        .arrayBuffer()
        .catch((cause: unknown) => {
          // Nothing told when it was made: a Blob of which a part found no room cannot be read anywhere.
          throw new UnavailableError(
            'unavailable-memory',
            `the browser has no room for a result of ${byteLength} bytes: give an "output", a file`,
            { cause },
          );
        });
    },
    discard: () => pieces.clear(),
  };
}

/** Scratch room in Blobs: what archives unpack to takes none of the heap. */
export function blobScratch(byteLength: number): Scratch {
  const pieces = new BlobPieces();
  let whole: ByteSource | null = null;
  const open = (): ByteSource => {
    whole ??= openBlob(pieces.join(byteLength), 'scratch', 1);
    return whole;
  };
  return {
    name: 'scratch',
    byteLength,
    get handle() {
      return open().handle;
    },
    readInto: (offset, target) => open().readInto(offset, target),
    write(offset, bytes) {
      whole?.close();
      whole = null;
      pieces.write(offset, bytes);
    },
    close() {
      whole?.close();
      pieces.clear();
    },
  };
}
