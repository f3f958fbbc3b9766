// What a pickle may name, call (REDUCE) and fill (BUILD): two small tables over tags. Nothing is imported or called. What
// torch archives may name stands in pickle-torch.ts: neither kind of file may use the names of the other.

import {
  ANSWER_NAME,
  ANSWER_TEXT,
  DTYPE_BFLOAT16,
  DTYPE_VOID16,
  MAX_DIMENSIONS,
  NPY_DTYPE_UNSUPPORTED,
  NPY_SHAPE,
  NPY_SHAPE_OVERFLOW,
  PICKLE_GLOBAL,
  PICKLE_MISMATCH,
  PICKLE_STRUCTURE,
  REASON_ARRAY_STATE,
  REASON_DTYPE_STATE,
  REASON_OBJECT,
  REASON_OPERANDS,
  REASON_OUTER_SHAPE,
  REASON_SHAPE,
  REASON_STACK_EMPTY,
  REASON_STRUCTURED,
  REASON_TORCH_GLOBAL,
  REASON_TORCH_TENSOR,
  TENSOR_BIG_ENDIAN,
  TENSOR_ENCODED,
  WEIGHTS_FORM,
} from './abi';
import {
  findTag,
  TAG_BFLOAT16,
  TAG_BYTES,
  TAG_DTYPE,
  TAG_ENCODE,
  TAG_FROMBUFFER,
  TAG_NDARRAY,
  TAG_ORDERED_DICT,
  TAG_REBUILD_PARAMETER,
  TAG_REBUILD_TENSOR,
  TAG_RECONSTRUCT,
  TAG_SCALAR,
} from './pickle-names';
import { rebuildTensor } from './pickle-torch';
import {
  at,
  BOTTOM,
  BUILT,
  COPY,
  COUNT,
  characterOf,
  copyOf,
  DTYPE,
  FLAGS,
  flagOf,
  GO_ON,
  isInt,
  isKept,
  isKeptText,
  isTuple,
  isTupleOf,
  itemOf,
  LENGTH,
  NODE,
  newSpan,
  OFFSET,
  PAYLOAD,
  peek,
  pop,
  positionOf,
  push,
  refuse,
  refuseAt,
  refuseNumber,
  SHAPE,
  STACK,
  s,
  spanLength,
  T_ARRAY,
  T_BYTES,
  T_DICT,
  T_DTYPE,
  T_INT,
  T_LIST,
  T_LONG,
  T_NONE,
  T_SCALAR,
  T_TAG,
  T_TENSOR,
  T_TEXT,
  T_TUPLE,
  TEXT_LENGTH,
  TORCH,
  take,
  tellText,
  typeOf,
  value,
} from './pickle-values';
import { DTYPE_OBJECT, dtypeOf, growSize, itemSizeOf, MAX_SAFE } from './text';

/** Turns a name into its tag, or refuses it: here, where it is imported, although nothing may ever use it. */
export function global(module: usize, moduleLength: u32, name: usize, nameLength: u32): u32 {
  const isTorch = load<u32>(s, TORCH) !== 0;
  const tag = findTag(isTorch, module, moduleLength, name, nameLength);
  if (tag === 0) {
    tellText(module, moduleLength, ANSWER_TEXT);
    tellText(name, nameLength, ANSWER_NAME);
    return refuse(PICKLE_GLOBAL, isTorch ? REASON_TORCH_GLOBAL : REASON_OPERANDS);
  }
  const node = value(T_TAG, 4);
  store<u32>(node, tag, NODE);
  return push(node);
}

function isTag(node: usize, tag: u32): bool {
  return typeOf(node) === T_TAG && load<u32>(node, NODE) === tag;
}

export function reduce(): u32 {
  const a = pop();
  const callable = pop();
  if (callable === 0) return refuse(PICKLE_STRUCTURE, REASON_STACK_EMPTY);
  if (typeOf(callable) !== T_TAG || typeOf(a) !== T_TUPLE) return refuse(PICKLE_STRUCTURE, REASON_OPERANDS);
  const count = load<u32>(a, COUNT);
  switch (load<u32>(callable, NODE)) {
    case TAG_RECONSTRUCT:
      if (count === 3 && isTag(itemOf(a, 0), TAG_NDARRAY) && isTupleOf(itemOf(a, 1), 0)) {
        const kind = itemOf(a, 2);
        if (typeOf(kind) === T_BYTES && characterOf(kind) === 0x62) {
          // b'b'
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
        const character = isKeptText(order) ? characterOf(order) : 0;
        const isFortran = character === 0x46; // F
        if (isFortran || character === 0x43) {
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
    case TAG_ORDERED_DICT:
      if (count === 0) return push(value(T_DICT, 16));
      break;
    case TAG_REBUILD_TENSOR:
      if (count === 6) return rebuildTensor(a);
      return refuse(PICKLE_STRUCTURE, REASON_TORCH_TENSOR);
    case TAG_REBUILD_PARAMETER:
      // A parameter is its tensor; whether it wants a gradient is nothing to us.
      if (count === 3 && typeOf(itemOf(a, 0)) === T_TENSOR) return push(itemOf(a, 0));
      return refuse(PICKLE_STRUCTURE, REASON_TORCH_TENSOR);
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

/**
 * encode(text, 'latin1'): how protocol 2 of Python 3 spells bytes. The length of what is kept becomes that of the bytes; of
 * what is not, nobody knows it before all is read, and it stays that of the text.
 */
function encode(text: usize): u32 {
  const length = load<u64>(text, LENGTH);
  const node = newSpan(T_BYTES, load<u64>(text, OFFSET), length);
  store<u32>(node, <u32>length, TEXT_LENGTH); // the opcodes of texts have lengths of 32 bits
  const from = copyOf(text);
  if (from !== 0) {
    const copy = take(max<u32>(8, <u32>length));
    let n: u32 = 0;
    for (let i: u32 = 0; i < <u32>length; i++) {
      let byte = <u32>load<u8>(from + i);
      if (byte >= 0x80) {
        const low: u32 = ++i < <u32>length ? load<u8>(from + i) : 0;
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

export function build(): u32 {
  const state = pop();
  const target = peek();
  if (target === 0) return refuse(PICKLE_STRUCTURE, REASON_STACK_EMPTY);
  const type = typeOf(target);
  // What torch notes about a state dict (_metadata: versions of modules) has no part in the weights.
  if (type === T_DICT && typeOf(state) === T_DICT) return GO_ON;
  if (typeOf(state) === T_TUPLE && load<u32>(target, BUILT) === 0) {
    if (type === T_DTYPE) return buildDtype(target, state);
    if (type === T_ARRAY) return buildArray(target, state);
  }
  return refuse(PICKLE_STRUCTURE, REASON_OPERANDS);
}

/**
 * (3, order, None, None, None, -1, -1, flags); the sizes are 2, 1 or 2, 2 for types that NumPy does not own. Flags that
 * do not belong to the type make NumPy itself crash.
 */
function buildDtype(dtype: usize, state: usize): u32 {
  if (!isTuple(state, 8) || !isInt(itemOf(state, 0), 3)) return refuse(PICKLE_STRUCTURE, REASON_DTYPE_STATE);
  for (let i = 2; i < 5; i++) {
    if (typeOf(itemOf(state, i)) !== T_NONE) {
      tellText(0, 0, ANSWER_TEXT);
      return refuse(NPY_DTYPE_UNSUPPORTED, REASON_STRUCTURED);
    }
  }
  const order = isKeptText(itemOf(state, 1)) ? characterOf(itemOf(state, 1)) : 0;
  const isBig = order === 0x3e; // >
  const code = load<u32>(dtype, DTYPE);
  const isVoid = code === DTYPE_VOID16 || code === DTYPE_BFLOAT16;
  const alignment = itemOf(state, 6);
  if (
    !(isBig || order === 0x3c || order === 0x7c || order === 0x3d) ||
    !isInt(itemOf(state, 5), isVoid ? 2 : -1) ||
    !(isVoid ? isInt(alignment, 1) || isInt(alignment, 2) : isInt(alignment, -1)) ||
    !isInt(itemOf(state, 7), code === DTYPE_OBJECT ? 63 : code === DTYPE_BFLOAT16 ? 64 : 0)
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
  const length = load<u64>(payload, LENGTH);
  const isText = load<u32>(payload, TEXT_LENGTH) !== 0;
  // Text that is not kept has one or two bytes for each byte; whoever decodes it compares them.
  const least = isText && copyOf(payload) === 0 ? (length + 1) >> 1 : length;
  if (total < least || total > length)
    return refuseNumber(PICKLE_MISMATCH, REASON_OPERANDS, <f64>length, <f64>total);
  store<u32>(array, code, DTYPE);
  store<u32>(array, load<u32>(dtype, FLAGS) | order | (isText ? TENSOR_ENCODED : 0), FLAGS); // TENSOR_FORTRAN is 1
  store<u32>(array, <u32>shape, SHAPE);
  store<u32>(array, <u32>payload, PAYLOAD);
  store<u32>(array, 1, BUILT);
  return GO_ON;
}
