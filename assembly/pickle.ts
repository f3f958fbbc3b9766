// The walker of the pickle in a weight file: [weighting, [arrays]] as np.save emits it.
//
// A pickle is a program for a stack machine. This machine knows some forty opcodes and twelve names, imports nothing,
// calls nothing, and refuses the rest at the byte where it stands. A name becomes a tag; REDUCE and BUILD are two small
// tables over tags. Elements of arrays are skipped: what remains of them is their position in the file.
//
// Resumable: walkPickle takes a window of the file and answers READ_NEED with the place where it wants to go on, which
// lies behind the payload that it skipped. Between calls everything stands in the caller's arena:
//
//     | state | values, memo pages →                                  ← stack of values |
//
// Nothing is allocated by a length that the file claims: values grow with the opcodes that made them, at most some 50
// bytes for each byte of the file, and READ_MEMORY is the answer before the two ends meet. A value is never freed.
// Payloads are not touched, but short ones (16 bytes and less) and texts are copied: weightings, dtypes, names.
//
// The limits are those of the reference for safe weight files; each is far above what np.save emits for any model.

import {
  ANSWER_BYTES,
  ANSWER_COUNT,
  ANSWER_DETAIL,
  ANSWER_EXPECTED,
  ANSWER_NAME,
  ANSWER_NEED,
  ANSWER_OFFSET,
  ANSWER_OPCODE,
  ANSWER_TEXT,
  ANSWER_VALUE,
  DTYPE_BFLOAT16,
  DTYPE_BOOL,
  DTYPE_COMPLEX64,
  DTYPE_FLOAT16,
  DTYPE_FLOAT32,
  DTYPE_FLOAT64,
  DTYPE_VOID16,
  MAX_DIMENSIONS,
  MAX_TENSORS,
  NPY_DATA_TRAILING,
  NPY_DTYPE_UNSUPPORTED,
  NPY_SHAPE,
  NPY_SHAPE_OVERFLOW,
  PICKLE_GLOBAL,
  PICKLE_LIMIT,
  PICKLE_MISMATCH,
  PICKLE_OPCODE,
  PICKLE_PROTOCOL,
  PICKLE_STATE_BYTES,
  PICKLE_STRUCTURE,
  PICKLE_TEXT_LIMIT,
  PICKLE_TRUNCATED,
  READ_DONE,
  READ_MEMORY,
  READ_MORE,
  READ_NEED,
  REASON_ARRAY_STATE,
  REASON_CYCLE,
  REASON_DTYPE_STATE,
  REASON_FRAME,
  REASON_LENGTH,
  REASON_LINE,
  REASON_MARKS,
  REASON_MEMO,
  REASON_MEMO_MISSING,
  REASON_NAME,
  REASON_NESTING,
  REASON_NO_MARK,
  REASON_NOT_BUILT,
  REASON_OBJECT,
  REASON_OPCODES,
  REASON_OPERANDS,
  REASON_OUTER,
  REASON_OUTER_SHAPE,
  REASON_PARAMETER,
  REASON_PARAMETERS,
  REASON_RESULTS,
  REASON_SHAPE,
  REASON_STACK,
  REASON_STACK_EMPTY,
  REASON_STRUCTURED,
  REASON_TENSORS,
  REASON_TEXT_PAYLOAD,
  REASON_WEIGHTING,
  REASON_WEIGHTING_RANGE,
  TENSOR_BIG_ENDIAN,
  TENSOR_DIMENSIONS,
  TENSOR_DTYPE,
  TENSOR_FLAGS,
  TENSOR_LENGTH,
  TENSOR_NAME,
  TENSOR_OFFSET,
  TENSOR_SHAPE,
  WEIGHTS_FORM,
} from './abi';
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
  BINSTRING,
  BINUNICODE,
  BUILD,
  BYTEARRAY8,
  EMPTY_DICT,
  EMPTY_LIST,
  EMPTY_TUPLE,
  FRAME,
  GLOBAL,
  INST,
  LONG_BINGET,
  LONG_BINPUT,
  LONG1,
  MARK,
  MEMOIZE,
  NEWFALSE,
  NEWTRUE,
  NONE,
  PROTO,
  REDUCE,
  SHORT_BINBYTES,
  SHORT_BINSTRING,
  SHORT_BINUNICODE,
  STACK_GLOBAL,
  STOP,
  TUPLE,
  TUPLE1,
  TUPLE2,
  TUPLE3,
} from './pickle-opcodes';
import { DTYPE_OBJECT, dtypeOf, growSize, isText, itemSizeOf, MAX_SAFE } from './text';

// --- limits

const MAX_STACK: u32 = 65_536;
const MAX_MARKS: u32 = 64;
const MAX_NESTING: u32 = 16;
const MAX_MEMO: u64 = 1 << 20;
const MAX_OPCODES: u32 = 1 << 22;
/** Items looked at while flattening: a list of lists of empty lists holds no array, but takes time. */
const MAX_VISITS: u32 = 1 << 20;
const MAX_LINE: u32 = 256;
const MAX_LONG: u64 = 16;
/** A payload of so few bytes may be a weighting: kept. */
const KEPT_PAYLOAD: u64 = 16;
/** Text that Python 2 wrote: names, dtypes. */
const KEPT_STRING: u64 = 255;

// --- the state, behind the answer

const AT: usize = ANSWER_BYTES; // u64: position of the next opcode
const FIRST: usize = AT + 8; // u64: position of the first opcode
const FILE_END: usize = AT + 16; // u64
const FRAME_END: usize = AT + 24; // u64, 0 outside frames
const POOL: usize = AT + 32; // u32: next free byte for values
const STACK: usize = AT + 36; // u32: top of the stack, which grows down
const BOTTOM: usize = AT + 40; // u32: end of the arena
const MEMO: usize = AT + 44; // u32: root page of the memo
const MEMO_COUNT: usize = AT + 48; // u32: entries
const OPCODES: usize = AT + 52; // u32: done so far
const MARKS: usize = AT + 56; // u32: open marks
const TENSORS: usize = AT + 60; // u32: arrays handed out
const VISITS: usize = AT + 64; // u32
const DEPTH: usize = AT + 68; // u32: open containers while flattening
const MARK_TABLE: usize = AT + 72; // u32[MAX_MARKS]: the stack at each mark
const OPEN_TABLE: usize = MARK_TABLE + 4 * 64; // (u32 chunk, u32 index)[MAX_NESTING]

// --- values: u32 type, u64 position of the opcode that made it, and by type:

const NODE: usize = 12;
const T_NONE: u32 = 0;
const T_FALSE: u32 = 1;
const T_TRUE: u32 = 2;
const T_INT: u32 = 3; // i64
const T_LONG: u32 = 4; // an integer beyond 64 bits: u32 1 when negative
const T_FLOAT: u32 = 5; // f64
const T_TAG: u32 = 6; // u32 TAG_
const T_TEXT: u32 = 7; // a span
const T_BYTES: u32 = 8; // a span
const T_TUPLE: u32 = 9; // items
const T_LIST: u32 = 10; // items, and last chunk, closed
const T_DTYPE: u32 = 11; // u32 built, u32 dtype, u32 flags (TENSOR_BIG_ENDIAN)
const T_ARRAY: u32 = 12; // u32 built, u32 dtype, u32 flags, u32 shape (a tuple), u32 payload (bytes or list)
const T_SCALAR: u32 = 13; // as T_ARRAY, without a shape

// A span of the file
const OFFSET: usize = NODE; // u64
const LENGTH: usize = NODE + 8; // u64
const COPY: usize = NODE + 16; // u32: where its bytes are kept, 0 when they are not
const IS_STRING: usize = NODE + 20; // u32: 1 for the str of Python 2, which is text or bytes
const IS_ENCODED: usize = NODE + 24; // u32: 1 when the file holds it as text in UTF-8: not contiguous

// Items: chunks of u32 count, u32 next, u32[count]
const COUNT: usize = NODE; // u32
const CHUNK: usize = NODE + 4; // u32: the first one
const LAST: usize = NODE + 8; // u32
const CLOSED: usize = NODE + 12; // u32: 1 once something contains the list

const BUILT: usize = NODE; // u32
const DTYPE: usize = NODE + 4; // u32
const FLAGS: usize = NODE + 8; // u32
const SHAPE: usize = NODE + 12; // u32
const PAYLOAD: usize = NODE + 16; // u32

// --- the names

const TAG_RECONSTRUCT: u32 = 1;
const TAG_SCALAR: u32 = 2;
const TAG_FROMBUFFER: u32 = 3;
const TAG_NDARRAY: u32 = 4;
const TAG_DTYPE: u32 = 5;
const TAG_ENCODE: u32 = 6;
const TAG_BYTES: u32 = 7;
const TAG_BFLOAT16: u32 = 8;

/** What an opcode answers when the next one may come. Not a status that leaves this file. */
const GO_ON: u32 = 0xff;

/** Room that any opcode leaves itself before it begins, beside one word for each value on the stack. */
const HEADROOM: u32 = 2 * PICKLE_TEXT_LIMIT + 1024;

// The machine at work; loaded at the begin of each call.
let s: usize = 0;
let at: u64 = 0; // position of the opcode
let next: u64 = 0; // position behind it
let op: u32 = 0;

/**
 * Prepares a walk.
 *
 * state: `bytes` bytes of arena, at least PICKLE_STATE_BYTES, 16-byte aligned.
 * begin: position of the pickle in a file of `fileLength` bytes.
 */
export function openPickle(state: usize, bytes: u32, begin: f64, fileLength: f64): void {
  s = state;
  memory.fill(state, 0, PICKLE_STATE_BYTES);
  store<u64>(s, <u64>begin, AT);
  store<u64>(s, <u64>begin, FIRST);
  store<u64>(s, <u64>fileLength, FILE_END);
  store<u32>(s, <u32>(state + bytes), STACK);
  store<u32>(s, <u32>(state + bytes), BOTTOM);
  store<u32>(s, <u32>(state + OPEN_TABLE + 8 * MAX_NESTING), POOL);
  store<u32>(s, <u32>memoPage(), MEMO);
}

/**
 * Walks on: the window holds `length` bytes of the file from `offset` on. Answers a READ_ status or a refusal; the
 * answer stands at the begin of the state. With READ_DONE the weighting is in ANSWER_VALUE, and takeTensors follows.
 */
export function walkPickle(state: usize, window: usize, length: u32, offset: f64): u32 {
  s = state;
  let status = GO_ON;
  while (status === GO_ON) status = step(window, <u64>offset, <u64>offset + length);
  return status;
}

function step(window: usize, begin: u64, end: u64): u32 {
  at = load<u64>(s, AT);
  if (at === load<u64>(s, FRAME_END)) store<u64>(s, 0, FRAME_END);
  if (at < begin || at >= end) return need(1);
  const p = window + <usize>(at - begin);
  const have = end - at;
  op = <u32>load<u8>(p);
  const size = argumentSize(op);
  if (have < 1 + size) return need(1 + size);
  const free = load<u32>(s, STACK) - load<u32>(s, POOL);
  const depth = (load<u32>(s, BOTTOM) - load<u32>(s, STACK)) >> 2;
  if (free < HEADROOM + 4 * depth) return READ_MEMORY;
  if (depth > MAX_STACK) return refuse(PICKLE_LIMIT, REASON_STACK);
  const opcodes = load<u32>(s, OPCODES);
  if (opcodes === MAX_OPCODES) return refuse(PICKLE_LIMIT, REASON_OPCODES);

  let argument: u64 = 0;
  if (size === 1) argument = load<u8>(p, 1);
  else if (size === 2) argument = load<u16>(p, 1);
  else if (size === 4) argument = load<u32>(p, 1);
  else if (size === 8) argument = load<u64>(p, 1);
  next = at + 1 + size;

  if (at === load<u64>(s, FIRST)) {
    store<f64>(s, op === PROTO ? <f64>argument : 0, ANSWER_VALUE);
    if (op !== PROTO || argument - 2 > 3) return refuse(PICKLE_PROTOCOL, REASON_OPERANDS);
  } else {
    const status = execute(p, have, argument);
    if (status !== GO_ON) return status;
  }
  const frameEnd = load<u64>(s, FRAME_END);
  if (frameEnd !== 0 && next > frameEnd) return refuse(PICKLE_STRUCTURE, REASON_FRAME);
  store<u64>(s, next, AT);
  store<u32>(s, opcodes + 1, OPCODES);
  return GO_ON;
}

/** Bytes of the argument of fixed size that follows an opcode. */
function argumentSize(op: u32): u64 {
  switch (op) {
    case PROTO:
    case BININT1:
    case LONG1:
    case SHORT_BINUNICODE:
    case SHORT_BINBYTES:
    case SHORT_BINSTRING:
    case BINPUT:
    case BINGET:
      return 1;
    case BININT2:
      return 2;
    case BININT:
    case BINUNICODE:
    case BINBYTES:
    case BINSTRING:
    case LONG_BINPUT:
    case LONG_BINGET:
      return 4;
    case FRAME:
    case BINFLOAT:
    case BINBYTES8:
    case BYTEARRAY8:
      return 8;
  }
  return 0;
}

/** Asks for n bytes from the opcode on. */
function need(n: u64): u32 {
  const fileEnd = load<u64>(s, FILE_END);
  if (at + n > fileEnd) return refuseAt(PICKLE_TRUNCATED, REASON_OPERANDS, fileEnd);
  store<f64>(s, <f64>at, ANSWER_OFFSET);
  store<f64>(s, <f64>n, ANSWER_NEED);
  return READ_NEED;
}

function refuseAt(status: u32, reason: u32, offset: u64): u32 {
  store<f64>(s, <f64>offset, ANSWER_OFFSET);
  store<u32>(s, reason, ANSWER_DETAIL);
  store<u32>(s, op, ANSWER_OPCODE);
  return status;
}

/** Refuses the opcode. */
function refuse(status: u32, reason: u32): u32 {
  return refuseAt(status, reason, at);
}

/** Refuses for a number that is not what it should be. */
function refuseNumber(status: u32, reason: u32, value: f64, expected: f64): u32 {
  store<f64>(s, value, ANSWER_VALUE);
  store<f64>(s, expected, ANSWER_EXPECTED);
  return refuse(status, reason);
}

function tellText(address: usize, length: u32, field: usize): void {
  store<u32>(s + field, <u32>address);
  store<u32>(s + field, length, 4);
}

function execute(p: usize, have: u64, argument: u64): u32 {
  switch (op) {
    case NONE:
      return push(value(T_NONE, 0));
    case NEWFALSE:
      return push(value(T_FALSE, 0));
    case NEWTRUE:
      return push(value(T_TRUE, 0));
    case BININT1:
    case BININT2:
      return pushInt(argument);
    case BININT:
      return pushInt(<i64>(<i32>argument));
    case LONG1:
      return long(p + 2, have, argument);
    case BINFLOAT: {
      const node = value(T_FLOAT, 8);
      store<u64>(node, bswap<u64>(argument), NODE);
      return push(node);
    }
    case BINUNICODE:
    case SHORT_BINUNICODE:
      return span(T_TEXT, p, have, argument, PICKLE_TEXT_LIMIT);
    case SHORT_BINSTRING:
      return span(T_BYTES, p, have, argument, KEPT_STRING);
    case BINSTRING:
    case SHORT_BINBYTES:
    case BINBYTES:
    case BINBYTES8:
    case BYTEARRAY8:
      return span(T_BYTES, p, have, argument, KEPT_PAYLOAD);
    case EMPTY_LIST:
      return push(value(T_LIST, 16));
    case EMPTY_TUPLE:
      return tuple(0);
    case TUPLE1:
    case TUPLE2:
    case TUPLE3: {
      const n = op - TUPLE1 + 1;
      return available(0) < n ? refuse(PICKLE_STRUCTURE, REASON_STACK_EMPTY) : tuple(n);
    }
    case TUPLE:
      return closeMark() ? tuple(available(1)) : refuse(PICKLE_STRUCTURE, REASON_NO_MARK);
    case APPENDS:
      return closeMark() ? append(available(1)) : refuse(PICKLE_STRUCTURE, REASON_NO_MARK);
    case APPEND:
      return append(1);
    case MARK: {
      const marks = load<u32>(s, MARKS);
      if (marks === MAX_MARKS) return refuse(PICKLE_LIMIT, REASON_MARKS);
      store<u32>(s + (marks << 2), load<u32>(s, STACK), MARK_TABLE);
      store<u32>(s, marks + 1, MARKS);
      return GO_ON;
    }
    case BINPUT:
    case LONG_BINPUT:
      return put(argument);
    case MEMOIZE:
      return put(load<u32>(s, MEMO_COUNT));
    case BINGET:
    case LONG_BINGET: {
      const slot = argument < MAX_MEMO ? memoSlot(<u32>argument, false) : 0;
      const found = slot === 0 ? 0 : load<u32>(slot);
      store<f64>(s, <f64>argument, ANSWER_VALUE);
      return found === 0 ? refuse(PICKLE_STRUCTURE, REASON_MEMO_MISSING) : push(found);
    }
    case GLOBAL:
    case INST:
      return globalLine(p, have);
    case STACK_GLOBAL: {
      const name = pop();
      const module = pop();
      if (module === 0) return refuse(PICKLE_STRUCTURE, REASON_STACK_EMPTY);
      if (!isKeptText(module) || !isKeptText(name)) return refuse(PICKLE_STRUCTURE, REASON_OPERANDS);
      return global(copyOf(module), spanLength(module), copyOf(name), spanLength(name));
    }
    case REDUCE:
      return reduce();
    case BUILD:
      return build();
    case FRAME: {
      if (load<u64>(s, FRAME_END) !== 0) return refuse(PICKLE_STRUCTURE, REASON_FRAME);
      if (argument > load<u64>(s, FILE_END) - next) return refuse(PICKLE_TRUNCATED, REASON_FRAME);
      store<u64>(s, next + argument, FRAME_END);
      return GO_ON;
    }
    case STOP:
      return stop();
    case PROTO:
      return refuse(PICKLE_STRUCTURE, REASON_OPERANDS);
    case EMPTY_DICT: {
      // The state of a structured dtype holds a dict: say so instead of naming the opcode.
      const marks = load<u32>(s, MARKS);
      const below: u32 = marks === 0 ? 0 : load<u32>(s + ((marks - 1) << 2), MARK_TABLE);
      if (below !== 0 && below < load<u32>(s, BOTTOM) && typeOf(load<u32>(below)) === T_DTYPE) {
        tellText(0, 0, ANSWER_TEXT);
        return refuse(NPY_DTYPE_UNSUPPORTED, REASON_STRUCTURED);
      }
    }
  }
  return refuse(PICKLE_OPCODE, REASON_OPERANDS);
}

// --- memory

/** Bytes of the pool, zeroed. `step` has made sure that they are there. */
function take(bytes: u32): usize {
  const address = <usize>load<u32>(s, POOL);
  const rounded = (bytes + 3) & ~3;
  memory.fill(address, 0, rounded);
  store<u32>(s, <u32>address + rounded, POOL);
  return address;
}

function value(type: u32, bytes: u32): usize {
  const node = take(<u32>NODE + bytes);
  store<u32>(node, type);
  store<u64>(node, at, 4);
  return node;
}

function typeOf(node: usize): u32 {
  return load<u32>(node);
}

function positionOf(node: usize): u64 {
  return load<u64>(node, 4);
}

// --- stack

function push(node: usize): u32 {
  const top = load<u32>(s, STACK) - 4;
  store<u32>(top, <u32>node);
  store<u32>(s, top, STACK);
  return GO_ON;
}

/** The value on top, 0 when there is none above the innermost mark. */
function peek(): usize {
  return available(0) === 0 ? 0 : <usize>load<u32>(load<u32>(s, STACK));
}

function pop(): usize {
  const node = peek();
  if (node !== 0) store<u32>(s, load<u32>(s, STACK) + 4, STACK);
  return node;
}

/** Values above the innermost mark; `closed` is 1 just after closeMark, when it means the mark closed last. */
function available(closed: u32): u32 {
  const marks = load<u32>(s, MARKS) + closed;
  const floor = marks === 0 ? load<u32>(s, BOTTOM) : load<u32>(s + ((marks - 1) << 2), MARK_TABLE);
  return (floor - load<u32>(s, STACK)) >> 2;
}

function closeMark(): bool {
  const marks = load<u32>(s, MARKS);
  if (marks === 0) return false;
  store<u32>(s, marks - 1, MARKS);
  return true;
}

// --- memo: a tree of pages of sixteen, five levels deep. Its size follows the entries, not their numbers, and no
// choice of numbers makes it slow.

function memoPage(): usize {
  return take(64);
}

function memoSlot(index: u32, create: bool): usize {
  let page = <usize>load<u32>(s, MEMO);
  for (let shift: u32 = 16; shift > 0; shift -= 4) {
    const entry = page + (((index >> shift) & 15) << 2);
    page = <usize>load<u32>(entry);
    if (page === 0) {
      if (!create) return 0;
      page = memoPage();
      store<u32>(entry, <u32>page);
    }
  }
  return page + ((index & 15) << 2);
}

function put(index: u64): u32 {
  const node = peek();
  if (node === 0) return refuse(PICKLE_STRUCTURE, REASON_STACK_EMPTY);
  if (index >= MAX_MEMO) return refuseNumber(PICKLE_LIMIT, REASON_MEMO, <f64>index, <f64>MAX_MEMO);
  const slot = memoSlot(<u32>index, true);
  if (load<u32>(slot) === 0) store<u32>(s, load<u32>(s, MEMO_COUNT) + 1, MEMO_COUNT);
  store<u32>(slot, <u32>node);
  return GO_ON;
}

// --- numbers, texts, bytes

function pushInt(number: i64): u32 {
  const node = value(T_INT, 8);
  store<i64>(node, number, NODE);
  return push(node);
}

/** A two's complement integer of up to MAX_LONG bytes. */
function long(p: usize, have: u64, length: u64): u32 {
  if (length > MAX_LONG) return refuseNumber(PICKLE_LIMIT, REASON_LENGTH, <f64>length, <f64>MAX_LONG);
  if (have < 2 + length) return need(2 + length);
  next += length;
  if (length === 0) return pushInt(0);
  // The first eight bytes are the number when all others only repeat the sign.
  const isNegative = load<i8>(p + <usize>length - 1) < 0;
  const filler: u8 = isNegative ? 0xff : 0;
  let low: u64 = 0;
  let isLong = false;
  for (let i: u32 = 0; i < 16; i++) {
    const byte = i < <u32>length ? load<u8>(p + i) : filler;
    if (i < 8) low |= (<u64>byte) << ((<u64>i) << 3);
    else if (byte !== filler) isLong = true;
  }
  if (!isLong && <i64>low < 0 === isNegative) return pushInt(low);
  const node = value(T_LONG, 8);
  store<u32>(node, isNegative ? 1 : 0, NODE);
  return push(node);
}

/** Text or bytes of the file: kept when they are short, else skipped. */
function span(type: u32, p: usize, have: u64, length: u64, kept: u64): u32 {
  if (length > MAX_SAFE) return refuseNumber(PICKLE_LIMIT, REASON_LENGTH, <f64>length, <f64>MAX_SAFE);
  const head = next - at;
  const left = load<u64>(s, FILE_END) - next;
  if (length > left) return refuseNumber(PICKLE_TRUNCATED, REASON_LENGTH, <f64>length, <f64>left);
  if (length <= kept && have < head + length) return need(head + length);
  const node = newSpan(type, next, length);
  if (length <= kept) {
    const copy = take(max<u32>(8, <u32>length)); // read as 8 bytes by numberOf
    memory.copy(copy, p + <usize>head, <usize>length);
    store<u32>(node, <u32>copy, COPY);
  }
  store<u32>(node, op === SHORT_BINSTRING ? 1 : 0, IS_STRING);
  next += length;
  return push(node);
}

function newSpan(type: u32, offset: u64, length: u64): usize {
  const node = value(type, 28);
  store<u64>(node, offset, OFFSET);
  store<u64>(node, length, LENGTH);
  return node;
}

function copyOf(span: usize): usize {
  return <usize>load<u32>(span, COPY);
}

function spanLength(span: usize): u32 {
  return <u32>load<u64>(span, LENGTH);
}

/** Text that is kept, also as Python 2 writes it. */
function isKeptText(node: usize): bool {
  const type = typeOf(node);
  return (type === T_TEXT || (type === T_BYTES && load<u32>(node, IS_STRING) !== 0)) && copyOf(node) !== 0;
}

function isKept(node: usize, text: string): bool {
  return isKeptText(node) && isText(copyOf(node), spanLength(node), text);
}

// --- names

/** GLOBAL and INST: two lines of text. */
function globalLine(p: usize, have: u64): u32 {
  const first = lineLength(p + 1, have - 1);
  if (first < 0) return lineFault(have - 1, have);
  const name = p + 2 + first;
  const left = have - 2 - first;
  const second = lineLength(name, left);
  if (second < 0) return lineFault(left, have);
  next += first + second + 2;
  return global(p + 1, first, name, second);
}

/** Bytes before the line feed, -1 when there is none within the limit. */
function lineLength(p: usize, have: u64): i32 {
  const limit = <u32>min<u64>(have, MAX_LINE + 1);
  for (let i: u32 = 0; i < limit; i++) if (load<u8>(p + i) === 0x0a) return i;
  return -1;
}

function lineFault(lineHave: u64, have: u64): u32 {
  if (lineHave > MAX_LINE) return refuse(PICKLE_LIMIT, REASON_LINE);
  // Two lines of the longest kind, or what the file has; one byte more than there is when it has no more.
  const left = load<u64>(s, FILE_END) - at;
  return need(max<u64>(min<u64>(left, 3 + 2 * MAX_LINE), have + 1));
}

/** Turns a name into its tag, or refuses it: here, where it is imported, although nothing may ever use it. */
function global(module: usize, moduleLength: u32, name: usize, nameLength: u32): u32 {
  const tag = tagOf(module, moduleLength, name, nameLength);
  if (tag === 0) {
    tellText(module, moduleLength, ANSWER_TEXT);
    tellText(name, nameLength, ANSWER_NAME);
    return refuse(PICKLE_GLOBAL, REASON_OPERANDS);
  }
  if (op === INST) return refuse(PICKLE_OPCODE, REASON_OPERANDS);
  const node = value(T_TAG, 4);
  store<u32>(node, tag, NODE);
  return push(node);
}

function tagOf(module: usize, moduleLength: u32, name: usize, nameLength: u32): u32 {
  if (isText(module, moduleLength, 'numpy')) {
    if (isText(name, nameLength, 'ndarray')) return TAG_NDARRAY;
    if (isText(name, nameLength, 'dtype')) return TAG_DTYPE;
  } else if (
    isText(module, moduleLength, 'numpy.core.multiarray') ||
    isText(module, moduleLength, 'numpy._core.multiarray')
  ) {
    if (isText(name, nameLength, '_reconstruct')) return TAG_RECONSTRUCT;
    if (isText(name, nameLength, 'scalar')) return TAG_SCALAR;
  } else if (
    isText(module, moduleLength, 'numpy.core.numeric') ||
    isText(module, moduleLength, 'numpy._core.numeric')
  ) {
    if (isText(name, nameLength, '_frombuffer')) return TAG_FROMBUFFER;
  } else if (isText(module, moduleLength, '_codecs')) {
    if (isText(name, nameLength, 'encode')) return TAG_ENCODE;
  } else if (isText(module, moduleLength, '__builtin__') || isText(module, moduleLength, 'builtins')) {
    if (isText(name, nameLength, 'bytes')) return TAG_BYTES;
  } else if (isText(module, moduleLength, 'ml_dtypes')) {
    if (isText(name, nameLength, 'bfloat16')) return TAG_BFLOAT16;
  }
  return 0;
}

function isTag(node: usize, tag: u32): bool {
  return typeOf(node) === T_TAG && load<u32>(node, NODE) === tag;
}

// --- containers

/** Takes the top n values into a chunk. Lists among them are complete from here on, so that no cycle can arise. */
function collect(n: u32): usize {
  const chunk = take(8 + 4 * n);
  store<u32>(chunk, n);
  const top = load<u32>(s, STACK);
  for (let i: u32 = 0; i < n; i++) {
    const item = load<u32>(top + ((n - 1 - i) << 2));
    if (typeOf(item) === T_LIST) store<u32>(item, 1, CLOSED);
    store<u32>(chunk + (i << 2), item, 8);
  }
  store<u32>(s, top + (n << 2), STACK);
  return chunk;
}

function tuple(n: u32): u32 {
  const node = value(T_TUPLE, 8);
  store<u32>(node, n, COUNT);
  store<u32>(node, <u32>collect(n), CHUNK);
  return push(node);
}

function append(n: u32): u32 {
  if (op === APPEND && available(0) < 1) return refuse(PICKLE_STRUCTURE, REASON_STACK_EMPTY);
  const chunk = collect(n);
  const list = peek();
  if (list === 0) return refuse(PICKLE_STRUCTURE, REASON_STACK_EMPTY);
  if (typeOf(list) !== T_LIST) return refuse(PICKLE_STRUCTURE, REASON_OPERANDS);
  if (load<u32>(list, CLOSED) !== 0) return refuse(PICKLE_STRUCTURE, REASON_CYCLE);
  if (n === 0) return GO_ON;
  const last = load<u32>(list, LAST);
  if (last === 0) store<u32>(list, <u32>chunk, CHUNK);
  else store<u32>(last, <u32>chunk, 4);
  store<u32>(list, <u32>chunk, LAST);
  store<u32>(list, load<u32>(list, COUNT) + n, COUNT);
  return GO_ON;
}

/** The item of a tuple or list; the caller knows that there is one. */
function itemOf(container: usize, index: u32): usize {
  let chunk = load<u32>(container, CHUNK);
  for (; index >= load<u32>(chunk); chunk = load<u32>(chunk, 4)) index -= load<u32>(chunk);
  return <usize>load<u32>(chunk + (index << 2), 8);
}

function isTuple(node: usize, count: u32): bool {
  return typeOf(node) === T_TUPLE && load<u32>(node, COUNT) === count;
}

function isInt(node: usize, number: i64): bool {
  return typeOf(node) === T_INT && load<i64>(node, NODE) === number;
}

/** A tuple of the one int. */
function isTupleOf(node: usize, number: i64): bool {
  return isTuple(node, 1) && isInt(itemOf(node, 0), number);
}

/** 0 or 1 for a bool (an int in Python 2), 2 for anything else. */
function flagOf(node: usize): u32 {
  const type = typeOf(node);
  if (type === T_FALSE || isInt(node, 0)) return 0;
  return type === T_TRUE || isInt(node, 1) ? 1 : 2;
}

// --- REDUCE and BUILD: what may be called with what, and what may be filled with what

function reduce(): u32 {
  const a = pop();
  const callable = pop();
  if (callable === 0) return refuse(PICKLE_STRUCTURE, REASON_STACK_EMPTY);
  if (typeOf(callable) !== T_TAG || typeOf(a) !== T_TUPLE) return refuse(PICKLE_STRUCTURE, REASON_OPERANDS);
  const count = load<u32>(a, COUNT);
  switch (load<u32>(callable, NODE)) {
    case TAG_RECONSTRUCT:
      if (count === 3 && isTag(itemOf(a, 0), TAG_NDARRAY) && isTupleOf(itemOf(a, 1), 0)) {
        const kind = itemOf(a, 2);
        if (typeOf(kind) === T_BYTES && copyOf(kind) !== 0 && isText(copyOf(kind), spanLength(kind), 'b')) {
          return push(value(T_ARRAY, 20));
        }
      }
      break;
    case TAG_DTYPE:
      if (count === 3 && flagOf(itemOf(a, 1)) === 0 && flagOf(itemOf(a, 2)) === 1)
        return newDtype(itemOf(a, 0));
      break;
    case TAG_SCALAR:
      if (count === 2) return newScalar(itemOf(a, 0), itemOf(a, 1));
      break;
    case TAG_FROMBUFFER:
      if (count === 4) {
        const order = itemOf(a, 3);
        const isFortran = isKept(order, 'F');
        if (isFortran || isKept(order, 'C')) {
          const array = value(T_ARRAY, 20);
          push(array);
          return fill(array, itemOf(a, 2), itemOf(a, 1), isFortran ? 1 : 0, itemOf(a, 0));
        }
      }
      break;
    case TAG_ENCODE:
      if (count === 2 && typeOf(itemOf(a, 0)) === T_TEXT && isKept(itemOf(a, 1), 'latin1')) {
        return encode(itemOf(a, 0));
      }
      break;
    case TAG_BYTES:
      if (count === 0) {
        const node = newSpan(T_BYTES, at, 0);
        store<u32>(node, <u32>take(8), COPY);
        return push(node);
      }
      break;
  }
  return refuse(PICKLE_STRUCTURE, REASON_OPERANDS);
}

function newDtype(code: usize): u32 {
  let dtype: u32 = DTYPE_BFLOAT16;
  if (!isTag(code, TAG_BFLOAT16)) {
    if (!isKeptText(code)) return refuse(PICKLE_STRUCTURE, REASON_OPERANDS);
    dtype = dtypeOf(copyOf(code), spanLength(code));
    if (dtype === 0) {
      tellText(copyOf(code), spanLength(code), ANSWER_TEXT);
      return refuseAt(NPY_DTYPE_UNSUPPORTED, REASON_OPERANDS, positionOf(code));
    }
  }
  const node = value(T_DTYPE, 12);
  store<u32>(node, dtype, DTYPE);
  return push(node);
}

function isBuiltDtype(node: usize): bool {
  return typeOf(node) === T_DTYPE && load<u32>(node, BUILT) !== 0;
}

function newScalar(dtype: usize, bytes: usize): u32 {
  if (!isBuiltDtype(dtype) || typeOf(bytes) !== T_BYTES) return refuse(PICKLE_STRUCTURE, REASON_OPERANDS);
  const code = load<u32>(dtype, DTYPE);
  if (code === DTYPE_OBJECT) return refuse(WEIGHTS_FORM, REASON_OBJECT);
  const length = load<u64>(bytes, LENGTH);
  const size = itemSizeOf(code);
  if (length !== size) return refuseNumber(PICKLE_MISMATCH, REASON_OPERANDS, <f64>length, <f64>size);
  const node = value(T_SCALAR, 20);
  store<u32>(node, code, DTYPE);
  store<u32>(node, load<u32>(dtype, FLAGS), FLAGS);
  store<u32>(node, <u32>bytes, PAYLOAD);
  return push(node);
}

/** encode(text, 'latin1'): how protocol 2 of Python 3 spells bytes. */
function encode(text: usize): u32 {
  const length = load<u64>(text, LENGTH);
  const node = newSpan(T_BYTES, load<u64>(text, OFFSET), length);
  store<u32>(node, 1, IS_ENCODED);
  const from = copyOf(text);
  if (from !== 0) {
    const copy = take(max<u32>(8, <u32>length));
    let n: u32 = 0;
    for (let i: u32 = 0; i < <u32>length; i++) {
      let byte = <u32>load<u8>(from + i);
      if (byte >= 0x80) {
        const low = <u32>load<u8>(from + ++i);
        if ((byte & 0xfe) !== 0xc2 || (low & 0xc0) !== 0x80) return refuse(PICKLE_STRUCTURE, REASON_OPERANDS);
        byte = ((byte & 3) << 6) | (low & 0x3f);
      }
      store<u8>(copy + n++, byte);
    }
    store<u64>(node, n, LENGTH);
    store<u32>(node, <u32>copy, COPY);
  }
  return push(node);
}

function build(): u32 {
  const state = pop();
  const target = peek();
  if (target === 0) return refuse(PICKLE_STRUCTURE, REASON_STACK_EMPTY);
  const type = typeOf(target);
  if (typeOf(state) === T_TUPLE && load<u32>(target, BUILT) === 0) {
    if (type === T_DTYPE) return buildDtype(target, state);
    if (type === T_ARRAY) return buildArray(target, state);
  }
  return refuse(PICKLE_STRUCTURE, REASON_OPERANDS);
}

/** (3, order, None, None, None, -1, -1, flags); the sizes are 2, 1 or 2, 2 for types that NumPy does not own. */
function buildDtype(dtype: usize, state: usize): u32 {
  if (!isTuple(state, 8) || !isInt(itemOf(state, 0), 3)) return refuse(PICKLE_STRUCTURE, REASON_DTYPE_STATE);
  for (let i = 2; i < 5; i++) {
    if (typeOf(itemOf(state, i)) !== T_NONE) {
      tellText(0, 0, ANSWER_TEXT);
      return refuse(NPY_DTYPE_UNSUPPORTED, REASON_STRUCTURED);
    }
  }
  const order = itemOf(state, 1);
  const isBig = isKept(order, '>');
  const code = load<u32>(dtype, DTYPE);
  const isVoid = code === DTYPE_VOID16 || code === DTYPE_BFLOAT16;
  const alignment = itemOf(state, 6);
  if (
    !(isBig || isKept(order, '<') || isKept(order, '|') || isKept(order, '=')) ||
    !isInt(itemOf(state, 5), isVoid ? 2 : -1) ||
    !(isVoid ? isInt(alignment, 1) || isInt(alignment, 2) : isInt(alignment, -1)) ||
    typeOf(itemOf(state, 7)) !== T_INT
  ) {
    return refuse(PICKLE_STRUCTURE, REASON_DTYPE_STATE);
  }
  store<u32>(dtype, isBig ? TENSOR_BIG_ENDIAN : 0, FLAGS);
  store<u32>(dtype, 1, BUILT);
  return GO_ON;
}

/** (1, shape, dtype, is Fortran order, payload) */
function buildArray(array: usize, state: usize): u32 {
  if (!isTuple(state, 5) || !isInt(itemOf(state, 0), 1)) return refuse(PICKLE_STRUCTURE, REASON_ARRAY_STATE);
  const shape = itemOf(state, 1);
  const dtype = itemOf(state, 2);
  const order = flagOf(itemOf(state, 3));
  const payload = itemOf(state, 4);
  if (order === 2 || !isBuiltDtype(dtype)) return refuse(PICKLE_STRUCTURE, REASON_ARRAY_STATE);
  if (load<u32>(dtype, DTYPE) !== DTYPE_OBJECT) return fill(array, shape, dtype, order, payload);

  // Objects stand in the outermost array only, which is the only value while it is filled.
  if (load<u32>(s, STACK) + 4 !== load<u32>(s, BOTTOM)) return refuse(WEIGHTS_FORM, REASON_OBJECT);
  if (typeOf(payload) !== T_LIST) return refuse(PICKLE_STRUCTURE, REASON_ARRAY_STATE);
  if (!isTupleOf(shape, 2) || load<u32>(payload, COUNT) !== 2)
    return refuse(WEIGHTS_FORM, REASON_OUTER_SHAPE);
  store<u32>(array, DTYPE_OBJECT, DTYPE);
  store<u32>(array, <u32>payload, PAYLOAD);
  store<u32>(array, 1, BUILT);
  return GO_ON;
}

/** Fills an array of numbers, when shape, dtype and payload agree. */
function fill(array: usize, shape: usize, dtype: usize, order: u32, payload: usize): u32 {
  if (typeOf(shape) !== T_TUPLE || !isBuiltDtype(dtype) || typeOf(payload) !== T_BYTES) {
    return refuse(PICKLE_STRUCTURE, REASON_ARRAY_STATE);
  }
  const code = load<u32>(dtype, DTYPE);
  if (code === DTYPE_OBJECT) return refuse(WEIGHTS_FORM, REASON_OBJECT);
  const dimensions = load<u32>(shape, COUNT);
  if (dimensions > <u32>MAX_DIMENSIONS)
    return refuseNumber(NPY_SHAPE, REASON_SHAPE, <f64>dimensions, MAX_DIMENSIONS);
  let total: u64 = itemSizeOf(code);
  let isEmpty = false;
  for (let i: u32 = 0; i < dimensions; i++) {
    const item = itemOf(shape, i);
    const type = typeOf(item);
    if (type !== T_INT && type !== T_LONG) return refuse(PICKLE_STRUCTURE, REASON_SHAPE);
    const isNegative = type === T_INT ? load<i64>(item, NODE) < 0 : load<u32>(item, NODE) !== 0;
    if (isNegative) return refuseAt(NPY_SHAPE, REASON_OPERANDS, positionOf(item));
    const dimension: u64 = type === T_INT ? load<i64>(item, NODE) : u64.MAX_VALUE;
    if (dimension === 0) isEmpty = true;
    total = growSize(total, dimension);
    if (total > MAX_SAFE) return refuseAt(NPY_SHAPE_OVERFLOW, REASON_OPERANDS, positionOf(item));
  }
  if (isEmpty) total = 0;
  if (total > 0 && load<u32>(payload, IS_ENCODED) !== 0)
    return refuseAt(PICKLE_PROTOCOL, REASON_TEXT_PAYLOAD, positionOf(payload));
  const length = load<u64>(payload, LENGTH);
  if (length !== total) return refuseNumber(PICKLE_MISMATCH, REASON_OPERANDS, <f64>length, <f64>total);
  store<u32>(array, code, DTYPE);
  store<u32>(array, load<u32>(dtype, FLAGS) | order, FLAGS); // TENSOR_FORTRAN is 1
  store<u32>(array, <u32>shape, SHAPE);
  store<u32>(array, <u32>payload, PAYLOAD);
  store<u32>(array, 1, BUILT);
  return GO_ON;
}

// --- the result

function stop(): u32 {
  const array = peek();
  if (array === 0) return refuse(PICKLE_STRUCTURE, REASON_STACK_EMPTY);
  if (load<u32>(s, STACK) + 4 !== load<u32>(s, BOTTOM)) return refuse(PICKLE_STRUCTURE, REASON_RESULTS);
  const frameEnd = load<u64>(s, FRAME_END);
  if (frameEnd !== 0 && frameEnd !== next) return refuse(PICKLE_STRUCTURE, REASON_FRAME);
  if (next !== load<u64>(s, FILE_END)) return refuseAt(NPY_DATA_TRAILING, REASON_OPERANDS, next);
  if (typeOf(array) === T_ARRAY && load<u32>(array, BUILT) === 0)
    return refuseAt(PICKLE_STRUCTURE, REASON_NOT_BUILT, positionOf(array));
  if (typeOf(array) !== T_ARRAY || load<u32>(array, DTYPE) !== DTYPE_OBJECT) {
    return refuseAt(WEIGHTS_FORM, REASON_OUTER, positionOf(array));
  }
  const list = <usize>load<u32>(array, PAYLOAD);
  const parameters = itemOf(list, 1);
  const type = typeOf(parameters);
  if (type !== T_LIST && type !== T_TUPLE)
    return refuseAt(WEIGHTS_FORM, REASON_PARAMETERS, positionOf(parameters));
  open(parameters);
  return weigh(itemOf(list, 0));
}

/** The weighting: int, float, a scalar of NumPy or an array of one element. Never bool, None, text. */
function weigh(node: usize): u32 {
  const type = typeOf(node);
  let isFloat = type === T_FLOAT;
  let number: f64 = 0;
  let isSafe = true;
  if (isFloat) {
    number = load<f64>(node, NODE);
  } else if (type === T_INT) {
    const integer = load<i64>(node, NODE);
    number = <f64>integer;
    isSafe = <u64>(integer + MAX_SAFE) <= 2 * MAX_SAFE;
  } else if (type === T_LONG) {
    isSafe = false;
  } else if (type === T_SCALAR || type === T_ARRAY) {
    const dtype = load<u32>(node, DTYPE);
    const payload = <usize>load<u32>(node, PAYLOAD);
    if (type === T_ARRAY && load<u32>(node, BUILT) === 0)
      return refuseAt(PICKLE_STRUCTURE, REASON_NOT_BUILT, positionOf(node));
    if (
      dtype === DTYPE_BOOL ||
      dtype >= <u32>DTYPE_COMPLEX64 ||
      copyOf(payload) === 0 ||
      spanLength(payload) !== itemSizeOf(dtype)
    ) {
      return refuseAt(WEIGHTS_FORM, REASON_WEIGHTING, positionOf(node));
    }
    isFloat = dtype >= <u32>DTYPE_FLOAT16;
    const big = load<u32>(node, FLAGS) & TENSOR_BIG_ENDIAN;
    number = numberOf(dtype, load<u64>(copyOf(payload)), big !== 0);
    isSafe = isFloat || abs(number) <= <f64>MAX_SAFE;
  } else {
    return refuseAt(WEIGHTS_FORM, REASON_WEIGHTING, positionOf(node));
  }
  if (!isSafe) return refuseAt(WEIGHTS_FORM, REASON_WEIGHTING_RANGE, positionOf(node));
  store<f64>(s, number, ANSWER_VALUE);
  store<u32>(s, isFloat ? 1 : 0, ANSWER_DETAIL);
  return READ_DONE;
}

/** The nearest binary64 of an element of up to 8 bytes: above MAX_SAFE exactly when the integer is. */
function numberOf(dtype: u32, bits: u64, isBig: bool): f64 {
  const spare = <u64>(64 - (itemSizeOf(dtype) << 3));
  if (isBig) bits = bswap<u64>(bits) >> spare;
  bits = bits << spare; // the element's bits on top, nothing below
  if (dtype === DTYPE_FLOAT64) return reinterpret<f64>(bits);
  if (dtype === DTYPE_FLOAT32 || dtype === DTYPE_BFLOAT16) return <f64>reinterpret<f32>(<u32>(bits >> 32));
  if (dtype === DTYPE_FLOAT16) {
    // Moves exponent and fraction to where binary64 has them; 2^1008 makes up for the biases, also of denormals.
    const magnitude = (bits << 1) >> 7;
    const isNumber = (bits & 0x7c00_0000_0000_0000) !== 0x7c00_0000_0000_0000;
    const number = isNumber
      ? reinterpret<f64>(magnitude) * reinterpret<f64>(0x7ef0_0000_0000_0000)
      : reinterpret<f64>(magnitude | 0x7ff0_0000_0000_0000);
    return <i64>bits < 0 ? -number : number;
  }
  return dtype & 1 ? <f64>(bits >> spare) : <f64>(<i64>bits >> <i64>spare); // codes of signed integers are even
}

// --- handing out

/**
 * Hands out the tensors in order, after walkPickle answered READ_DONE: fills `out` (8-byte aligned, `bytes` long, at
 * least TENSOR_SHAPE + 8 * MAX_DIMENSIONS) with as many records as fit. ANSWER_COUNT of them are there with READ_DONE
 * and READ_MORE. Nested lists and tuples are flattened, `[name, array]` pairs give names.
 */
export function takeTensors(state: usize, out: usize, bytes: u32): u32 {
  s = state;
  const end = out + bytes;
  let count: u32 = 0;
  for (let depth = load<u32>(s, DEPTH); depth > 0; depth = load<u32>(s, DEPTH)) {
    const frame = s + OPEN_TABLE + ((depth - 1) << 3);
    const chunk = <usize>load<u32>(frame);
    const index = load<u32>(frame, 4);
    if (chunk === 0 || index === load<u32>(chunk)) {
      const following: u32 = chunk === 0 ? 0 : load<u32>(chunk, 4);
      store<u32>(frame, following);
      store<u32>(frame, 0, 4);
      if (following === 0) store<u32>(s, depth - 1, DEPTH);
      continue;
    }
    if (end - out < <usize>(TENSOR_SHAPE + 8 * MAX_DIMENSIONS)) {
      store<u32>(s, count, ANSWER_COUNT);
      return READ_MORE;
    }
    const visits = load<u32>(s, VISITS) + 1;
    store<u32>(s, visits, VISITS);
    const tensors = load<u32>(s, TENSORS);
    store<u32>(s, tensors, ANSWER_COUNT);
    const item = <usize>load<u32>(chunk + (index << 2), 8);
    if (visits > MAX_VISITS) return refuseAt(PICKLE_LIMIT, REASON_TENSORS, positionOf(item));

    let name: usize = 0;
    let array = item;
    if (isPair(chunk, index)) {
      name = item;
      array = <usize>load<u32>(chunk, 12);
      store<u32>(frame, 2, 4);
    } else {
      store<u32>(frame, index + 1, 4);
    }
    const type = typeOf(array);
    if (type === T_LIST || type === T_TUPLE) {
      if (depth === MAX_NESTING) return refuseAt(PICKLE_LIMIT, REASON_NESTING, positionOf(array));
      open(array);
      continue;
    }
    if (type !== T_ARRAY) return refuseAt(WEIGHTS_FORM, REASON_PARAMETER, positionOf(array));
    if (load<u32>(array, BUILT) === 0) return refuseAt(PICKLE_STRUCTURE, REASON_NOT_BUILT, positionOf(array));
    if (load<u32>(array, DTYPE) === DTYPE_OBJECT)
      return refuseAt(PICKLE_STRUCTURE, REASON_CYCLE, positionOf(array));
    if (name !== 0 && copyOf(name) === 0) return refuseAt(PICKLE_LIMIT, REASON_NAME, positionOf(name));
    if (tensors === MAX_TENSORS) return refuseAt(PICKLE_LIMIT, REASON_TENSORS, positionOf(array));
    store<u32>(s, tensors + 1, TENSORS);
    out = writeRecord(out, array, name);
    count++;
  }
  store<u32>(s, count, ANSWER_COUNT);
  return READ_DONE;
}

function open(container: usize): void {
  const depth = load<u32>(s, DEPTH);
  const frame = s + OPEN_TABLE + (depth << 3);
  store<u32>(frame, load<u32>(container, CHUNK));
  store<u32>(frame, 0, 4);
  store<u32>(s, depth + 1, DEPTH);
}

/** Whether the open container is just [text, array], about to begin. */
function isPair(chunk: usize, index: u32): bool {
  if (index !== 0 || load<u32>(chunk) !== 2 || load<u32>(chunk, 4) !== 0) return false;
  const first = <usize>load<u32>(chunk, 8);
  const isName = typeOf(first) === T_TEXT || (typeOf(first) === T_BYTES && load<u32>(first, IS_STRING) !== 0);
  return isName && typeOf(load<u32>(chunk, 12)) === T_ARRAY;
}

function writeRecord(out: usize, array: usize, name: usize): usize {
  const payload = <usize>load<u32>(array, PAYLOAD);
  const shape = <usize>load<u32>(array, SHAPE);
  const dimensions = load<u32>(shape, COUNT);
  store<f64>(out, <f64>load<u64>(payload, OFFSET), TENSOR_OFFSET);
  store<f64>(out, <f64>load<u64>(payload, LENGTH), TENSOR_LENGTH);
  store<u32>(out, load<u32>(array, DTYPE), TENSOR_DTYPE);
  store<u32>(out, load<u32>(array, FLAGS), TENSOR_FLAGS);
  store<u32>(out, dimensions, TENSOR_DIMENSIONS);
  store<u32>(out, name === 0 ? 0 : <u32>copyOf(name), TENSOR_NAME);
  store<u32>(out, name === 0 ? 0 : spanLength(name), TENSOR_NAME + 4);
  for (let i: u32 = 0; i < dimensions; i++) {
    store<f64>(out + (i << 3), <f64>load<i64>(itemOf(shape, i), NODE), TENSOR_SHAPE);
  }
  return out + TENSOR_SHAPE + (dimensions << 3);
}
