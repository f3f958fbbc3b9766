// The header of a .npy file, read and written.
//
//     \x93NUMPY  major  minor  length of the text (u16 in 1.0, u32 in 2.0 and 3.0, little endian)  text  elements
//     {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
//
// The grammar is what writers emit, not what Python's literals allow: exactly the three keys, each once, in any order;
// strings in either quote, with an optional u, without backslash; integers in decimal without leading zero or sign,
// with an optional L in 1.0 and 2.0 (Python 2); tuples ( ), (n,), (n, m[,]); blanks anywhere between tokens. Every
// laxer form is a way for two readers to disagree about one file.

import {
  ANSWER_BYTES,
  ANSWER_NEED,
  ANSWER_OFFSET,
  ANSWER_TEXT,
  MAX_DIMENSIONS,
  MAX_NPY_HEADER,
  NPY_DTYPE_UNSUPPORTED,
  NPY_HEADER_KEYS,
  NPY_HEADER_SYNTAX,
  NPY_HEADER_TOO_LARGE,
  NPY_HEADER_VALUE,
  NPY_MAGIC,
  NPY_SHAPE,
  NPY_SHAPE_OVERFLOW,
  NPY_TRUNCATED,
  NPY_VERSION,
  READ_DONE,
  READ_NEED,
  TENSOR_BIG_ENDIAN,
  TENSOR_DIMENSIONS,
  TENSOR_DTYPE,
  TENSOR_FLAGS,
  TENSOR_FORTRAN,
  TENSOR_LENGTH,
  TENSOR_NAME,
  TENSOR_NAME_OFFSET,
  TENSOR_OFFSET,
  TENSOR_SHAPE,
} from './abi';
import {
  DTYPE_OBJECT,
  dtypeOf,
  findInvalidUtf8,
  growSize,
  isText,
  itemSizeOf,
  MAX_SAFE,
  orderOf,
  putDecimal,
  putDtype,
  putText,
} from './text';

/** \x93NUMPY in a little-endian word. */
const MAGIC: u64 = 0x59_50_4d_55_4e_93;

// The reader's place. One header is read in one call, so nothing of this outlives it.
let answer: usize = 0;
let start: usize = 0;
let p: usize = 0;
let end: usize = 0;
let version: u32 = 0;
let text: usize = 0;
let textLength: u32 = 0;

/**
 * Reads the header of a .npy file.
 *
 * bytes: the first `length` bytes of a file of `fileLength` bytes.
 * out: an answer, followed by a tensor record with room for MAX_DIMENSIONS. ANSWER_TEXT is the descr, without its
 * quotes when it is a string. The record is filled for NPY_DTYPE_UNSUPPORTED too, but for dtype and length.
 *
 * Whether the file holds as many bytes as the header says is the caller's to compare.
 */
export function readNpyHeader(bytes: usize, length: u32, fileLength: f64, out: usize): u32 {
  answer = out;
  start = bytes;
  p = bytes;
  end = bytes + length;
  // A file that ends within the magic is cut short only if it is right as far as it goes.
  for (let i: u32 = 0; i < min<u32>(length, 6); i++) {
    if (load<u8>(bytes + i) !== <u8>(MAGIC >> ((<u64>i) << 3))) return fail(NPY_MAGIC, bytes + i);
  }
  let status = needs(10, fileLength);
  if (status !== READ_DONE) return status;
  version = <u32>load<u8>(bytes + 6);
  if (version - 1 > 2) return fail(NPY_VERSION, bytes + 6);
  if (load<u8>(bytes + 7) !== 0) return fail(NPY_VERSION, bytes + 7);
  const prelude: u32 = version === 1 ? 10 : 12;
  status = needs(prelude, fileLength);
  if (status !== READ_DONE) return status;
  const size: u32 = version === 1 ? load<u16>(bytes + 8) : load<u32>(bytes + 8);
  if (size > <u32>MAX_NPY_HEADER) return fail(NPY_HEADER_TOO_LARGE, bytes + 8);
  status = needs(prelude + size, fileLength);
  if (status !== READ_DONE) return status;

  p = bytes + prelude;
  end = p + size;
  if (version === 3) {
    const bad = findInvalidUtf8(p, size);
    if (bad < size) return fail(NPY_HEADER_SYNTAX, p + bad);
  }
  store<f64>(out + ANSWER_BYTES, <f64>(prelude + size), TENSOR_OFFSET);
  return readDict(out + ANSWER_BYTES);
}

/** READ_DONE when the first n bytes are there, READ_NEED when the file has them, else NPY_TRUNCATED. */
function needs(n: u32, fileLength: f64): u32 {
  if (end - start >= n) return READ_DONE;
  if (fileLength < <f64>n) {
    store<f64>(answer, fileLength, ANSWER_OFFSET);
    return NPY_TRUNCATED;
  }
  store<f64>(answer, 0, ANSWER_OFFSET);
  store<f64>(answer, <f64>n, ANSWER_NEED);
  return READ_NEED;
}

function fail(status: u32, at: usize): u32 {
  store<f64>(answer, <f64>(at - start), ANSWER_OFFSET);
  return status;
}

function readDict(record: usize): u32 {
  store<u32>(record, 0, TENSOR_FLAGS);
  store<u64>(record, 0, TENSOR_NAME);
  store<f64>(record, 0, TENSOR_NAME_OFFSET);
  let seen: u32 = 0;
  let descr: usize = 0;
  let descrLength: u32 = 0;
  let isString = false;
  if (!accept(0x7b)) return fail(NPY_HEADER_SYNTAX, p); // {
  while (!accept(0x7d)) {
    const at = p;
    if (!readString()) return fail(NPY_HEADER_SYNTAX, p);
    const key: u32 = isText(text, textLength, 'descr')
      ? 1
      : isText(text, textLength, 'fortran_order')
        ? 2
        : isText(text, textLength, 'shape')
          ? 4
          : 8;
    if (key === 8 || (seen & key) !== 0) return fail(NPY_HEADER_KEYS, at);
    seen |= key;
    if (!accept(0x3a)) return fail(NPY_HEADER_SYNTAX, p); // :
    skipBlanks();
    if (key === 1) {
      isString = readString();
      if (!isString) {
        if (peek() !== 0x28 && peek() !== 0x5b) return fail(NPY_HEADER_VALUE, p);
        descr = p;
        if (!skipNested()) return fail(NPY_HEADER_SYNTAX, p);
        descrLength = <u32>(p - descr);
      } else {
        descr = text;
        descrLength = textLength;
      }
    } else if (key === 2) {
      const isTrue = acceptWord('True');
      if (!isTrue && !acceptWord('False')) return fail(NPY_HEADER_VALUE, p);
      if (isTrue) store<u32>(record, TENSOR_FORTRAN, TENSOR_FLAGS);
    } else {
      const status = readShape(record);
      if (status !== READ_DONE) return status;
    }
    if (accept(0x2c)) continue; // ,
    if (peek() !== 0x7d) return fail(NPY_HEADER_SYNTAX, p);
  }
  skipBlanks();
  if (p !== end) return fail(NPY_HEADER_SYNTAX, p);
  if (seen !== 7) return fail(NPY_HEADER_KEYS, end);
  return readDescr(record, descr, descrLength, isString);
}

function readDescr(record: usize, descr: usize, length: u32, isString: bool): u32 {
  store<u32>(answer, <u32>descr, ANSWER_TEXT);
  store<u32>(answer, length, ANSWER_TEXT + 4);
  let dtype: u32 = 0;
  if (isString && length > 0) {
    const order = <u32>load<u8>(descr);
    const hasOrder: u32 = order === 0x3c || order === 0x3e || order === 0x7c || order === 0x3d ? 1 : 0;
    dtype = dtypeOf(descr + hasOrder, length - hasOrder);
    if (order === 0x3e) store<u32>(record, load<u32>(record, TENSOR_FLAGS) | TENSOR_BIG_ENDIAN, TENSOR_FLAGS);
  }
  if (dtype === 0) return fail(NPY_DTYPE_UNSUPPORTED, descr);
  const isObject = dtype === DTYPE_OBJECT;
  store<u32>(record, isObject ? 0 : dtype, TENSOR_DTYPE);
  // Zero counts as one here: a size that overflows is refused although another dimension makes it nothing.
  let total: u64 = isObject ? 8 : itemSizeOf(dtype);
  let isEmpty = false;
  const dimensions = load<u32>(record, TENSOR_DIMENSIONS);
  for (let i: u32 = 0; i < dimensions; i++) {
    const dimension = <u64>load<f64>(record + (i << 3), TENSOR_SHAPE);
    if (dimension === 0) isEmpty = true;
    total = growSize(total, dimension);
    if (total > MAX_SAFE) return fail(NPY_SHAPE_OVERFLOW, descr);
  }
  store<f64>(record, isEmpty ? 0 : <f64>total, TENSOR_LENGTH);
  return READ_DONE;
}

function readShape(record: usize): u32 {
  const open = p;
  let dimensions: u32 = 0;
  store<u32>(record, 0, TENSOR_DIMENSIONS);
  if (!accept(0x28)) return fail(NPY_SHAPE, p); // (
  let hasComma = false;
  while (!accept(0x29)) {
    const at = p;
    if (dimensions > 0 && !hasComma) return fail(NPY_HEADER_SYNTAX, p);
    const first = peek();
    if (first === 0x2d || first === 0x54 || first === 0x46) return fail(NPY_SHAPE, p); // - True False
    if (first - 0x30 > 9) return fail(NPY_HEADER_SYNTAX, p);
    let value: u64 = 0;
    for (; peek() - 0x30 <= 9; p++) {
      if (p > at && first === 0x30) return fail(NPY_HEADER_SYNTAX, p);
      // Saturates: a dimension above MAX_SAFE stays above it however many digits follow.
      if (value <= MAX_SAFE) value = value * 10 + (peek() - 0x30);
    }
    if (version < 3 && peek() === 0x4c) p++; // L
    if (value > MAX_SAFE) return fail(NPY_SHAPE_OVERFLOW, at);
    if (dimensions === MAX_DIMENSIONS) return fail(NPY_SHAPE, at);
    store<f64>(record + (dimensions << 3), <f64>value, TENSOR_SHAPE);
    dimensions++;
    hasComma = accept(0x2c);
  }
  store<u32>(record, dimensions, TENSOR_DIMENSIONS);
  return dimensions === 1 && !hasComma ? fail(NPY_SHAPE, open) : READ_DONE; // (n) is a number in brackets
}

/** Skips a list or tuple of strings, numbers, lists and tuples: the descr of a structured array, refused later. */
function skipNested(): bool {
  let kinds: u64 = 0; // the open brackets, innermost in bit 0: 1 for [
  let depth = 0;
  do {
    skipBlanks();
    const c = peek();
    if (c === 0x28 || c === 0x5b) {
      if (depth === 64) return false;
      kinds = (kinds << 1) | <u64>(c === 0x5b);
      depth++;
      p++;
    } else if (c === 0x29 || c === 0x5d) {
      if ((kinds & 1) !== <u64>(c === 0x5d)) return false;
      kinds >>= 1;
      depth--;
      p++;
    } else if (c === 0x2c || c - 0x30 <= 9) {
      p++;
    } else if (!readString()) {
      return false;
    }
  } while (depth > 0);
  return true;
}

/** Reads a string; `text` and `textLength` are what stands between the quotes. On failure p is where it broke. */
function readString(): bool {
  skipBlanks();
  const from = p;
  if (peek() === 0x75) p++; // u
  const quote = peek();
  if (quote !== 0x27 && quote !== 0x22) {
    p = from;
    return false;
  }
  text = ++p;
  for (; p < end; p++) {
    const c = <u32>load<u8>(p);
    if (c === quote) {
      textLength = <u32>(p - text);
      p++;
      return true;
    }
    if (c === 0x5c || c < 0x20) return false; // backslash, control characters
  }
  return false;
}

function acceptWord(word: string): bool {
  const length = <u32>word.length;
  if (end - p < length || !isText(p, length, word)) return false;
  p += length;
  return true;
}

/** Skips blanks, and the character if it comes next. */
function accept(character: u32): bool {
  skipBlanks();
  if (peek() !== character) return false;
  p++;
  return true;
}

function skipBlanks(): void {
  while (peek() === 0x20 || peek() - 9 <= 1 || peek() === 13) p++;
}

/** The next byte, 0 at the end: no token contains a NUL. */
function peek(): u32 {
  return p < end ? load<u8>(p) : 0;
}

/**
 * Writes a header in format 1.0 for elements in C order, little endian, as NumPy from 1.24 on writes it: behind the
 * text, room for the first dimension to grow to 21 digits, then blanks up to a multiple of 64.
 *
 * dtype: 0 for an object array. shape: binary64 each. out: NPY_HEADER_ROOM bytes. Answers the bytes written.
 */
export function writeNpyHeader(out: usize, dtype: u32, dimensions: u32, shape: usize): u32 {
  store<u64>(out, 0x0001_0000_0000_0000 | MAGIC); // 1.0
  let at = putText(out + 10, "{'descr': '");
  if (dtype === 0) {
    store<u16>(at, 0x4f7c); // |O
    at += 2;
  } else {
    store<u8>(at, orderOf(dtype));
    at = putDtype(at + 1, dtype);
  }
  at = putText(at, "', 'fortran_order': False, 'shape': (");
  let room: usize = 0;
  for (let i: u32 = 0; i < dimensions; i++) {
    const from = at;
    at = putDecimal(at, <u64>load<f64>(shape + (i << 3)));
    if (i === 0) room = 21 - (at - from);
    if (i === 0 || i + 1 < dimensions) store<u8>(at++, 0x2c);
    if (i + 1 < dimensions) store<u8>(at++, 0x20);
  }
  store<u32>(at, 0x7d202c29); // ), }
  at += 4;
  // The line feed, then up to the next multiple of 64: NumPy adds 64 blanks where none would be needed.
  const length = (at + room - out + 1 + 64) & ~(<usize>63);
  memory.fill(at, 0x20, out + length - at - 1);
  store<u8>(out + length - 1, 0x0a);
  store<u16>(out + 8, <u32>length - 10);
  return <u32>length;
}
