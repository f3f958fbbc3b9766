/** The checksums of partial sums, put together from what ranges read of them: no file is read twice for its checksum. */
import { type Crc32, combineCrc32 } from '../formats/crc32.ts';
import { compareChecksum, type PartialSum } from './partial-reader.ts';
import type { Range } from './ranges.ts';

/** A partial sum among the inputs. */
export interface SumFile {
  readonly file: PartialSum;
  /** By tensor of the output: which of the file's tensors it is. */
  readonly positions: readonly number[];
}

/** What was read of a partial sum in a segment. */
export interface SumRead {
  /** CRC-32 of the sums, and how many numbers they are. */
  readonly sums: number;
  readonly numbers: number;
  /** CRC-32 of the residues of their chunks, and how many bytes they take. */
  readonly residues: number;
  readonly residueBytes: number;
}

export class SumChecks {
  readonly #files: readonly SumFile[];
  /** By file and tensor of it. */
  readonly #sums: readonly number[][];
  readonly #residues: readonly number[][];

  constructor(files: readonly SumFile[]) {
    this.#files = files;
    const zeros = () => files.map(({ positions }) => positions.map(() => 0));
    this.#sums = zeros();
    this.#residues = zeros();
  }

  /** @param reads of the next range in the order of the output, by segment and file */
  add(reads: readonly (readonly SumRead[])[], { segments }: Range): void {
    for (const [s, { tensor }] of segments.entries()) {
      for (const [i, { sums, numbers, residues, residueBytes }] of reads[s]!.entries()) {
        const position = this.#files[i]!.positions[tensor]!;
        const own = { sums: this.#sums[i]!, residues: this.#residues[i]! };
        own.sums[position] = combineCrc32(own.sums[position]!, sums, 8 * numbers);
        own.residues[position] = combineCrc32(own.residues[position]!, residues, residueBytes);
      }
    }
  }

  /** After the last range. Throws FormatError `partial-crc`. */
  async compare(crc32: Crc32): Promise<void> {
    for (const [i, { file }] of this.#files.entries()) {
      await compareChecksum(file, { sums: this.#sums[i]!, residues: this.#residues[i]! }, crc32);
    }
  }
}
