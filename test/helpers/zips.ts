import { deflateRawSync } from 'node:zlib';
import { bytesOf } from './pickles.ts';

/** One member of an archive that a test makes, and what to lie about it. */
export interface ZipPart {
  readonly name: string;
  readonly data: Uint8Array;
  readonly deflate?: boolean;
  /** Sizes and CRC-32 behind the data, of 32 or 64 bits; nothing of them before it. */
  readonly descriptor?: 32 | 64;
  readonly flags?: number;
  readonly localExtra?: Uint8Array;
  readonly localName?: string;
  /** Fields of the directory entry instead of the true ones. */
  readonly entry?: Partial<Record<'crc32' | 'packedLength' | 'byteLength' | 'offset' | 'method', number>>;
}

/** A number, little endian. */
function le(value: number | bigint, size: 2 | 4 | 8): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes.subarray(0, size);
}

/** Writes an archive byte by byte, so that every lie can be told. */
export function zipOf(
  parts: readonly ZipPart[],
  options: { zip64?: boolean; comment?: string; count?: number; gap?: number; before?: string } = {},
): Uint8Array {
  const chunks: Uint8Array[] = [bytesOf(options.before ?? '')];
  const entries: Uint8Array[] = [];
  const length = () => chunks.reduce((sum, { byteLength }) => sum + byteLength, 0);
  for (const part of parts) {
    const offset = length();
    const data = part.deflate ? new Uint8Array(deflateRawSync(part.data)) : part.data;
    const name = new Uint8Array(Buffer.from(part.name));
    const localName = new Uint8Array(Buffer.from(part.localName ?? part.name));
    const extra = part.localExtra ?? new Uint8Array(0);
    const isLate = part.descriptor !== undefined;
    const flags = part.flags ?? (isLate ? 8 : 0) | (name.some((byte) => byte > 127) ? 1 << 11 : 0);
    const method = part.deflate ? 8 : 0;
    const crc = crc32Of(part.data);
    const told = {
      crc32: crc,
      packedLength: data.byteLength,
      byteLength: part.data.byteLength,
      offset,
      method,
      ...part.entry,
    };
    const sizes = isLate
      ? new Uint8Array(12)
      : bytesOf(le(crc, 4), le(data.byteLength, 4), le(part.data.byteLength, 4));
    chunks.push(
      bytesOf('PK\x03\x04', le(20, 2), le(flags, 2), le(method, 2), le(0, 4), sizes),
      bytesOf(le(localName.byteLength, 2), le(extra.byteLength, 2), localName, extra, data),
    );
    if (part.descriptor !== undefined) {
      const size = part.descriptor === 64 ? 8 : 4;
      chunks.push(
        bytesOf('PK\x07\x08', le(crc, 4), le(data.byteLength, size), le(part.data.byteLength, size)),
      );
    }
    entries.push(
      bytesOf(
        'PK\x01\x02',
        le(20, 2),
        le(20, 2),
        le(flags, 2),
        le(told.method, 2),
        le(0, 4),
        le(told.crc32, 4),
      ),
      bytesOf(le(told.packedLength, 4), le(told.byteLength, 4), le(name.byteLength, 2), le(0, 4), le(0, 4)),
      bytesOf(le(0, 4), le(told.offset, 4), name),
    );
  }
  chunks.push(new Uint8Array(options.gap ?? 0));
  const offset = length();
  chunks.push(...entries);
  const size = length() - offset;
  const count = options.count ?? parts.length;
  if (options.zip64) {
    chunks.push(
      bytesOf('PK\x06\x06', le(44, 8), le(45, 2), le(45, 2), le(0, 8), le(count, 8), le(count, 8)),
      bytesOf(le(size, 8), le(offset, 8), 'PK\x06\x07', le(0, 4), le(offset + size, 8), le(1, 4)),
    );
  }
  const comment = options.comment ?? '';
  chunks.push(
    bytesOf('PK\x05\x06', le(0, 4), le(count, 2), le(count, 2), le(size, 4), le(offset, 4)),
    bytesOf(le(comment.length, 2), comment),
  );
  return bytesOf(...chunks);
}

/** Bit by bit. */
export function crc32Of(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
