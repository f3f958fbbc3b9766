/**
 * The exact sum of one chunk of numbers over any number of inputs, in constant memory: inputs are folded in groups, and the
 * sum of a group is the first term of the next one. A sum is the same however it is put together, so groups leave no trace.
 */
import { PARTIAL_CHUNK, PARTIAL_RESIDUE_BYTES } from '../../assembly/abi.ts';
import type { Core } from '../core/core.ts';
import type { StrategyExports } from '../core/exports.ts';
import {
  exactSpread,
  foldPartial,
  type PartialKind,
  type PartialRefusal,
  type PartialRoom,
  type PartialTerm,
  partialArenaBytes,
  takePartialRoom,
} from '../core/partial.ts';
import { AggregationError } from '../errors.ts';

/** Inputs of a group: each leaf of it has the chunk in binary64. */
const GROUP = 64;

/** Terms of a group: two of a leaf with 64-bit integers, the sum before, and one that makes the group full. */
const TERMS = 2 * GROUP + 2;

/** Bytes of an input's chunk in binary64. */
const WIDE_BYTES = 2 * 8 * PARTIAL_CHUNK + 64;

/** What is going to be added to chunks. */
export interface ChunkInputs {
  readonly leaves: number;
  /** Whether a sum has residues. */
  readonly hasResidues: boolean;
}

/** Bytes of the arena that `ChunkSums` takes. */
export function chunkSumsArenaBytes(inputs: ChunkInputs): number {
  return 2 * partialArenaBytes(TERMS) + wideBytes(inputs) + residueBytes(inputs) + 32;
}

function wideBytes({ leaves }: ChunkInputs): number {
  return Math.min(GROUP, leaves) * WIDE_BYTES;
}

/** Bytes of residues of all inputs of a group: those of a chunk at their largest, or of some sixty with one at each number. */
function residueBytes({ hasResidues }: ChunkInputs): number {
  return hasResidues ? PARTIAL_RESIDUE_BYTES : 0;
}

/** The sum of a chunk; it is there until the next chunk is begun. */
export interface ChunkSum {
  /** Address of the nearest binary64 of each number. */
  readonly sums: number;
  /** Address and bytes of the residues, 0 and 0 for none. */
  readonly block: number;
  readonly blockBytes: number;
}

/** Which element a number of the chunk belongs to. */
export type PlaceOf = (index: number) => {
  readonly tensor: number;
  readonly index: number;
  readonly label: string;
};

export class ChunkSums {
  readonly #core: Core<StrategyExports>;
  /** Taken when they are first needed, mostly one: what is taken of an instance is wiped, and lies in memory from then on. */
  readonly #rooms: PartialRoom[] = [];
  readonly #wide: number;
  readonly #residues: number;
  readonly #residueBytes: number;
  readonly #spreads = new Map<string, number>();
  readonly #propagate: boolean;

  // The chunk at hand.
  #kind: PartialKind | null = null;
  #n = 0;
  #place: PlaceOf | null = null;
  #terms: PartialTerm[] = [];
  #names: string[] = [];
  #inputs = 0;
  #groups = 0;
  #leaves = 0;
  #usedResidues = 0;
  #weightings: number[] = [];
  #sum: ChunkSum | null = null;

  /** @param propagate let NaN and infinity go into sums as IEEE 754 has it */
  constructor(core: Core<StrategyExports>, inputs: ChunkInputs, propagate: boolean) {
    this.#core = core;
    this.#propagate = propagate;
    this.#wide = core.take(wideBytes(inputs));
    this.#residueBytes = residueBytes(inputs);
    this.#residues = core.take(this.#residueBytes);
  }

  /** @param n numbers of the chunk */
  begin(kind: PartialKind, n: number, place: PlaceOf): void {
    this.#kind = kind;
    this.#n = n;
    this.#place = place;
    this.#sum = null;
    this.#groups = 0;
    this.#leaves = 0;
    this.#reset();
  }

  /** Adds the elements of a leaf. @param from address of n numbers of the dtype, little endian */
  addLeaf(name: string, from: number, weighting: number): void {
    if (this.#inputs === GROUP) this.#fold();
    const kind = this.#kind!; // begun
    const values = this.#wide + this.#inputs * WIDE_BYTES;
    this.#core.exports.partialTerms(kind.dtype, from, this.#n, values);
    for (let term = 0; term < kind.terms; term++) {
      this.#push(name, {
        weight: weighting * kind.scale,
        leaves: term === 0 ? 1 : 0,
        values: values + 8 * this.#n * term,
        block: 0,
        isSum: false,
      });
    }
    this.#inputs++;
    this.#leaves++;
    this.#weightings.push(weighting);
  }

  /** Room for residues of the next sum that is added. */
  takeResidues(byteLength: number): number {
    if (this.#usedResidues + byteLength > this.#residueBytes) this.#fold();
    const address = this.#residues + this.#usedResidues;
    this.#usedResidues += byteLength;
    return address;
  }

  /**
   * Adds a partial sum or takes it out; first all that are added.
   *
   * @param block address of its residues, from `takeResidues`; 0 for none
   */
  addSum(name: string, values: number, block: number, leaves: number, sign: 1 | -1): void {
    this.#push(name, { weight: sign, leaves: sign * leaves, values, block, isSum: true });
    this.#inputs++;
    this.#leaves += sign * leaves;
    // Its residues must be in the group that it is in, so a full group is folded behind it.
    if (this.#inputs === GROUP) this.#fold();
  }

  /** @throws AggregationError `non-finite`, `partial-range`, `partial-mismatch` */
  end(): ChunkSum {
    if (this.#inputs > 0) this.#fold();
    return this.#sum!; // there is an input
  }

  #push(name: string, term: PartialTerm): void {
    this.#terms.push(term);
    this.#names.push(name);
  }

  #fold(): void {
    if (this.#inputs === 0) return;
    const room = this.#room(this.#groups % 2);
    const answer = foldPartial(
      this.#core,
      room,
      this.#kind!,
      this.#terms,
      this.#n,
      this.#spread(),
      this.#leaves,
      this.#propagate,
    );
    if (typeof answer !== 'number') throw this.#error(answer);
    this.#groups++;
    this.#sum = { sums: room.sums, block: answer > 0 ? room.block : 0, blockBytes: answer };
    this.#reset();
    this.#push('the sum', {
      weight: 1,
      leaves: this.#leaves,
      values: room.sums,
      block: this.#sum.block,
      isSum: true,
    });
  }

  #room(position: number): PartialRoom {
    this.#rooms[position] ??= takePartialRoom(this.#core, TERMS);
    return this.#rooms[position];
  }

  #reset(): void {
    this.#terms = [];
    this.#names = [];
    this.#inputs = 0;
    this.#usedResidues = 0;
    this.#weightings = [];
  }

  /** That of certificate A, for leaves alone. It is the same for all chunks of a kind. */
  #spread(): number {
    if (this.#terms.some(({ isSum }) => isSum)) return 0;
    const key = `${this.#kind!.bits} ${this.#weightings.length}`;
    let spread = this.#spreads.get(key);
    if (spread === undefined) {
      spread = exactSpread(this.#kind!, this.#weightings);
      this.#spreads.set(key, spread);
    }
    return spread;
  }

  #error({ code, index }: PartialRefusal): AggregationError {
    const place = this.#place!(index); // begun
    if (code === 'non-finite') {
      const j = this.#terms.findIndex(
        ({ values }) => !Number.isFinite(this.#core.view(values + 8 * index, 8).getFloat64(0, true)),
      );
      const found = { tensor: place.tensor, index: place.index, leaf: this.#names[j] ?? 'the sum' };
      return new AggregationError('non-finite', `NaN or infinity in ${place.label} of ${found.leaf}`, {
        ...found,
        nonFinite: [found],
      });
    }
    const what =
      code === 'partial-mismatch'
        ? 'what is taken out was not in the sum'
        : 'the sum is beyond what a partial sum can hold';
    return new AggregationError(code, `${place.label}: ${what}`, place);
  }
}
