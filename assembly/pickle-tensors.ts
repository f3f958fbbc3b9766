// What a walk has found: the weighting (of a weight file), and the tensors one by one.

import {
  ANSWER_COUNT,
  ANSWER_DETAIL,
  ANSWER_VALUE,
  DTYPE_BFLOAT16,
  DTYPE_BOOL,
  DTYPE_COMPLEX64,
  DTYPE_FLOAT16,
  DTYPE_FLOAT32,
  DTYPE_FLOAT64,
  MAX_DIMENSIONS,
  MAX_TENSORS,
  NPY_DATA_TRAILING,
  PICKLE_LIMIT,
  PICKLE_STRUCTURE,
  READ_DONE,
  READ_MORE,
  REASON_CYCLE,
  REASON_FRAME,
  REASON_NAME,
  REASON_NESTING,
  REASON_NOT_BUILT,
  REASON_OPERANDS,
  REASON_OUTER,
  REASON_PARAMETER,
  REASON_PARAMETERS,
  REASON_RESULTS,
  REASON_STACK_EMPTY,
  REASON_STATE_DICT,
  REASON_STATE_ENTRY,
  REASON_TENSORS,
  REASON_WEIGHTING,
  REASON_WEIGHTING_RANGE,
  TENSOR_BIG_ENDIAN,
  TENSOR_DIMENSIONS,
  TENSOR_DTYPE,
  TENSOR_FLAGS,
  TENSOR_KEY_BYTES,
  TENSOR_LENGTH,
  TENSOR_NAME,
  TENSOR_NAME_OFFSET,
  TENSOR_OFFSET,
  TENSOR_SHAPE,
  WEIGHTS_FORM,
} from './abi';
import {
  BOTTOM,
  BUILT,
  CHUNK,
  COUNT,
  copyOf,
  DEPTH,
  DTYPE,
  ELEMENTS,
  enterState,
  FILE_END,
  FLAGS,
  FRAME_END,
  isTextual,
  itemOf,
  KEY,
  LENGTH,
  MAX_NESTING,
  NODE,
  OFFSET,
  OPEN_TABLE,
  PAYLOAD,
  peek,
  positionOf,
  refuse,
  refuseAt,
  SHAPE,
  STACK,
  STORAGE,
  STRIDES,
  s,
  spanLength,
  T_ARRAY,
  T_DICT,
  T_FLOAT,
  T_INT,
  T_LIST,
  T_LONG,
  T_SCALAR,
  T_TENSOR,
  T_TUPLE,
  TENSORS,
  TEXT_LENGTH,
  TORCH,
  typeOf,
  VIEW_OFFSET,
  VISITS,
} from './pickle-values';
import { DTYPE_OBJECT, itemSizeOf, MAX_SAFE } from './text';

/** Items looked at while flattening: a list of lists of empty lists holds no array, but takes time. */
const MAX_VISITS: u32 = 1 << 20;

/** The longest record: of a tensor of torch, which has strides too. */
const RECORD_BYTES: usize = TENSOR_SHAPE + 16 * MAX_DIMENSIONS + TENSOR_KEY_BYTES;

/**
 * STOP, with `next` the position behind it: one object array [weighting, parameters], of a torch archive one dict, must
 * be left, and nothing follow.
 */
export function stop(next: u64): u32 {
  const array = peek();
  if (array === 0) return refuse(PICKLE_STRUCTURE, REASON_STACK_EMPTY);
  if (load<u32>(s, STACK) + 4 !== load<u32>(s, BOTTOM)) return refuse(PICKLE_STRUCTURE, REASON_RESULTS);
  const frameEnd = load<u64>(s, FRAME_END);
  if (frameEnd !== 0 && frameEnd !== next) return refuse(PICKLE_STRUCTURE, REASON_FRAME);
  if (next !== load<u64>(s, FILE_END)) return refuseAt(NPY_DATA_TRAILING, REASON_OPERANDS, next);
  if (load<u32>(s, TORCH) !== 0) {
    if (typeOf(array) !== T_DICT) return refuseAt(WEIGHTS_FORM, REASON_STATE_DICT, positionOf(array));
    open(array);
    return READ_DONE;
  }
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

/**
 * Hands out the tensors in order, after walkPickle answered READ_DONE: fills `out` (8-byte aligned, `bytes` long, at
 * least RECORD_BYTES) with as many records as fit. ANSWER_COUNT of them are there with READ_DONE
 * and READ_MORE. Nested lists and tuples are flattened, `[name, array]` pairs give names; of
 * a state dict each entry must be a tensor under a text.
 */
export function takeTensors(state: usize, out: usize, bytes: u32): u32 {
  enterState(state);
  const end = out + bytes;
  const isTorch = load<u32>(s, TORCH) !== 0;
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
    if (end - out < RECORD_BYTES) {
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
    if (isTorch || isPair(chunk, index)) {
      name = item;
      array = <usize>load<u32>(chunk + (index << 2), 12);
      store<u32>(frame, index + 2, 4);
    } else {
      store<u32>(frame, index + 1, 4);
    }
    const type = typeOf(array);
    if (isTorch) {
      if (type !== T_TENSOR || !isTextual(name))
        return refuseAt(WEIGHTS_FORM, REASON_STATE_ENTRY, positionOf(array));
    } else if (type === T_LIST || type === T_TUPLE) {
      if (depth === MAX_NESTING) return refuseAt(PICKLE_LIMIT, REASON_NESTING, positionOf(array));
      open(array);
      continue;
    } else {
      if (type !== T_ARRAY) return refuseAt(WEIGHTS_FORM, REASON_PARAMETER, positionOf(array));
      if (load<u32>(array, BUILT) === 0)
        return refuseAt(PICKLE_STRUCTURE, REASON_NOT_BUILT, positionOf(array));
      if (load<u32>(array, DTYPE) === DTYPE_OBJECT)
        return refuseAt(PICKLE_STRUCTURE, REASON_CYCLE, positionOf(array));
    }
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
  return isTextual(first) && typeOf(load<u32>(chunk, 12)) === T_ARRAY;
}

function writeRecord(out: usize, array: usize, name: usize): usize {
  const shape = <usize>load<u32>(array, SHAPE);
  const dimensions = load<u32>(shape, COUNT);
  store<u32>(out, dimensions, TENSOR_DIMENSIONS);
  store<u32>(out, name === 0 ? 0 : <u32>copyOf(name), TENSOR_NAME);
  store<u32>(out, name === 0 ? 0 : spanLength(name), TENSOR_NAME + 4);
  store<f64>(out, name === 0 ? 0 : <f64>load<u64>(name, OFFSET), TENSOR_NAME_OFFSET);
  const end = putInts(out + TENSOR_SHAPE, shape);
  if (typeOf(array) === T_TENSOR) {
    const storage = <usize>load<u32>(array, STORAGE);
    const key = <usize>load<u32>(storage, KEY);
    store<f64>(out, <f64>load<i64>(load<u32>(array, VIEW_OFFSET), NODE), TENSOR_OFFSET);
    store<f64>(out, <f64>load<i64>(load<u32>(storage, ELEMENTS), NODE), TENSOR_LENGTH);
    store<u32>(out, load<u32>(storage, DTYPE), TENSOR_DTYPE);
    store<u32>(out, 0, TENSOR_FLAGS);
    const tail = putInts(end, <usize>load<u32>(array, STRIDES));
    store<u32>(tail, <u32>copyOf(key));
    store<u32>(tail, spanLength(key), 4);
    return tail + TENSOR_KEY_BYTES;
  }
  const payload = <usize>load<u32>(array, PAYLOAD);
  store<f64>(out, <f64>load<u64>(payload, OFFSET), TENSOR_OFFSET);
  const text = load<u32>(payload, TEXT_LENGTH);
  store<f64>(out, text === 0 ? <f64>load<u64>(payload, LENGTH) : <f64>text, TENSOR_LENGTH);
  store<u32>(out, load<u32>(array, DTYPE), TENSOR_DTYPE);
  store<u32>(out, load<u32>(array, FLAGS), TENSOR_FLAGS);
  return end;
}

/** Writes the ints of a tuple, and returns the address behind them. */
function putInts(out: usize, tuple: usize): usize {
  const count = load<u32>(tuple, COUNT);
  for (let i: u32 = 0; i < count; i++) {
    store<f64>(out + (i << 3), <f64>load<i64>(itemOf(tuple, i), NODE));
  }
  return out + (count << 3);
}
