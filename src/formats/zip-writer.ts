/**
 * Archives, written front to back. Payloads are stored.
 *
 * The CRC-32 of elements is known behind them only, so members with a payload have a data descriptor (flag bit 3): no
 * byte before an element depends on it, and a digest of the file can be taken while it is written. Members that are
 * known as a whole have their CRC-32 in their local headers. Times are those of zip's first day, so that the same
 * weights are the same bytes. zip64 fields and records appear where a number needs them, and only there.
 */
import { crc32 } from './crc32.ts';
import type { Encoding, Literal } from './encoding.ts';

/** A member to be written: bytes that are known, and behind them a payload, or nothing. */
export interface NewMember {
  /** A plain relative name (`isPlainName`), unlike all others. */
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Length of its payload in bytes, null without one. */
  readonly payload: number | null;
  /** `bytes` are a raw deflate stream, of so many bytes with this CRC-32. */
  readonly deflated?: { readonly byteLength: number; readonly crc32: number } | undefined;
}

const ONES_16 = 0xffff;
const ONES_32 = 0xffffffff;

const FLAG_DESCRIPTOR = 1 << 3;
const FLAG_UTF8 = 1 << 11;

/** 1980-01-01, where zip's calendar begins. */
const DATE = (1 << 5) | 1;

/** Versions that are needed to read: 2.0, and 4.5 with zip64. */
const VERSION = 20;
const VERSION_64 = 45;

const ZIP64_FIELD = 1;

/** The extra field of torch that is nothing but room: "FB", filled with Z. */
const PADDING_FIELD = 0x4246;
const PADDING = 0x5a;

/** Grows with what is put into it; numbers are little endian. */
class ByteWriter {
  readonly #parts: Uint8Array[] = [];
  byteLength = 0;

  put(bytes: Uint8Array): this {
    this.#parts.push(bytes);
    this.byteLength += bytes.byteLength;
    return this;
  }

  numbers(...values: readonly (readonly [value: number, size: 2 | 4 | 8])[]): this {
    const bytes = new Uint8Array(values.reduce((sum, [, size]) => sum + size, 0));
    const view = new DataView(bytes.buffer);
    let at = 0;
    for (const [value, size] of values) {
      if (size === 2) view.setUint16(at, value, true);
      else if (size === 4) view.setUint32(at, value, true);
      else view.setBigUint64(at, BigInt(value), true);
      at += size;
    }
    return this.put(bytes);
  }

  take(): Uint8Array {
    const bytes = new Uint8Array(this.byteLength);
    let at = 0;
    for (const part of this.#parts) {
      bytes.set(part, at);
      at += part.byteLength;
    }
    return bytes;
  }
}

/**
 * The encoding of an archive whose payloads are those of the members that have one, in this order.
 *
 * @param alignment the data of each member begins at a multiple of it
 */
export function encodeZip(members: readonly NewMember[], alignment = 1): Encoding {
  const encoder = new TextEncoder();
  const literals: Literal[] = [];
  const payloads: { offset: number; byteLength: number }[] = [];
  const seeds: number[] = [];
  /** Where the checksum of each payload goes in the directory; its descriptor begins the literal behind it. */
  const entries: number[] = [];
  const directory = new ByteWriter();
  let between = new ByteWriter();
  let offset = 0;

  const endLiteral = () => {
    const bytes = between.take();
    literals.push({ offset, bytes });
    offset += bytes.byteLength;
    between = new ByteWriter();
    return bytes;
  };

  for (const { name, bytes, payload, deflated } of members) {
    const nameBytes = encoder.encode(name);
    const headerOffset = offset + between.byteLength;
    const packed = bytes.byteLength + (payload ?? 0);
    const size = deflated?.byteLength ?? packed;
    const method = deflated === undefined ? 0 : 8;
    const isLarge = Math.max(size, packed) >= ONES_32;
    const isFar = headerOffset >= ONES_32;
    const flags =
      (payload === null ? 0 : FLAG_DESCRIPTOR) | (nameBytes.byteLength === name.length ? 0 : FLAG_UTF8);
    const crc = deflated?.crc32 ?? crc32(bytes);
    const known = payload === null;
    const dataOffset = headerOffset + 30 + nameBytes.byteLength + (isLarge ? 20 : 0);
    const padding = alignment > 1 ? 4 + ((alignment - ((dataOffset + 4) % alignment)) % alignment) : 0;
    const sizes = isLarge ? [ONES_32, ONES_32] : [packed, size];
    const [localPacked, localSize] = isLarge || known ? sizes : [0, 0];
    between
      .numbers(
        [0x04034b50, 4],
        [isLarge ? VERSION_64 : VERSION, 2],
        [flags, 2],
        [method, 2],
        [0, 2],
        [DATE, 2],
      )
      .numbers([known ? crc : 0, 4], [localPacked!, 4], [localSize!, 4], [nameBytes.byteLength, 2])
      .numbers([(isLarge ? 20 : 0) + padding, 2])
      .put(nameBytes);
    if (isLarge) between.numbers([ZIP64_FIELD, 2], [16, 2], [known ? size : 0, 8], [known ? packed : 0, 8]);
    if (padding > 0) {
      between.numbers([PADDING_FIELD, 2], [padding - 4, 2]).put(new Uint8Array(padding - 4).fill(PADDING));
    }
    between.put(bytes);
    if (payload !== null) {
      endLiteral();
      payloads.push({ offset, byteLength: payload });
      seeds.push(crc);
      offset += payload;
      const width = isLarge ? 8 : 4;
      between.numbers([0x08074b50, 4], [crc, 4], [packed, width], [size, width]);
      entries.push(directory.byteLength + 16);
    }
    const wide = [...(isLarge ? [size, packed] : []), ...(isFar ? [headerOffset] : [])];
    const version = wide.length > 0 ? VERSION_64 : VERSION;
    directory
      .numbers(
        [0x02014b50, 4],
        [version, 2],
        [version, 2],
        [flags, 2],
        [method, 2],
        [0, 2],
        [DATE, 2],
        [crc, 4],
      )
      .numbers([sizes[0]!, 4], [sizes[1]!, 4], [nameBytes.byteLength, 2])
      .numbers([wide.length > 0 ? 4 + 8 * wide.length : 0, 2], [0, 2], [0, 2], [0, 2], [0, 4])
      .numbers([isFar ? ONES_32 : headerOffset, 4])
      .put(nameBytes);
    if (wide.length > 0) {
      directory.numbers([ZIP64_FIELD, 2], [8 * wide.length, 2], ...wide.map((value) => [value, 8] as const));
    }
  }

  const begin = offset + between.byteLength;
  const directoryAt = between.byteLength;
  between.put(directory.take());
  putEnd(between, members.length, directory.byteLength, begin);
  const last = endLiteral();

  // Each literal but the last one stands before a payload.
  const descriptors = literals.slice(1).map(({ bytes }) => new DataView(bytes.buffer));
  const directoryView = new DataView(last.buffer, directoryAt, directory.byteLength);
  return {
    byteLength: offset,
    literals,
    payloads,
    checksums: {
      seeds,
      seal(tensor, checksum) {
        descriptors[tensor]!.setUint32(4, checksum, true);
        directoryView.setUint32(entries[tensor]!, checksum, true);
      },
    },
  };
}

function putEnd(out: ByteWriter, count: number, byteLength: number, offset: number): void {
  if (count >= ONES_16 || byteLength >= ONES_32 || offset >= ONES_32) {
    out
      .numbers(
        [0x06064b50, 4],
        [44, 8],
        [VERSION_64, 2],
        [VERSION_64, 2],
        [0, 4],
        [0, 4],
        [count, 8],
        [count, 8],
      )
      .numbers([byteLength, 8], [offset, 8])
      .numbers([0x07064b50, 4], [0, 4], [offset + byteLength, 8], [1, 4]);
  }
  const few = Math.min(count, ONES_16);
  out
    .numbers([0x06054b50, 4], [0, 2], [0, 2], [few, 2], [few, 2])
    .numbers([Math.min(byteLength, ONES_32), 4], [Math.min(offset, ONES_32), 4], [0, 2]);
}
