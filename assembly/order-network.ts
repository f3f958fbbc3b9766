// Sorting networks over rows: Batcher's merge exchange (Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M) for
// any number of rows, less the comparators that cannot change what is asked for.
//
// A comparator of rows (i, j) leaves for each column the lesser key in row i and the greater one in row j. Which ones are
// done does not depend on the keys, so there is no branch on data, and a row is worked on a vector at a time. K rows take
// at most K/2·t·(t + 1)/2 comparators, t = ceil(log2 K).
//
// Pruning goes backward from the rows that are wanted. A comparator is dropped when neither of its rows is wanted, or
// when both belong to the wanted set, whose order among itself nobody asks for. One with a single wanted row computes
// only that. For the median of ten that leaves 24 of 31 whole or half, for its trimmed mean (one cut at each end) 22.

/** Comparators are u32: row i, row j << 15, what to write << 30. */
const ROW_BITS: u32 = 15;
const ROW_MASK: u32 = 0x7fff;
const WRITE_SHIFT: u32 = 30;
const WRITE_LESSER: u32 = 1;
const WRITE_GREATER: u32 = 2;
const WRITE_BOTH: u32 = 3;

// What becomes of a row behind the comparator at hand.
const UNUSED: u8 = 0;
/** One of the wanted set. */
const WANTED: u8 = 1;
/** Some comparator compares it. */
const COMPARED: u8 = 2;

/** Room for the comparators of k rows before they are pruned, in bytes. */
export function networkBytes(k: u32): usize {
  const t = 32 - clz(k - 1);
  return k < 2 ? 0 : <usize>k * t * (t + 1);
}

/**
 * Writes the comparators that bring the order statistics [first, end) of k rows into the rows of these numbers, in any
 * order among themselves, and answers how many they are. `rows` is room for k bytes.
 */
export function selectingNetwork(list: usize, k: u32, first: u32, end: u32, rows: usize): u32 {
  const count = sortingNetwork(list, k);
  memory.fill(rows, UNUSED, k);
  memory.fill(rows + first, WANTED, end - first);
  // Backward, kept ones moved to the end of the list; then all of them to its begin.
  const listEnd = list + ((<usize>count) << 2);
  let kept = listEnd;
  for (let p = listEnd; p > list; ) {
    p -= 4;
    const comparator = load<u32>(p);
    const i = rows + (comparator & ROW_MASK);
    const j = rows + ((comparator >> ROW_BITS) & ROW_MASK);
    const a = load<u8>(i);
    const b = load<u8>(j);
    if (a === b && a !== COMPARED) continue;
    const write = b === UNUSED ? WRITE_LESSER : a === UNUSED ? WRITE_GREATER : WRITE_BOTH;
    kept -= 4;
    store<u32>(kept, (comparator & ~(WRITE_BOTH << WRITE_SHIFT)) | (write << WRITE_SHIFT));
    store<u8>(i, COMPARED);
    store<u8>(j, COMPARED);
  }
  memory.copy(list, kept, listEnd - kept);
  return <u32>((listEnd - kept) >> 2);
}

/** Writes the comparators that sort k rows, and answers how many they are. */
export function sortingNetwork(list: usize, k: u32): u32 {
  if (k < 2) return 0;
  const top = (<u32>1) << (31 - clz(k - 1));
  let to = list;
  for (let p = top; p > 0; p >>= 1) {
    let r: u32 = 0;
    let d = p;
    for (let q = top; ; q >>= 1) {
      for (let i: u32 = 0; i + d < k; i++) {
        if ((i & p) !== r) continue;
        store<u32>(to, i | ((i + d) << ROW_BITS) | (WRITE_BOTH << WRITE_SHIFT));
        to += 4;
      }
      if (q === p) break;
      d = q - p;
      r = p;
    }
  }
  return <u32>((to - list) >> 2);
}

/** Does `count` comparators on the first `bytes` (a multiple of ROW_UNIT) of rows of keys that are `stride` apart. */
export function exchange<T>(list: usize, count: u32, rows: usize, stride: usize, bytes: usize): void {
  for (let p = list, end = list + ((<usize>count) << 2); p < end; p += 4) {
    const comparator = load<u32>(p);
    const i = rows + <usize>(comparator & ROW_MASK) * stride;
    const j = rows + <usize>((comparator >> ROW_BITS) & ROW_MASK) * stride;
    const write = comparator >> WRITE_SHIFT;
    if (write === WRITE_BOTH) exchangeRows<T>(i, j, bytes);
    else if (write === WRITE_LESSER) takeLesser<T>(i, j, bytes);
    else takeGreater<T>(i, j, bytes);
  }
}

function exchangeRows<T>(i: usize, j: usize, bytes: usize): void {
  const end = i + bytes;
  if (ASC_FEATURE_SIMD) {
    for (; i < end; i += 64) {
      const a = v128.load(i);
      const b = v128.load(j);
      const c = v128.load(i, 16);
      const d = v128.load(j, 16);
      v128.store(i, lesser<T>(a, b));
      v128.store(j, greater<T>(a, b));
      v128.store(i, lesser<T>(c, d), 16);
      v128.store(j, greater<T>(c, d), 16);
      const e = v128.load(i, 32);
      const f = v128.load(j, 32);
      const g = v128.load(i, 48);
      const h = v128.load(j, 48);
      v128.store(i, lesser<T>(e, f), 32);
      v128.store(j, greater<T>(e, f), 32);
      v128.store(i, lesser<T>(g, h), 48);
      v128.store(j, greater<T>(g, h), 48);
      j += 64;
    }
  } else {
    for (; i < end; i += sizeof<T>()) {
      const a = load<T>(i);
      const b = load<T>(j);
      store<T>(i, min<T>(a, b));
      store<T>(j, max<T>(a, b));
      j += sizeof<T>();
    }
  }
}

function takeLesser<T>(i: usize, j: usize, bytes: usize): void {
  const end = i + bytes;
  if (ASC_FEATURE_SIMD) {
    for (; i < end; i += 32) {
      v128.store(i, lesser<T>(v128.load(i), v128.load(j)));
      v128.store(i, lesser<T>(v128.load(i, 16), v128.load(j, 16)), 16);
      j += 32;
    }
  } else {
    for (; i < end; i += sizeof<T>()) {
      store<T>(i, min<T>(load<T>(i), load<T>(j)));
      j += sizeof<T>();
    }
  }
}

function takeGreater<T>(i: usize, j: usize, bytes: usize): void {
  const end = i + bytes;
  if (ASC_FEATURE_SIMD) {
    for (; i < end; i += 32) {
      v128.store(j, greater<T>(v128.load(i), v128.load(j)));
      v128.store(j, greater<T>(v128.load(i, 16), v128.load(j, 16)), 16);
      j += 32;
    }
  } else {
    for (; i < end; i += sizeof<T>()) {
      store<T>(j, max<T>(load<T>(i), load<T>(j)));
      j += sizeof<T>();
    }
  }
}

// There is no minimum of vectors of 64-bit integers.

function lesser<T>(a: v128, b: v128): v128 {
  if (sizeof<T>() === 8) return v128.bitselect(b, a, i64x2.gt_s(a, b));
  return v128.min<T>(a, b);
}

function greater<T>(a: v128, b: v128): v128 {
  if (sizeof<T>() === 8) return v128.bitselect(a, b, i64x2.gt_s(a, b));
  return v128.max<T>(a, b);
}

/**
 * Does `count` comparators, each whole, on rows of keys and with them on rows of payloads of the same form, which go
 * where their keys go.
 */
export function exchangePairs<T>(
  list: usize,
  count: u32,
  rows: usize,
  payloads: usize,
  stride: usize,
  bytes: usize,
): void {
  for (let p = list, end = list + ((<usize>count) << 2); p < end; p += 4) {
    const comparator = load<u32>(p);
    const i = <usize>(comparator & ROW_MASK) * stride;
    const j = <usize>((comparator >> ROW_BITS) & ROW_MASK) * stride;
    exchangeRowPairs<T>(rows + i, rows + j, payloads + i, payloads + j, bytes);
  }
}

function exchangeRowPairs<T>(i: usize, j: usize, u: usize, v: usize, bytes: usize): void {
  if (ASC_FEATURE_SIMD) {
    for (let at: usize = 0; at < bytes; at += 16) {
      const a = v128.load(i + at);
      const b = v128.load(j + at);
      const c = v128.load(u + at);
      const d = v128.load(v + at);
      const swap = v128.gt<T>(a, b);
      v128.store(i + at, v128.bitselect(b, a, swap));
      v128.store(j + at, v128.bitselect(a, b, swap));
      v128.store(u + at, v128.bitselect(d, c, swap));
      v128.store(v + at, v128.bitselect(c, d, swap));
    }
  } else {
    for (let at: usize = 0; at < bytes; at += sizeof<T>()) {
      const a = load<T>(i + at);
      const b = load<T>(j + at);
      if (a <= b) continue;
      store<T>(i + at, b);
      store<T>(j + at, a);
      const c = load<T>(u + at);
      store<T>(u + at, load<T>(v + at));
      store<T>(v + at, c);
    }
  }
}
