// Text as bytes: comparing, checking, and the codes of element types.

import {
  DTYPE_BOOL,
  DTYPE_COMPLEX64,
  DTYPE_COMPLEX128,
  DTYPE_FLOAT16,
  DTYPE_FLOAT32,
  DTYPE_FLOAT64,
  DTYPE_INT8,
  DTYPE_VOID16,
} from './abi';

/** What dtypeOf answers for Python objects. */
export const DTYPE_OBJECT: u32 = 0xff;

/** Largest integer that both binary64 and a file position can hold exactly. */
export const MAX_SAFE: u64 = 0x1f_ffff_ffff_ffff;

/** Whether the bytes are the (ASCII) text. */
export function isText(bytes: usize, length: u32, text: string): bool {
  if (length !== <u32>text.length) return false;
  const expected = changetype<usize>(text);
  for (let i: u32 = 0; i < length; i++) {
    if (load<u8>(bytes + i) !== load<u16>(expected + (i << 1))) return false;
  }
  return true;
}

/** Writes the (ASCII) text and returns the address behind it. */
export function putText(out: usize, text: string): usize {
  const length = <u32>text.length;
  const from = changetype<usize>(text);
  for (let i: u32 = 0; i < length; i++) store<u8>(out + i, load<u16>(from + (i << 1)));
  return out + length;
}

/** Position of the first byte that is no UTF-8 (overlong forms, surrogates and ends cut short count), or `length`. */
export function findInvalidUtf8(bytes: usize, length: u32): u32 {
  let i: u32 = 0;
  while (i < length) {
    const lead = <u32>load<u8>(bytes + i);
    if (lead < 0x80) {
      i++;
      continue;
    }
    const more: u32 = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || more > length - i - 1) return i;
    let code = lead & (0x3f >> more);
    for (let k: u32 = 1; k <= more; k++) {
      const next = <u32>load<u8>(bytes + i + k);
      if ((next & 0xc0) !== 0x80) return i;
      code = (code << 6) | (next & 0x3f);
    }
    if (more === 2 && (code < 0x800 || (code & 0xf800) === 0xd800)) return i;
    if (more === 3 && (code < 0x10000 || code > 0x10ffff)) return i;
    i += 1 + more;
  }
  return length;
}

/** The element type of NumPy's kind and size (`f4`, `V2`, `?`), DTYPE_OBJECT for `O`, 0 for those we do not decode. */
export function dtypeOf(code: usize, length: u32): u32 {
  if (length === 0 || length > 3) return 0;
  const kind = <u32>load<u8>(code);
  let size: u32 = 0;
  for (let i: u32 = 1; i < length; i++) {
    const digit = <u32>load<u8>(code + i) - 0x30;
    if (digit > 9 || (size === 0 && digit === 0)) return 0;
    size = size * 10 + digit;
  }
  if (kind === 0x4f) return length === 1 || size === 8 || size === 4 ? DTYPE_OBJECT : 0; // O
  if (kind === 0x3f) return length === 1 ? DTYPE_BOOL : 0; // ?
  if (kind === 0x62) return size === 1 ? DTYPE_BOOL : 0; // b
  if (kind === 0x56) return size === 2 ? DTYPE_VOID16 : 0; // V
  if (popcnt(size) !== 1) return 0;
  const power = ctz(size); // size = 2^power
  if (kind === 0x69) return power < 4 ? DTYPE_INT8 + 2 * power : 0; // i
  if (kind === 0x75) return power < 4 ? DTYPE_INT8 + 1 + 2 * power : 0; // u
  if (kind === 0x66)
    return size === 2 ? DTYPE_FLOAT16 : size === 4 ? DTYPE_FLOAT32 : size === 8 ? DTYPE_FLOAT64 : 0;
  if (kind === 0x63) return size === 8 ? DTYPE_COMPLEX64 : size === 16 ? DTYPE_COMPLEX128 : 0; // c
  return 0;
}

/** Bytes of an element, 1 to 16: one hexadecimal digit per code, from 1 at the right, holds the binary logarithm. */
export function itemSizeOf(dtype: u32): u32 {
  return 1 << (<u32>(0x1433_2113_3221_1000 >> ((<u64>(dtype - 1)) << 2)) & 15);
}

/** Writes kind and size of an element type (`f4`) and returns the address behind it. */
export function putDtype(out: usize, dtype: u32): usize {
  const size = itemSizeOf(dtype);
  let kind: u32 = 0x66; // f
  if (dtype === DTYPE_BOOL) kind = 0x62;
  else if (dtype < <u32>DTYPE_FLOAT16)
    kind = dtype & 1 ? 0x75 : 0x69; // codes of i are even, of u odd
  else if (dtype === DTYPE_COMPLEX64 || dtype === DTYPE_COMPLEX128) kind = 0x63;
  // NumPy has no name for bfloat16: to it the elements are two anonymous bytes.
  else if (size === 2 && dtype !== DTYPE_FLOAT16) kind = 0x56;
  store<u8>(out, kind);
  return putDecimal(out + 1, size);
}

/** The order character that NumPy writes for an element type in little endian. */
export function orderOf(dtype: u32): u32 {
  return itemSizeOf(dtype) === 1 || dtype === DTYPE_VOID16 ? 0x7c : 0x3c; // | or <
}

/** Writes a number in decimal and returns the address behind it. */
export function putDecimal(out: usize, value: u64): usize {
  let digits: usize = 1;
  for (let rest = value; rest >= 10; rest /= 10) digits++;
  for (let at = out + digits; at > out; value /= 10) store<u8>(--at, 0x30 + <u32>(value % 10));
  return out + digits;
}

/** total * max(dimension, 1), or a number above MAX_SAFE when that is above MAX_SAFE. Both factors are at least 1. */
export function growSize(total: u64, dimension: u64): u64 {
  if (dimension === 0) return total;
  return total > MAX_SAFE / dimension ? u64.MAX_VALUE : total * dimension;
}
