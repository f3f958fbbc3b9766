/**
 * An exact partial sum as a file: safetensors, in this order,
 *
 *     __residue_ends__  U64 [chunks]      where the residues of each chunk end in `__residues__`
 *     NAME              F64 [shape]       for each tensor of the leaves, by name: the nearest binary64 of each sum
 *                                         (complex: [shape, 2]; float64: times 2^-60, see core/partial.ts)
 *     __residues__      U8 [bytes]        what those leave over: a block for each chunk that has any
 *
 * and the metadata
 *
 *     cambium   "partial-sum"
 *     version   "1"
 *     tensors   [[name or null, dtype, shape], …] of the leaves, as JSON in their order; tensors without a name are
 *               `layer_0`, `layer_1`, … in the file
 *     leaves    [[id, weighting], …] as JSON, ascending by the UTF-8 of the ids; weightings null where no leaf has one and
 *               each counts 1
 *     total     sum of the weightings in units of 2^-116, a decimal integer
 *     crc32     CRC-32 of the texts tensors, leaves and total and of all bytes behind the header
 *
 * A chunk is 4,096 numbers of one tensor (fewer at its end); chunks are counted through the tensors in the order of the
 * file. Blocks are described in assembly/partial-block.ts. Everything depends on the leaves alone, not on how their sums
 * were put together: a tree of branches gives the file of one flat branch. Residues come last because only the work itself
 * tells how many there are, and the header is written after them into room for the largest numbers: blanks fill it.
 */
import { PARTIAL_CHUNK } from '../../assembly/abi.ts';
import { partialKind, totalOf } from '../core/partial.ts';
import { crc32 } from '../formats/crc32.ts';
import type { TensorSpec } from '../formats/encoding.ts';
import { DTYPES } from '../tensor/dtypes.ts';
import { elementCount } from '../tensor/layout.ts';
import { MAX_TOTAL_WEIGHTING } from './weightings.ts';

export const VERSION = '1';
export const ENDS = '__residue_ends__';
export const RESIDUES = '__residues__';

/** The largest total, in the units of a total. */
export const MAX_TOTAL_UNITS = BigInt(MAX_TOTAL_WEIGHTING) << 116n;

/** A contributor to a sum. */
export interface SumLeaf {
  readonly leaf: string;
  /** Null where no leaf has one: each counts 1. */
  readonly weighting: number | null;
}

/** What a sum is of. */
export interface SumOwner {
  /** Of the leaves. */
  readonly tensors: readonly TensorSpec[];
  /** Ascending by the UTF-8 of their ids. */
  readonly leaves: readonly SumLeaf[];
}

/** Chunks of a tensor. */
export function chunksOf(tensor: TensorSpec): number {
  return Math.ceil(numbersOf(tensor) / PARTIAL_CHUNK);
}

/** Numbers of a tensor: its elements, or twice as many. */
export function numbersOf({ dtype, shape }: TensorSpec): number {
  return elementCount(shape) * partialKind(DTYPES[dtype].code).numbers;
}

/** The sums of a tensor as a tensor. */
export function sumSpec({ name, dtype, shape }: TensorSpec, position: number): TensorSpec {
  const { numbers } = partialKind(DTYPES[dtype].code);
  return {
    name: name ?? `layer_${position}`,
    dtype: 'float64',
    shape: numbers === 1 ? shape : [...shape, numbers],
  };
}

/** The nearest binary64 of a total in units of 2^-116. */
export function totalWeightingOf(total: bigint): number {
  return Number(total) * 2 ** -116;
}

/** The total of leaves, in units of 2^-116. */
export function totalOfLeaves(leaves: readonly SumLeaf[]): bigint {
  return totalOf(leaves.map(({ weighting }) => weighting ?? 1));
}

/** What the checksum covers of the metadata. */
export interface CheckedTexts {
  readonly tensors: string;
  readonly leaves: string;
  readonly total: string;
}

/** The CRC-32 to go on from with the bytes behind the header. */
export function checksumSeed({ tensors, leaves, total }: CheckedTexts): number {
  return crc32(new TextEncoder().encode(`${tensors}\n${leaves}\n${total}`));
}

/** A CRC-32 as the metadata have it. */
export function checksumText(crc: number): string {
  return (crc >>> 0).toString(16).padStart(8, '0');
}
