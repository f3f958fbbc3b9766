/**
 * Shares the digits out as a federation would find them: unequal in number and in kind.
 *
 * Each leaf has a few digits of its own, which make up most of what it sees; the rest it sees in a mixture drawn at
 * random. Every digit belongs to some leaf. The held-out set is balanced and shares no image with a leaf.
 */
import { CLASSES, PIXELS, type Samples } from './digits.ts';
import { Random } from './random.ts';

/** Images of each digit that no leaf sees. */
const HELD_OUT_PER_DIGIT = 200;
/** The smallest and the largest shard of five leaves; more leaves share as many digits as five. */
const SMALLEST = 200;
const LARGEST = 1200;
const MOST_SHARED = 3500;
/** How much of a shard shows the leaf's own digits. */
const OWN_SHARE = 0.75;

/** One leaf's part of the data. */
export interface Shard {
  /** Of the leaf. */
  readonly name: string;
  readonly samples: Samples;
  /** The digits that make up most of it, ascending. */
  readonly own: readonly number[];
}

export interface Split {
  readonly shards: readonly Shard[];
  readonly heldOut: Samples;
}

/**
 * Splits the data set for `leaves` leaves; the same seed gives the same split.
 *
 * @param digits for each digit its images, as `readDigits` gives them
 */
export function splitDigits(digits: readonly Uint8Array[], leaves: number, seed: number): Split {
  const random = new Random(seed);
  const pools = digits.map((images) =>
    random.shuffle(Array.from({ length: images.length / PIXELS }, (_, i) => i)),
  );
  const heldOut = pools.map((pool) => pool.splice(0, HELD_OUT_PER_DIGIT));

  const order = random.shuffle(Array.from({ length: CLASSES }, (_, digit) => digit));
  const ownCount = Math.max(2, Math.ceil(CLASSES / leaves));
  const shards = shardSizes(leaves).map((size, leaf) => {
    const own = Array.from({ length: ownCount }, (_, i) => order[(leaf * ownCount + i) % CLASSES]!);
    const others = random.mixture(CLASSES);
    let share = 0;
    const taken = pools.map((pool, digit) => {
      const before = Math.round(share * size);
      share += (own.includes(digit) ? OWN_SHARE / ownCount : 0) + (1 - OWN_SHARE) * others[digit]!;
      return pool.splice(0, Math.round(share * size) - before);
    });
    return { name: `leaf-${leaf + 1}`, own: own.sort((a, b) => a - b), samples: gather(digits, taken) };
  });
  return { shards, heldOut: gather(digits, heldOut) };
}

/** All shards in one place. */
export function pool(shards: readonly Shard[]): Samples {
  return {
    images: concat(shards.map((shard) => shard.samples.images)),
    labels: concat(shards.map((shard) => shard.samples.labels)),
  };
}

function shardSizes(leaves: number): number[] {
  const sizes = Array.from({ length: leaves }, (_, i) =>
    leaves === 1 ? LARGEST : SMALLEST + ((LARGEST - SMALLEST) * i) / (leaves - 1),
  );
  const total = sizes.reduce((sum, size) => sum + size, 0);
  return sizes.map((size) => Math.round(size * Math.min(1, MOST_SHARED / total)));
}

function gather(digits: readonly Uint8Array[], taken: readonly (readonly number[])[]): Samples {
  const images = taken.flatMap((indices, digit) =>
    indices.map((index) => digits[digit]!.subarray(index * PIXELS, (index + 1) * PIXELS)),
  );
  const labels = taken.flatMap((indices, digit) => indices.map(() => digit));
  return { images: concat(images), labels: Uint8Array.from(labels) };
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
