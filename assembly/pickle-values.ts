// The values of the pickle walker, and the arena in which they lie (pickle.ts tells the whole).
//
//     | state | values, memo pages →                                  ← stack of values |
//
// A value is never freed, and never made before there is room: `step` sees to that for each opcode.

import {
  ANSWER_BYTES,
  ANSWER_DETAIL,
  ANSWER_EXPECTED,
  ANSWER_OFFSET,
  ANSWER_OPCODE,
  ANSWER_VALUE,
} from './abi';
import { isText } from './text';

/** What an opcode answers when the next one may come. Not a status that leaves the walker. */
export const GO_ON: u32 = 0xff;

export const MAX_MARKS: u32 = 64;
export const MAX_NESTING: u32 = 16;

// --- the state, behind the answer

export const AT: usize = ANSWER_BYTES; // u64: position of the next opcode
export const FIRST: usize = AT + 8; // u64: position of the first opcode
export const FILE_END: usize = AT + 16; // u64
export const FRAME_END: usize = AT + 24; // u64, 0 outside frames
export const POOL: usize = AT + 32; // u32: next free byte for values
export const STACK: usize = AT + 36; // u32: top of the stack, which grows down
export const BOTTOM: usize = AT + 40; // u32: end of the arena
export const MEMO: usize = AT + 44; // u32: root page of the memo
export const MEMO_COUNT: usize = AT + 48; // u32: entries
export const OPCODES: usize = AT + 52; // u32: done so far
export const MARKS: usize = AT + 56; // u32: open marks
export const TENSORS: usize = AT + 60; // u32: arrays handed out
export const VISITS: usize = AT + 64; // u32
export const DEPTH: usize = AT + 68; // u32: open containers while flattening
export const TORCH: usize = AT + 72; // u32: 1 when the pickle is that of a torch archive
export const MARK_TABLE: usize = AT + 76; // u32[MAX_MARKS]: the stack at each mark
export const OPEN_TABLE: usize = MARK_TABLE + 4 * 64; // (u32 chunk, u32 index)[MAX_NESTING]
/** Bytes of the state. */
export const STATE_BYTES: usize = OPEN_TABLE + 8 * MAX_NESTING;

// --- values: u32 type, u64 position of the opcode that made it, and by type:

export const NODE: usize = 12;
export const T_NONE: u32 = 0;
export const T_FALSE: u32 = 1;
export const T_TRUE: u32 = 2;
export const T_INT: u32 = 3; // i64
export const T_LONG: u32 = 4; // an integer beyond 64 bits: u32 1 when negative
export const T_FLOAT: u32 = 5; // f64
export const T_TAG: u32 = 6; // u32 TAG_
export const T_TEXT: u32 = 7; // a span
export const T_BYTES: u32 = 8; // a span
export const T_TUPLE: u32 = 9; // items
export const T_LIST: u32 = 10; // items, and last chunk, closed
export const T_DTYPE: u32 = 11; // u32 built, u32 dtype, u32 flags (TENSOR_BIG_ENDIAN)
export const T_ARRAY: u32 = 12; // u32 built, u32 dtype, u32 flags, u32 shape (a tuple), u32 payload (bytes or list)
export const T_SCALAR: u32 = 13; // as T_ARRAY, without a shape
export const T_DICT: u32 = 14; // as T_LIST: key, value, key, value …
export const T_STORAGE: u32 = 15; // of torch: u32 dtype, u32 key (a text), u32 elements (an int)
export const T_TENSOR: u32 = 16; // of torch: u32 storage, u32 offset (an int), u32 shape and u32 strides (tuples of ints)

// A span of the file
export const OFFSET: usize = NODE + 0; // u64
export const LENGTH: usize = NODE + 8; // u64
export const COPY: usize = NODE + 16; // u32: where its bytes are kept, 0 when they are not
export const IS_STRING: usize = NODE + 20; // u32: 1 for the str of Python 2, which is text or bytes
export const TEXT_LENGTH: usize = NODE + 24; // u32: bytes that it takes in the file as text in UTF-8, 0 when it stands as it is

// Items: chunks of u32 count, u32 next, u32[count]
export const COUNT: usize = NODE + 0; // u32
export const CHUNK: usize = NODE + 4; // u32: the first one
export const LAST: usize = NODE + 8; // u32
export const CLOSED: usize = NODE + 12; // u32: 1 once something contains the list

// What REDUCE makes and BUILD fills
export const BUILT: usize = NODE + 0; // u32
export const DTYPE: usize = NODE + 4; // u32
export const FLAGS: usize = NODE + 8; // u32
export const SHAPE: usize = NODE + 12; // u32
export const PAYLOAD: usize = NODE + 16; // u32

// What torch makes. A dtype stands where that of an array does.
export const KEY: usize = NODE + 0; // u32
export const ELEMENTS: usize = NODE + 8; // u32
export const STORAGE: usize = NODE + 0; // u32
export const STRIDES: usize = NODE + 4; // u32
export const VIEW_OFFSET: usize = NODE + 8; // u32

// The machine at work, set at the begin of each call and of each opcode.
export let s: usize = 0;
export let at: u64 = 0; // position of the opcode
export let op: u32 = 0;

/** Makes `state` the one that all of this works on. */
export function enterState(state: usize): void {
  s = state;
}

export function enterOpcode(position: u64, opcode: u32): void {
  at = position;
  op = opcode;
}

// --- refusals

export function refuseAt(status: u32, reason: u32, offset: u64): u32 {
  store<f64>(s, <f64>offset, ANSWER_OFFSET);
  store<u32>(s, reason, ANSWER_DETAIL);
  store<u32>(s, op, ANSWER_OPCODE);
  return status;
}

/** Refuses the opcode. */
export function refuse(status: u32, reason: u32): u32 {
  return refuseAt(status, reason, at);
}

/** Refuses for a number that is not what it should be. */
export function refuseNumber(status: u32, reason: u32, value: f64, expected: f64): u32 {
  store<f64>(s, value, ANSWER_VALUE);
  store<f64>(s, expected, ANSWER_EXPECTED);
  return refuse(status, reason);
}

export function tellText(address: usize, length: u32, field: usize): void {
  store<u32>(s + field, <u32>address);
  store<u32>(s + field, length, 4);
}

// --- memory

/** Bytes of the pool, zeroed. `step` has made sure that they are there. */
export function take(bytes: u32): usize {
  const address = <usize>load<u32>(s, POOL);
  const rounded = (bytes + 3) & ~3;
  memory.fill(address, 0, rounded);
  store<u32>(s, <u32>address + rounded, POOL);
  return address;
}

export function value(type: u32, bytes: u32): usize {
  const node = take(<u32>NODE + bytes);
  store<u32>(node, type);
  store<u64>(node, at, 4);
  return node;
}

export function typeOf(node: usize): u32 {
  return load<u32>(node);
}

export function positionOf(node: usize): u64 {
  return load<u64>(node, 4);
}

// --- stack

export function push(node: usize): u32 {
  const top = load<u32>(s, STACK) - 4;
  store<u32>(top, <u32>node);
  store<u32>(s, top, STACK);
  return GO_ON;
}

/** The value on top, 0 when there is none above the innermost mark. */
export function peek(): usize {
  return available(0) === 0 ? 0 : <usize>load<u32>(load<u32>(s, STACK));
}

export function pop(): usize {
  const node = peek();
  if (node !== 0) store<u32>(s, load<u32>(s, STACK) + 4, STACK);
  return node;
}

/** Values above the innermost mark; `closed` is 1 just after closeMark, when it means the mark closed last. */
export function available(closed: u32): u32 {
  const marks = load<u32>(s, MARKS) + closed;
  const floor = marks === 0 ? load<u32>(s, BOTTOM) : load<u32>(s + ((marks - 1) << 2), MARK_TABLE);
  return (floor - load<u32>(s, STACK)) >> 2;
}

export function closeMark(): bool {
  const marks = load<u32>(s, MARKS);
  if (marks === 0) return false;
  store<u32>(s, marks - 1, MARKS);
  return true;
}

// --- memo: a tree of pages of sixteen, five levels deep. Its size follows the entries, not their numbers, and no
// choice of numbers makes it slow.

// choice of numbers makes it slow.
export function memoPage(): usize {
  return take(64);
}

export function memoSlot(index: u32, create: bool): usize {
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

// --- texts and bytes

export function newSpan(type: u32, offset: u64, length: u64): usize {
  const node = value(type, 28);
  store<u64>(node, offset, OFFSET);
  store<u64>(node, length, LENGTH);
  return node;
}

export function copyOf(span: usize): usize {
  return <usize>load<u32>(span, COPY);
}

export function spanLength(span: usize): u32 {
  return <u32>load<u64>(span, LENGTH);
}

/** Text that is kept, also as Python 2 writes it. */
export function isKeptText(node: usize): bool {
  return isTextual(node) && copyOf(node) !== 0;
}

/** The character of a kept span of one byte, 0 for any other. */
export function characterOf(span: usize): u32 {
  return copyOf(span) !== 0 && load<u64>(span, LENGTH) === 1 ? load<u8>(copyOf(span)) : 0;
}

/** Text, kept or not, also as Python 2 writes it. */
export function isTextual(node: usize): bool {
  const type = typeOf(node);
  return type === T_TEXT || (type === T_BYTES && load<u32>(node, IS_STRING) !== 0);
}

export function isKept(node: usize, text: string): bool {
  return isKeptText(node) && isText(copyOf(node), spanLength(node), text);
}

// --- tuples and lists

/** Takes the top n values into a chunk. Lists and dicts among them are complete from here on, so that no cycle can arise. */
export function collect(n: u32): usize {
  const chunk = take(8 + 4 * n);
  store<u32>(chunk, n);
  const top = load<u32>(s, STACK);
  for (let i: u32 = 0; i < n; i++) {
    const item = load<u32>(top + ((n - 1 - i) << 2));
    if (typeOf(item) === T_LIST || typeOf(item) === T_DICT) store<u32>(item, 1, CLOSED);
    store<u32>(chunk + (i << 2), item, 8);
  }
  store<u32>(s, top + (n << 2), STACK);
  return chunk;
}

/** The item of a tuple or list; the caller knows that there is one. */
export function itemOf(container: usize, index: u32): usize {
  let chunk = load<u32>(container, CHUNK);
  for (; index >= load<u32>(chunk); chunk = load<u32>(chunk, 4)) index -= load<u32>(chunk);
  return <usize>load<u32>(chunk + (index << 2), 8);
}

export function isTuple(node: usize, count: u32): bool {
  return typeOf(node) === T_TUPLE && load<u32>(node, COUNT) === count;
}

export function isInt(node: usize, number: i64): bool {
  return typeOf(node) === T_INT && load<i64>(node, NODE) === number;
}

/** A tuple of the one int. */
export function isTupleOf(node: usize, number: i64): bool {
  return isTuple(node, 1) && isInt(itemOf(node, 0), number);
}

/** 0 or 1 for a bool (an int in Python 2), 2 for anything else. */
export function flagOf(node: usize): u32 {
  const type = typeOf(node);
  if (type === T_FALSE || isInt(node, 0)) return 0;
  return type === T_TRUE || isInt(node, 1) ? 1 : 2;
}
