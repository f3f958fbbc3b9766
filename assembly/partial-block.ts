// Residues of a chunk: what the first binary64 numbers of its sums leave over.
//
// The exact sum of an element is hi + r_1 + r_2 + …, each number the nearest binary64 of what is left before it (ties to
// even), until nothing is left. So the parts of a sum, and the bytes of a block, depend on the sum alone. Most sums are one
// number, and a chunk without residues has no block. A block, little endian, 8-byte aligned:
//
//     u32 t         parts in the list
//     u32 dense     1 when an array of n numbers follows
//     f64[n]        if dense: r_1 of every element of the chunk, 0 where there is none
//     f64[t]        values, not zero
//     u16[t]        places: index in the chunk times 4, and the kind; ascending, equal ones in the order of the parts
//     zeros         up to a multiple of 8 bytes
//
// An r_1 stands in the array or in the list, never in both. The array is there when it is smaller than the list.
//
// Kinds:  0  a part
//         1  a part times 2^512: what is left lies below the smallest binary64 number (float64 with small weightings only)
//         2  how many leaves have -0 there, when some have and not all: with it the zero that is left after leaves are taken
//            out has the right sign. Where all have, the sum itself is -0.

import { PARTIAL_PARTS } from './abi';

export const KIND_PART: u32 = 0;
export const KIND_LOW: u32 = 1;
export const KIND_ZEROS: u32 = 2;

/** A part of the kind KIND_LOW is a value times 2^-512. */
export const LOW_SCALE: i32 = 512;

/** Place of the part of an element. */
function placeOf(index: u32, kind: u32): u32 {
  return (index << 2) | kind;
}

// --- reading ----------------------------------------------------------------------------------------------------------

export function listLength(block: usize): u32 {
  return load<u32>(block);
}

/** Address of the array, 0 without one. */
export function arrayOf(block: usize): usize {
  return load<u32>(block, 4) !== 0 ? block + 8 : 0;
}

/** Address of the values of the list. */
export function valuesOf(block: usize, n: u32): usize {
  return block + 8 + (load<u32>(block, 4) !== 0 ? (<usize>n) << 3 : 0);
}

/** Address of the places of the list. */
export function placesOf(block: usize, n: u32): usize {
  return valuesOf(block, n) + ((<usize>load<u32>(block)) << 3);
}

export function indexOf(place: u32): u32 {
  return place >> 2;
}

export function kindOf(place: u32): u32 {
  return place & 3;
}

/** The element of the part at a position of the list, n behind its end. */
export function listedFrom(block: usize, position: u32, n: u32): u32 {
  if (position >= listLength(block)) return n;
  return indexOf(load<u16>(placesOf(block, n) + ((<usize>position) << 1)));
}

/**
 * Looks through a block of `bytes` bytes for a chunk of n elements that `leaves` leaves have. Answers -1 when it may be
 * used, else the position of the first byte that is wrong. `block` is 8-byte aligned.
 */
export function checkResidues(block: usize, bytes: u32, n: u32, leaves: f64): i32 {
  if (bytes < 16 || (bytes & 7) !== 0) return 0;
  const t = load<u32>(block);
  const dense = load<u32>(block, 4);
  if (t > n * <u32>PARTIAL_PARTS) return 0;
  if (dense > 1) return 4;
  const array: u32 = dense === 0 ? 0 : n << 3;
  const end = 8 + array + t * 10;
  if (((end + 7) & ~7) !== bytes) return 0;
  for (let at: u32 = 8; at < 8 + array; at += 8) {
    if (!Number.isFinite(load<f64>(block + at))) return at;
  }
  const values = 8 + array;
  const places = values + (t << 3);
  let last: u32 = 0;
  let run: u32 = 0;
  for (let i: u32 = 0; i < t; i++) {
    const at = values + (i << 3);
    const value = load<f64>(block + at);
    if (value === 0 || !Number.isFinite(value)) return at;
    const place = <u32>load<u16>(block + places + (i << 1));
    const kind = kindOf(place);
    const isOrdered = i === 0 || place > last || (place === last && kind !== KIND_ZEROS);
    run = i > 0 && indexOf(place) === indexOf(last) ? run + 1 : 1;
    if (!isOrdered || kind > KIND_ZEROS || indexOf(place) >= n || run > <u32>PARTIAL_PARTS) {
      return places + (i << 1);
    }
    if (kind === KIND_ZEROS && (value !== floor(value) || value < 1 || value >= leaves)) return at;
    last = place;
  }
  for (let at: u32 = end; at < bytes; at++) {
    if (load<u8>(block + at) !== 0) return at;
  }
  return -1;
}

// --- writing ----------------------------------------------------------------------------------------------------------

// Parts are collected in the block itself: the values where they stand if there is an array, the places behind room for all
// values. So what remains moves down when the block is closed.
let block: usize = 0;
let values: usize = 0;
let places: usize = 0;
let length: u32 = 0;
/** How many of them are an r_1. */
let firsts: u32 = 0;
let lastIndex: u32 = 0;

/** Begins the block of a chunk of n elements; `out` is PARTIAL_RESIDUE_BYTES long and 8-byte aligned. */
export function openResidues(out: usize, n: u32): void {
  block = out;
  values = out + 8 + ((<usize>n) << 3);
  places = values + <usize>n * 8 * PARTIAL_PARTS;
  length = 0;
  firsts = 0;
  lastIndex = 0xffffffff;
}

/** Adds a part, in the order of the places. */
export function addResidue(index: u32, kind: u32, value: f64): void {
  store<f64>(values + ((<usize>length) << 3), value);
  store<u16>(places + ((<usize>length) << 1), <u16>placeOf(index, kind));
  if (kind === KIND_PART && index !== lastIndex) firsts++;
  lastIndex = index;
  length++;
}

/** Ends the block, of n elements, and answers its bytes, 0 for none. */
export function closeResidues(n: u32): u32 {
  if (length === 0) return 0;
  const isDense = 10 * firsts > 8 * n;
  if (isDense) moveFirsts(n);
  store<u32>(block, length);
  store<u32>(block, <u32>isDense, 4);
  memory.copy(valuesOf(block, n), values, (<usize>length) << 3);
  let place = placesOf(block, n);
  memory.copy(place, places, (<usize>length) << 1);
  place += (<usize>length) << 1;
  while (((place - block) & 7) !== 0) {
    store<u16>(place, 0);
    place += 2;
  }
  return <u32>(place - block);
}

/** Moves every r_1 from the list into the array. */
function moveFirsts(n: u32): void {
  const array = block + 8;
  memory.fill(array, 0, (<usize>n) << 3);
  let left: u32 = 0;
  lastIndex = 0xffffffff;
  for (let i: u32 = 0; i < length; i++) {
    const x = load<f64>(values + ((<usize>i) << 3));
    const p = load<u16>(places + ((<usize>i) << 1));
    const index = indexOf(p);
    if (kindOf(p) === KIND_PART && index !== lastIndex) {
      store<f64>(array + ((<usize>index) << 3), x);
    } else {
      store<f64>(values + ((<usize>left) << 3), x);
      store<u16>(places + ((<usize>left) << 1), p);
      left++;
    }
    lastIndex = index;
  }
  length = left;
}
