// Changes inputs: bits, numbers of every width, texts of digits, spans cut out, doubled or taken from elsewhere, and
// words of the format.
import type { Random } from '../helpers/random.ts';

/** No input becomes longer. */
const MAX_BYTES = 1 << 16;

const NUMBERS = [
  0,
  1,
  2,
  3,
  63,
  64,
  65,
  127,
  128,
  255,
  256,
  1_000,
  32_767,
  65_535,
  65_536,
  2 ** 20,
  2 ** 31 - 1,
]
  .map(BigInt)
  .concat([2n ** 31n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 63n - 1n, 2n ** 64n - 1n]);

/** Between one and six changes of a copy. */
export function mutate(
  random: Random,
  input: Uint8Array,
  words: readonly Uint8Array[],
  others: readonly Uint8Array[],
): Uint8Array {
  let bytes: Uint8Array = input.slice();
  for (let changes = 1 + Math.floor(6 * random.uniform() ** 3); changes > 0; changes--) {
    bytes = random.pick(CHANGES)(random, bytes, words, others);
  }
  return bytes.subarray(0, MAX_BYTES);
}

type Change = (
  random: Random,
  bytes: Uint8Array,
  words: readonly Uint8Array[],
  others: readonly Uint8Array[],
) => Uint8Array;

/** A place of the input; near its begin as often as anywhere, for that is where most is decided. */
function place(random: Random, length: number): number {
  const reach = random.uniform() < 0.5 ? Math.min(length, 256) : length;
  return reach === 0 ? 0 : random.integer(0, reach - 1);
}

function splice(bytes: Uint8Array, at: number, removed: number, inserted: Uint8Array): Uint8Array {
  return Buffer.concat([bytes.subarray(0, at), inserted, bytes.subarray(at + removed)]);
}

/** A span of at most 64 bytes, seldom of any length. */
function span(random: Random, bytes: Uint8Array): Uint8Array {
  const at = place(random, bytes.byteLength);
  const most = random.uniform() < 0.9 ? 64 : bytes.byteLength;
  return bytes.slice(at, at + random.integer(1, Math.max(1, most)));
}

const NONE = new Uint8Array(0);

const CHANGES: readonly Change[] = [
  function flipBit(random, bytes) {
    const at = place(random, bytes.byteLength);
    if (at < bytes.byteLength) bytes[at]! ^= 1 << random.integer(0, 7);
    return bytes;
  },
  function setByte(random, bytes) {
    const at = place(random, bytes.byteLength);
    if (at < bytes.byteLength) bytes[at] = random.bits();
    return bytes;
  },
  function addLittle(random, bytes) {
    const at = place(random, bytes.byteLength);
    if (at < bytes.byteLength) bytes[at]! += random.integer(-8, 8);
    return bytes;
  },
  function setNumber(random, bytes) {
    const width = random.pick([1, 2, 4, 8]);
    const at = place(random, bytes.byteLength - width);
    const near = BigInt(bytes.byteLength + random.integer(-2, 2));
    const number = random.uniform() < 0.2 ? near : random.pick(NUMBERS);
    for (let i = 0; i < width && at + i < bytes.byteLength; i++) {
      bytes[Math.max(0, at) + i] = Number(BigInt.asUintN(64, number >> BigInt(8 * i)) & 255n);
    }
    return bytes;
  },
  function setDigits(random, bytes) {
    const runs = [...Buffer.from(bytes.subarray(0, 2_048)).toString('latin1').matchAll(/\d+/g)];
    if (runs.length === 0) return bytes;
    const run = random.pick(runs);
    return splice(bytes, run.index, run[0].length, Buffer.from(String(random.pick(NUMBERS))));
  },
  function cutEnd(random, bytes) {
    return bytes.subarray(0, place(random, bytes.byteLength));
  },
  function removeSpan(random, bytes) {
    return splice(bytes, place(random, bytes.byteLength), random.integer(1, 16), NONE);
  },
  function repeatSpan(random, bytes) {
    const piece = span(random, bytes);
    const times = random.uniform() < 0.95 ? 1 : random.integer(2, 500);
    return splice(bytes, place(random, bytes.byteLength), 0, Buffer.concat(Array(times).fill(piece)));
  },
  function insertWord(random, bytes, words) {
    return words.length === 0 ? bytes : splice(bytes, place(random, bytes.byteLength), 0, random.pick(words));
  },
  function overwriteByWord(random, bytes, words) {
    if (words.length === 0) return bytes;
    const word = random.pick(words);
    return splice(bytes, place(random, bytes.byteLength), word.byteLength, word);
  },
  function takeSpan(random, bytes, _, others) {
    const piece = span(random, random.pick(others));
    const removed = random.uniform() < 0.5 ? piece.byteLength : 0;
    return splice(bytes, place(random, bytes.byteLength), removed, piece);
  },
];
