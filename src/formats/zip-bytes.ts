import type { ByteSource } from '../tensor/bytes.ts';
import { readExactly } from './exact.ts';
import { formatError } from './format-error.ts';

export const LOCAL_SIGNATURE = 0x04034b50;

/** What stands in a small field when the number is in a larger one. */
export const ONES_16 = 0xffff;
export const ONES_32 = 0xffffffff;

/** The bytes of an archive, and the errors about them. */
export class ZipBytes {
  readonly source: ByteSource;

  constructor(source: ByteSource) {
    this.source = source;
  }

  async read(offset: number, byteLength: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(byteLength);
    await readExactly(this.source, offset, bytes, 'zip-truncated');
    return bytes;
  }

  /** 64 bits at `at` in a part of the file that begins at `offset`, as a number that is exact. */
  uint64(view: DataView, at: number, offset: number): number {
    const value = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
    if (!Number.isSafeInteger(value)) {
      throw this.error('zip-truncated', `a size or position of ${value} lies beyond every file`, offset + at);
    }
    return value;
  }

  /** The archive says one thing here and another there. */
  mismatch(sentence: string, offset: number): Error {
    return this.error('zip-mismatch', sentence, offset);
  }

  error(code: string, sentence: string, offset: number): Error {
    return formatError(code, sentence, { file: this.source.name, offset });
  }
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
