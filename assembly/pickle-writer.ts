// The pickle of a weight file, written: byte for byte what np.save of NumPy 1.17 to 1.26 emits for an object array
// [weighting, [arrays]], but for its elements, which the caller puts between two calls.
//
//     startPickle   head, weighting, opening of the list        | writeTensor 0: array up to its payload
//     writeTensor i end of array i - 1, array i up to its payload                | payload i
//     endPickle     end of the last array, of the lists, STOP
//
// CPython numbers every new object in the order of its creation (the memo) and refers to it when it comes again: the
// functions, b'b', the order characters, each dtype and the empty payload. It shares payloads of one byte too, by their
// value (b'b' with them). Where the caller cannot tell a value, the payload is spelled: valid, but not NumPy's own bytes.
//
// Aligned files put each payload at a multiple of 64 bytes, so that a view of it needs no copy. What fills the gap stores
// the order flag, which is on top of the stack, under the number 255 again and again: two bytes each, and five bytes
// once where the gap is odd. Nothing fetches 255, and no object gets it.

import { DTYPE_BFLOAT16, DTYPE_VOID16, PICKLE_WRITER_BYTES } from './abi';
import {
  APPEND,
  APPENDS,
  BINBYTES,
  BINBYTES8,
  BINFLOAT,
  BINGET,
  BININT,
  BININT1,
  BININT2,
  BINPUT,
  BINUNICODE,
  BUILD,
  EMPTY_LIST,
  EMPTY_TUPLE,
  LONG_BINGET,
  LONG_BINPUT,
  LONG1,
  MARK,
  NEWFALSE,
  NEWTRUE,
  NONE,
  PROTO,
  REDUCE,
  SHORT_BINBYTES,
  STOP,
  TUPLE,
  TUPLE1,
} from './pickle-opcodes';
import { orderOf, putDtype, putText } from './text';

// The state
const NEXT: usize = 0; // u32: number of the next new object
const COUNT: usize = 4; // u32: tensors in all
const DONE: usize = 8; // u32: tensors begun
const PENDING: usize = 12; // u32: what endArray has to write, PENDING_
const EMPTY: usize = 16; // u32: number of the empty payload, 0 before it
const LITTLE: usize = 20; // u32: number of '<', 0 before it
const DTYPES: usize = 24; // u32[17]: number of each dtype by code, 0 before it
const RESERVED: usize = 92; // u32: FILLER in aligned files, else 0
const BYTES: usize = 96; // u32[256]: number of each payload of one byte, 0 before it

const PENDING_NONE: u32 = 0;
const PENDING_ARRAY: u32 = 1;
/** An array whose payload came from the memo, which gives it no new number. */
const PENDING_SHARED: u32 = 2;
/** Added for an array in a [name, array] pair. */
const PENDING_PAIR: u32 = 4;

// The numbers of the objects that every file begins with.
const RECONSTRUCT: u32 = 0;
const NDARRAY: u32 = 1;
const KIND: u32 = 3; // b'b'
const DTYPE: u32 = 7;
const BAR: u32 = 11; // '|'

/** The number that fills gaps in aligned files. */
const FILLER: u32 = 255;

/** CPython writes so many items of a list behind one MARK. */
const BATCH: u32 = 1000;

let s: usize = 0;
let out: usize = 0;

/**
 * Writes the begin of a pickle.
 *
 * state: PICKLE_WRITER_BYTES, kept until endPickle. to: PICKLE_WRITER_ROOM bytes. Answers the bytes written.
 * protocol: 3; 4 when a payload has 2^32 bytes or more. aligned: payloads at multiples of 64.
 */
export function startPickle(
  state: usize,
  to: usize,
  count: u32,
  weighting: f64,
  asFloat: bool,
  protocol: u32,
  aligned: bool,
): u32 {
  s = state;
  out = to;
  memory.fill(state, 0, PICKLE_WRITER_BYTES);
  store<u32>(state, count, COUNT);
  if (aligned) store<u32>(state, FILLER, RESERVED);
  store<u32>(state + BYTES + (0x62 << 2), KIND);
  byte(PROTO);
  byte(protocol);
  text('cnumpy.core.multiarray\n_reconstruct\n');
  create();
  text('cnumpy\nndarray\n');
  create();
  integer(0);
  createTuple(1);
  byte(SHORT_BINBYTES);
  byte(1);
  byte(0x62); // b
  create();
  createTuple(3);
  byte(REDUCE);
  create();
  byte(MARK);
  integer(1);
  integer(2);
  createTuple(1);
  text('cnumpy\ndtype\n');
  create();
  unicode(2, 0x384f); // O8
  dtypeCall();
  byte(MARK);
  integer(3);
  unicode(1, 0x7c);
  dtypeState(-1, -1, 63);
  byte(NEWFALSE);
  byte(EMPTY_LIST);
  create();
  byte(MARK);
  if (asFloat) {
    byte(BINFLOAT);
    store<u64>(out, bswap<u64>(reinterpret<u64>(weighting)));
    out += 8;
  } else {
    integer(<i64>weighting);
  }
  byte(EMPTY_LIST);
  create();
  return <u32>(out - to);
}

/**
 * Writes what stands between the payload before (if any) and that of the next tensor.
 *
 * shape: binary64 each. bytes: of the payload, to follow. name: UTF-8, address 0 for none. to: PICKLE_WRITER_ROOM bytes
 * and the name's. offset: where in the file these bytes will stand, modulo 2^32. only: the payload's one byte, -1 when it
 * has more, or nobody knows it; no payload follows where the same one came before. Answers the bytes written.
 */
export function writeTensor(
  state: usize,
  to: usize,
  dtype: u32,
  dimensions: u32,
  shape: usize,
  bytes: f64,
  name: usize,
  nameLength: u32,
  offset: u32,
  only: i32,
): u32 {
  s = state;
  out = to;
  endArray();
  const done = load<u32>(s, DONE);
  if (done % BATCH === 0 && load<u32>(s, COUNT) > 1) {
    if (done > 0) byte(APPENDS);
    byte(MARK);
  }
  store<u32>(s, done + 1, DONE);
  let pending = PENDING_ARRAY;
  if (name !== 0) {
    pending |= PENDING_PAIR;
    byte(EMPTY_LIST);
    create();
    byte(MARK);
    byte(BINUNICODE);
    word(nameLength);
    memory.copy(out, name, nameLength);
    out += nameLength;
    create();
  }
  recall(RECONSTRUCT);
  recall(NDARRAY);
  integer(0);
  createTuple(1);
  recall(KIND);
  createTuple(3);
  byte(REDUCE);
  create();
  byte(MARK);
  integer(1);
  writeShape(dimensions, shape);
  writeDtype(dtype);
  byte(NEWFALSE);
  const length = <u64>bytes;
  // Where the number of a payload is kept that CPython shares by its value.
  const slot: usize = length === 0 ? s + EMPTY : only < 0 ? 0 : s + BYTES + ((<usize>only) << 2);
  const shared: u32 = slot === 0 ? 0 : load<u32>(slot);
  if (shared !== 0) {
    recall(shared);
    pending += PENDING_SHARED - PENDING_ARRAY;
  } else {
    const width: u32 = length < 0x100 ? 1 : length < 0x1_0000_0000 ? 4 : 8;
    if (load<u32>(s, RESERVED) !== 0) fill(offset + <u32>(out - to) + 1 + width);
    byte(width === 1 ? SHORT_BINBYTES : width === 4 ? BINBYTES : BINBYTES8);
    store<u64>(out, length);
    out += width;
    if (slot !== 0) store<u32>(slot, load<u32>(s, NEXT));
  }
  store<u32>(s, pending, PENDING);
  return <u32>(out - to);
}

/** Writes what follows the last payload. Answers the bytes written. */
export function endPickle(state: usize, to: usize): u32 {
  s = state;
  out = to;
  endArray();
  const count = load<u32>(s, COUNT);
  if (count > 0) byte(count === 1 ? APPEND : APPENDS);
  byte(APPENDS);
  byte(TUPLE);
  create();
  byte(BUILD);
  byte(STOP);
  return <u32>(out - to);
}

function endArray(): void {
  const pending = load<u32>(s, PENDING);
  if (pending === PENDING_NONE) return;
  if (pending & PENDING_ARRAY) create();
  byte(TUPLE);
  create();
  byte(BUILD);
  if (pending & PENDING_PAIR) byte(APPENDS);
}

/** Fills the gap between `end` and the next multiple of 64; gaps of 1 and 3 reach to the one after it. */
function fill(end: u32): void {
  let gap = -end & 63;
  if (gap & 1) {
    byte(LONG_BINPUT);
    word(FILLER);
    gap = (gap - 5) & 63;
  }
  for (; gap !== 0; gap -= 2) {
    byte(BINPUT);
    byte(FILLER);
  }
}

function writeShape(dimensions: u32, shape: usize): void {
  if (dimensions === 0) {
    byte(EMPTY_TUPLE); // the one tuple without a number
    return;
  }
  if (dimensions > 3) byte(MARK);
  for (let i: u32 = 0; i < dimensions; i++) integer(<i64>load<f64>(shape + (i << 3)));
  if (dimensions > 3) {
    byte(TUPLE);
    create();
  } else {
    createTuple(dimensions);
  }
}

function writeDtype(dtype: u32): void {
  const slot = s + DTYPES + (dtype << 2);
  if (load<u32>(slot) !== 0) {
    recall(load<u32>(slot));
    return;
  }
  recall(DTYPE);
  if (dtype === DTYPE_BFLOAT16) {
    text('cml_dtypes\nbfloat16\n');
  } else {
    byte(BINUNICODE);
    const length = out;
    out = putDtype(out + 4, dtype);
    store<u32>(length, <u32>(out - length - 4));
  }
  create();
  store<u32>(slot, dtypeCall());
  byte(MARK);
  integer(3);
  if (orderOf(dtype) === 0x7c) {
    recall(BAR);
  } else if (load<u32>(s, LITTLE) !== 0) {
    recall(load<u32>(s, LITTLE));
  } else {
    store<u32>(s, load<u32>(s, NEXT), LITTLE);
    unicode(1, 0x3c);
  }
  if (dtype === DTYPE_BFLOAT16) dtypeState(2, 2, 64);
  else if (dtype === DTYPE_VOID16) dtypeState(2, 1, 0);
  else dtypeState(-1, -1, 0);
}

/** False, True and the call of dtype with them. Answers the number of what it makes. */
function dtypeCall(): u32 {
  byte(NEWFALSE);
  byte(NEWTRUE);
  createTuple(3);
  byte(REDUCE);
  return create();
}

/** The state of a dtype behind its order character. */
function dtypeState(size: i64, alignment: i64, flags: i64): void {
  byte(NONE);
  byte(NONE);
  byte(NONE);
  integer(size);
  integer(alignment);
  integer(flags);
  byte(TUPLE);
  create();
  byte(BUILD);
}

function byte(value: u32): void {
  store<u8>(out++, value);
}

function word(value: u32): void {
  store<u32>(out, value);
  out += 4;
}

function text(value: string): void {
  out = putText(out, value);
}

/** One or two characters, the first in the lowest byte: a literal would take ten times their room. */
function unicode(length: u32, characters: u32): void {
  byte(BINUNICODE);
  word(length);
  store<u16>(out, characters);
  out += length;
  create();
}

/** The shortest form, as CPython chooses it. */
function integer(value: i64): void {
  if (<u64>value < 0x100) {
    byte(BININT1);
    byte(<u32>value);
  } else if (<u64>value < 0x1_0000) {
    byte(BININT2);
    store<u16>(out, <u16>value);
    out += 2;
  } else if (value === <i64>(<i32>value)) {
    byte(BININT);
    word(<u32>value);
  } else {
    // Two's complement with as many bytes as the number and its sign bit need.
    const bits = 65 - clz(value < 0 ? ~value : value);
    const length = <u32>((bits + 7) >> 3);
    byte(LONG1);
    byte(length);
    store<u64>(out, value);
    out += length;
  }
}

function createTuple(items: u32): void {
  byte(TUPLE1 - 1 + items);
  create();
}

/** Numbers the object on top of the stack and answers the number. */
function create(): u32 {
  const number = load<u32>(s, NEXT);
  const next = number + 1;
  store<u32>(s, next + u32(next === load<u32>(s, RESERVED)), NEXT);
  if (number < 0x100) {
    byte(BINPUT);
    byte(number);
  } else {
    byte(LONG_BINPUT);
    word(number);
  }
  return number;
}

/** Fetches the object with the number. */
function recall(number: u32): void {
  if (number < 0x100) {
    byte(BINGET);
    byte(number);
  } else {
    byte(LONG_BINGET);
    word(number);
  }
}
