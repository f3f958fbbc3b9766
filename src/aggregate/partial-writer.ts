/** Exact partial sums as files, written: everything but the numbers. The file is described in `partial-file.ts`. */
import { MAX_DIMENSIONS } from '../../assembly/abi.ts';
import { AggregationError } from '../errors.ts';
import type { Encoding } from '../formats/encoding.ts';
import { encodeSafetensors, KIND, PARTIAL_SUM } from '../formats/safetensors.ts';
import {
  type CheckedTexts,
  checksumSeed,
  checksumText,
  chunksOf,
  ENDS,
  RESIDUES,
  type SumOwner,
  sumSpec,
  totalOfLeaves,
  VERSION,
} from './partial-file.ts';

/** A number of as many digits as there can be, with room for the offset that it is added to. */
const MOST_RESIDUE_BYTES = 8e15;

/** The places in a file that is to be written. */
export interface PartialPlaces {
  /** With an unfinished header: its numbers are not known yet. */
  readonly headerBytes: number;
  readonly endsOffset: number;
  /** Where sums begin, and by tensor. */
  readonly sumsOffset: number;
  readonly payloads: Encoding['payloads'];
  readonly residuesOffset: number;
}

/**
 * Where everything will stand.
 *
 * @throws AggregationError `aggregate-format` for names that a safetensors file, or one with sums, cannot have
 */
export function placePartialSum(owner: SumOwner): PartialPlaces {
  const { payloads } = encode(owner, MOST_RESIDUE_BYTES, 0, 0);
  const ends = payloads[0]!;
  const residues = payloads[payloads.length - 1]!;
  return {
    headerBytes: ends.offset,
    endsOffset: ends.offset,
    sumsOffset: ends.offset + ends.byteLength,
    payloads: payloads.slice(1, -1),
    residuesOffset: residues.offset,
  };
}

/**
 * The header of a sum that is complete otherwise.
 *
 * @param combine gives the CRC-32 of everything, from that of what the checksum covers of the metadata
 */
export function writePartialHeader(
  owner: SumOwner,
  { headerBytes }: PartialPlaces,
  residueBytes: number,
  combine: (seed: number) => number,
): Uint8Array {
  const { literals } = encode(owner, residueBytes, combine(checksumSeed(describe(owner))), headerBytes - 8);
  return literals[0]!.bytes;
}

function encode(owner: SumOwner, residueBytes: number, crc: number, headerLength: number): Encoding {
  const tensors = owner.tensors.map(sumSpec);
  const chunks = owner.tensors.reduce((sum, tensor) => sum + chunksOf(tensor), 0);
  try {
    for (const { name, shape } of tensors) {
      if (shape.length > MAX_DIMENSIONS) throw new RangeError(`"${name}" has too many dimensions`);
    }
    return encodeSafetensors(
      {
        weighting: null,
        tensors: [
          { name: ENDS, dtype: 'uint64', shape: [chunks] },
          ...tensors,
          { name: RESIDUES, dtype: 'uint8', shape: [residueBytes] },
        ],
      },
      {
        [KIND]: PARTIAL_SUM,
        version: VERSION,
        ...describe(owner),
        crc32: checksumText(crc),
      },
      headerLength,
    );
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new AggregationError('aggregate-format', `the partial sum: ${cause.message}`, {}, { cause });
  }
}

function describe({ tensors, leaves }: SumOwner): CheckedTexts {
  return {
    tensors: JSON.stringify(tensors.map(({ name, dtype, shape }) => [name, dtype, shape])),
    leaves: JSON.stringify(leaves.map(({ leaf, weighting }) => [leaf, weighting])),
    total: String(totalOfLeaves(leaves)),
  };
}
