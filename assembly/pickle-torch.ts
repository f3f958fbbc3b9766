// What the pickle of a torch archive may name and make: storages, and tensors as views of them.
//
//     storage = persistent id ('storage', torch.<X>Storage, key, location, elements)
//     tensor  = torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, requires gradient, hooks)
//
// The elements stand in another member of the archive, which the key names. Whether a view lies within its storage is
// not decided here: formats/torch.ts knows the members.

import { MAX_DIMENSIONS, PICKLE_STRUCTURE, REASON_STACK_EMPTY, REASON_TORCH_TENSOR } from './abi';
import { TAG_STORAGE } from './pickle-names';
import {
  COUNT,
  DTYPE,
  ELEMENTS,
  flagOf,
  isKept,
  isKeptText,
  isTuple,
  itemOf,
  KEY,
  NODE,
  pop,
  push,
  refuse,
  SHAPE,
  STORAGE,
  STRIDES,
  T_DICT,
  T_INT,
  T_STORAGE,
  T_TAG,
  T_TENSOR,
  T_TUPLE,
  typeOf,
  VIEW_OFFSET,
  value,
} from './pickle-values';

/** BINPERSID: all that a persistent id can mean is a storage. */
export function storage(): u32 {
  const id = pop();
  if (id === 0) return refuse(PICKLE_STRUCTURE, REASON_STACK_EMPTY);
  if (!isTuple(id, 5) || !isKept(itemOf(id, 0), 'storage'))
    return refuse(PICKLE_STRUCTURE, REASON_TORCH_TENSOR);
  const type = itemOf(id, 1);
  const key = itemOf(id, 2);
  const elements = itemOf(id, 4);
  if (
    typeOf(type) !== T_TAG ||
    load<u32>(type, NODE) < TAG_STORAGE ||
    !isKeptText(key) ||
    typeOf(elements) !== T_INT
  ) {
    return refuse(PICKLE_STRUCTURE, REASON_TORCH_TENSOR);
  }
  const node = value(T_STORAGE, 12);
  store<u32>(node, load<u32>(type, NODE) - TAG_STORAGE, DTYPE);
  store<u32>(node, <u32>key, KEY);
  store<u32>(node, <u32>elements, ELEMENTS);
  return push(node);
}

/** Makes the tensor of the six arguments `a`. A seventh would say that its elements are conjugated or negated. */
export function rebuildTensor(a: usize): u32 {
  const shape = itemOf(a, 2);
  const strides = itemOf(a, 3);
  if (
    typeOf(itemOf(a, 0)) !== T_STORAGE ||
    typeOf(itemOf(a, 1)) !== T_INT ||
    !isInts(shape) ||
    !isInts(strides) ||
    load<u32>(shape, COUNT) !== load<u32>(strides, COUNT) ||
    flagOf(itemOf(a, 4)) === 2 ||
    typeOf(itemOf(a, 5)) !== T_DICT
  ) {
    return refuse(PICKLE_STRUCTURE, REASON_TORCH_TENSOR);
  }
  const node = value(T_TENSOR, 16);
  store<u32>(node, <u32>itemOf(a, 0), STORAGE);
  store<u32>(node, <u32>itemOf(a, 1), VIEW_OFFSET);
  store<u32>(node, <u32>shape, SHAPE);
  store<u32>(node, <u32>strides, STRIDES);
  return push(node);
}

/** A tuple of ints, no more than an array has dimensions. */
function isInts(node: usize): bool {
  if (typeOf(node) !== T_TUPLE || load<u32>(node, COUNT) > <u32>MAX_DIMENSIONS) return false;
  for (let i: u32 = 0; i < load<u32>(node, COUNT); i++) {
    if (typeOf(itemOf(node, i)) !== T_INT) return false;
  }
  return true;
}
