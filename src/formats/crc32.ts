/**
 * The CRC-32 of zip and gzip: polynomial edb88320 (bits reversed), begun and ended with ones.
 *
 * Eight bytes a step: table k gives what a byte does that k more bytes follow, and what eight bytes do is the exclusive
 * or of what each does. Hosts that have it in machine code (node:zlib) give their own.
 */
export type Crc32 = (bytes: Uint8Array, previous?: number) => number;
export type CombineCrc32 = typeof combineCrc32;

const TABLES = makeTables();

function makeTables(): Int32Array {
  const tables = new Int32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
    tables[byte] = crc;
  }
  for (let i = 256; i < tables.length; i++) {
    const crc = tables[i - 256]!;
    tables[i] = (crc >>> 8) ^ tables[crc & 255]!;
  }
  return tables;
}

/**
 * The CRC-32 of bytes, an unsigned number.
 *
 * @param previous the CRC-32 of the bytes before these
 */
export const crc32: Crc32 = (bytes, previous = 0) => {
  const t = TABLES;
  let crc = ~previous;
  let at = 0;
  for (const end = bytes.length - 7; at < end; at += 8) {
    crc ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    crc =
      t[0x700 | (crc & 255)]! ^
      t[0x600 | ((crc >>> 8) & 255)]! ^
      t[0x500 | ((crc >>> 16) & 255)]! ^
      t[0x400 | (crc >>> 24)]! ^
      t[0x300 | bytes[at + 4]!]! ^
      t[0x200 | bytes[at + 5]!]! ^
      t[0x100 | bytes[at + 6]!]! ^
      t[bytes[at + 7]!]!;
  }
  for (; at < bytes.length; at++) crc = (crc >>> 8) ^ t[(crc ^ bytes[at]!) & 255]!;
  return ~crc >>> 0;
};

/**
 * The CRC-32 of two parts one behind the other, from those of the parts.
 *
 * To append n zero bytes is a linear map of the 32 bits over GF(2). The map for one bit is a matrix; squaring it doubles
 * the number of bits, so the map for any length is a product of some 40 squares.
 *
 * @param secondLength bytes of the second part
 */
export function combineCrc32(first: number, second: number, secondLength: number): number {
  let crc = first;
  let map: readonly number[] = SHIFT_BYTE;
  for (let rest = secondLength; rest > 0; rest = Math.floor(rest / 2)) {
    if (rest % 2 === 1) crc = times(map, crc);
    map = squared(map);
  }
  return (crc ^ second) >>> 0;
}

/** Column i is what becomes of bit i when a zero byte is appended. */
const SHIFT_BYTE: readonly number[] = Array.from({ length: 32 }, (_, i) => {
  const crc = (1 << i) >>> 0;
  return (crc >>> 8) ^ TABLES[crc & 255]!;
});

function times(map: readonly number[], vector: number): number {
  let product = 0;
  for (let i = 0, rest = vector; rest !== 0; i++, rest >>>= 1) if (rest & 1) product ^= map[i]!;
  return product;
}

/** Squares are few and the same for every call. */
const SQUARES = new Map<readonly number[], readonly number[]>();

function squared(map: readonly number[]): readonly number[] {
  let square = SQUARES.get(map);
  if (square === undefined) {
    square = map.map((column) => times(map, column));
    SQUARES.set(map, square);
  }
  return square;
}
