// The walker of the pickle in a weight file: [weighting, [arrays]] as np.save emits it, or a state dict of torch.save.
//
// A pickle is a program for a stack machine. This machine knows some forty opcodes and a handful of names, imports nothing,
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
  ANSWER_NEED,
  ANSWER_OFFSET,
  ANSWER_TEXT,
  ANSWER_VALUE,
  NPY_DTYPE_UNSUPPORTED,
  PICKLE_LIMIT,
  PICKLE_OPCODE,
  PICKLE_PROTOCOL,
  PICKLE_STATE_BYTES,
  PICKLE_STRUCTURE,
  PICKLE_TEXT_LIMIT,
  PICKLE_TRUNCATED,
  READ_MEMORY,
  READ_NEED,
  REASON_CYCLE,
  REASON_FRAME,
  REASON_LENGTH,
  REASON_LINE,
  REASON_MARKS,
  REASON_MEMO,
  REASON_MEMO_MISSING,
  REASON_NO_MARK,
  REASON_OPCODES,
  REASON_OPERANDS,
  REASON_STACK,
  REASON_STACK_EMPTY,
  REASON_STRUCTURED,
} from './abi';
import { build, global, reduce } from './pickle-calls';
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
  BINPERSID,
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
  SETITEM,
  SETITEMS,
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
import { stop } from './pickle-tensors';
import { storage } from './pickle-torch';
import {
  AT,
  at,
  available,
  BOTTOM,
  CHUNK,
  CLOSED,
  COPY,
  COUNT,
  closeMark,
  collect,
  copyOf,
  enterOpcode,
  enterState,
  FILE_END,
  FIRST,
  FRAME_END,
  GO_ON,
  IS_STRING,
  isKeptText,
  LAST,
  MARK_TABLE,
  MARKS,
  MAX_MARKS,
  MEMO,
  MEMO_COUNT,
  memoPage,
  memoSlot,
  NODE,
  newSpan,
  OPCODES,
  op,
  POOL,
  peek,
  pop,
  push,
  refuse,
  refuseAt,
  refuseNumber,
  STACK,
  STATE_BYTES,
  s,
  spanLength,
  T_BYTES,
  T_DICT,
  T_DTYPE,
  T_FALSE,
  T_FLOAT,
  T_INT,
  T_LIST,
  T_LONG,
  T_NONE,
  T_TEXT,
  T_TRUE,
  T_TUPLE,
  TORCH,
  take,
  tellText,
  typeOf,
  value,
} from './pickle-values';
import { MAX_SAFE } from './text';

const MAX_STACK: u32 = 65_536;
const MAX_MEMO: u64 = 1 << 20;
const MAX_OPCODES: u32 = 1 << 22;
const MAX_LINE: u32 = 256;
const MAX_LONG: u64 = 16;
/** A payload of so few bytes may be a weighting: kept. */
const KEPT_PAYLOAD: u64 = 16;
/** Text that Python 2 wrote: names, dtypes. */
const KEPT_STRING: u64 = 255;

/** Room that any opcode leaves itself before it begins, beside one word for each value on the stack. */
const HEADROOM: u32 = 2 * PICKLE_TEXT_LIMIT + 1024;

/** Position behind the opcode at work. */
let next: u64 = 0;

/**
 * Prepares a walk.
 *
 * state: `bytes` bytes of arena, at least PICKLE_STATE_BYTES, 16-byte aligned.
 * begin: position of the pickle in a file of `fileLength` bytes, or of which it may use so many.
 * torch: 1 for the pickle of a torch archive, 0 for that of a weight file.
 */
export function openPickle(state: usize, bytes: u32, begin: f64, fileLength: f64, torch: u32): void {
  enterState(state);
  memory.fill(state, 0, PICKLE_STATE_BYTES);
  store<u64>(s, <u64>begin, AT);
  store<u64>(s, <u64>begin, FIRST);
  store<u64>(s, <u64>fileLength, FILE_END);
  store<u32>(s, <u32>(state + bytes), STACK);
  store<u32>(s, <u32>(state + bytes), BOTTOM);
  store<u32>(s, <u32>(state + STATE_BYTES), POOL);
  store<u32>(s, <u32>memoPage(), MEMO);
  store<u32>(s, torch, TORCH);
}

/**
 * Walks on: the window holds `length` bytes of the file from `offset` on. Answers a READ_ status or a refusal; the
 * answer stands at the begin of the state. With READ_DONE the weighting is in ANSWER_VALUE, and takeTensors follows.
 */
export function walkPickle(state: usize, window: usize, length: u32, offset: f64): u32 {
  enterState(state);
  let status = GO_ON;
  while (status === GO_ON) status = step(window, <u64>offset, <u64>offset + length);
  return status;
}

function step(window: usize, begin: u64, end: u64): u32 {
  enterOpcode(load<u64>(s, AT), 0);
  if (at === load<u64>(s, FRAME_END)) store<u64>(s, 0, FRAME_END);
  if (at < begin || at >= end) return need(1);
  const p = window + <usize>(at - begin);
  const have = end - at;
  enterOpcode(at, <u32>load<u8>(p));
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
      return closeMark() ? append(T_LIST, available(1)) : refuse(PICKLE_STRUCTURE, REASON_NO_MARK);
    case APPEND:
      return available(0) < 1 ? refuse(PICKLE_STRUCTURE, REASON_STACK_EMPTY) : append(T_LIST, 1);
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
      return stop(next);
    case PROTO:
      return refuse(PICKLE_STRUCTURE, REASON_OPERANDS);
    case BINPERSID:
      if (load<u32>(s, TORCH) !== 0) return storage();
      break;
    case SETITEM:
      if (load<u32>(s, TORCH) === 0) break;
      return available(0) < 2 ? refuse(PICKLE_STRUCTURE, REASON_STACK_EMPTY) : append(T_DICT, 2);
    case SETITEMS: {
      if (load<u32>(s, TORCH) === 0) break;
      if (!closeMark()) return refuse(PICKLE_STRUCTURE, REASON_NO_MARK);
      const n = available(1);
      return n & 1 ? refuse(PICKLE_STRUCTURE, REASON_OPERANDS) : append(T_DICT, n);
    }
    case EMPTY_DICT: {
      if (load<u32>(s, TORCH) !== 0) return push(value(T_DICT, 16));
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

function put(index: u64): u32 {
  const node = peek();
  if (node === 0) return refuse(PICKLE_STRUCTURE, REASON_STACK_EMPTY);
  if (index >= MAX_MEMO) return refuseNumber(PICKLE_LIMIT, REASON_MEMO, <f64>index, <f64>MAX_MEMO);
  const slot = memoSlot(<u32>index, true);
  if (load<u32>(slot) === 0) store<u32>(s, load<u32>(s, MEMO_COUNT) + 1, MEMO_COUNT);
  store<u32>(slot, <u32>node);
  return GO_ON;
}

function tuple(n: u32): u32 {
  const node = value(T_TUPLE, 8);
  store<u32>(node, n, COUNT);
  store<u32>(node, <u32>collect(n), CHUNK);
  return push(node);
}

/** Adds the top n values to the list or dict below them. */
function append(type: u32, n: u32): u32 {
  const chunk = collect(n);
  const list = peek();
  if (list === 0) return refuse(PICKLE_STRUCTURE, REASON_STACK_EMPTY);
  if (typeOf(list) !== type) return refuse(PICKLE_STRUCTURE, REASON_OPERANDS);
  if (load<u32>(list, CLOSED) !== 0) return refuse(PICKLE_STRUCTURE, REASON_CYCLE);
  if (n === 0) return GO_ON;
  const last = load<u32>(list, LAST);
  if (last === 0) store<u32>(list, <u32>chunk, CHUNK);
  else store<u32>(last, <u32>chunk, 4);
  store<u32>(list, <u32>chunk, LAST);
  store<u32>(list, load<u32>(list, COUNT) + n, COUNT);
  return GO_ON;
}

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

/** GLOBAL and INST: two lines of text. */
function globalLine(p: usize, have: u64): u32 {
  const first = lineLength(p + 1, have - 1);
  if (first < 0) return lineFault(have - 1, have);
  const name = p + 2 + first;
  const left = have - 2 - first;
  const second = lineLength(name, left);
  if (second < 0) return lineFault(left, have);
  next += first + second + 2;
  const status = global(p + 1, first, name, second);
  return op === INST && status === GO_ON ? refuse(PICKLE_OPCODE, REASON_OPERANDS) : status;
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
