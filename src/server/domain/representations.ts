/**
 * Aggregations as their readers want them. An aggregation is stored once, as `[weighting, [arrays]]`; whoever wants it
 * otherwise has it converted, and those who come after read what the first one waited for.
 *
 * A conversion is no state: it has no row, the next start removes it, and made again it has the same bytes. So links,
 * ranges and digests go on working whatever became of the file in between.
 */
import { randomUUID } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { FormatError } from '../../errors.ts';
import type { ConvertRequest } from '../../node/jobs.ts';
import type { FileFormat } from '../../wire/cambium.ts';
import type { Domain } from './domain.ts';
import { Refusal } from './refusal.ts';
import type { Result } from './results.ts';

/** Cambium's own readers choose a format. Those of BranchKey read positions, and an int or nothing for a weighting. */
export type Representation = FileFormat | 'branchkey-npy' | 'branchkey-npz';

/** So many conversions are kept; each may be as large as a model, and old aggregations are rarely asked for. */
const MAX_KEPT = 16;

/** Bytes that lie still as long as they are held. */
export interface HeldFile {
  /** Of the blob. */
  readonly id: string;
  readonly byteLength: number;
  /** Lower-case hexadecimal. */
  readonly sha256: string;
  /** To be called once the bytes have been read. */
  release(): void;
}

interface Conversion {
  readonly id: string;
  readonly byteLength: number;
  readonly sha256: string;
}

export class Representations {
  readonly #domain: Domain;
  readonly #checkRoom: (byteLength: number) => Promise<void>;
  readonly #stop: AbortSignal;
  /** By aggregation and representation, the one that was asked for last at the end. */
  readonly #kept = new Map<string, Promise<Conversion>>();
  /** Readers of a conversion by its id. */
  readonly #readers = new Map<string, number>();
  /** Conversions that nobody will find any more, but somebody reads. */
  readonly #given = new Set<string>();

  /** @param checkRoom refuses what the disk has no room for */
  constructor(domain: Domain, checkRoom: (byteLength: number) => Promise<void>, stop: AbortSignal) {
    this.#domain = domain;
    this.#checkRoom = checkRoom;
    this.#stop = stop;
  }

  /**
   * The file of an aggregation in a representation, converted if need be.
   *
   * @throws Refusal `format-unavailable` when the format cannot hold these tensors, `disk-full`
   */
  async hold(result: Result, representation: Representation): Promise<HeldFile> {
    const key = `${result.aggregation_id} ${representation}`;
    const known = this.#kept.get(key);
    this.#kept.delete(key);
    const conversion = known ?? this.#make(result, representation);
    this.#kept.set(key, conversion);
    try {
      const { id, byteLength, sha256 } = await conversion;
      this.#readers.set(id, (this.#readers.get(id) ?? 0) + 1);
      this.#evict();
      let isHeld = true;
      const release = () => {
        if (isHeld) this.#release(id);
        isHeld = false;
      };
      return { id, byteLength, sha256, release };
    } catch (error) {
      if (this.#kept.get(key) === conversion) this.#kept.delete(key);
      throw error;
    }
  }

  #release(id: string): void {
    const readers = (this.#readers.get(id) ?? 1) - 1;
    if (readers > 0) {
      this.#readers.set(id, readers);
      return;
    }
    this.#readers.delete(id);
    if (this.#given.delete(id)) void this.#remove(id);
  }

  #evict(): void {
    for (const [key, conversion] of this.#kept) {
      if (this.#kept.size <= MAX_KEPT) return;
      this.#kept.delete(key);
      conversion.then(
        ({ id }) => {
          if (key.startsWith(id)) return; // stored so, no conversion
          if (this.#readers.has(id)) this.#given.add(id);
          else void this.#remove(id);
        },
        () => {},
      );
    }
  }

  async #remove(id: string): Promise<void> {
    const { blobs, log } = this.#domain;
    try {
      await blobs.remove(id);
    } catch (error) {
      log.error({ err: error, blob: id }, 'a conversion could not be removed');
    }
  }

  async #make(result: Result, representation: Representation): Promise<Conversion> {
    const { blobs, jobs } = this.#domain;
    const { aggregation_id, byte_length, sha256 } = result;
    const input = blobs.path(aggregation_id);
    if (representation === 'npy' || (representation === 'branchkey-npy' && (await this.#isPlain(result)))) {
      return { id: aggregation_id, byteLength: byte_length, sha256 };
    }
    await this.#checkRoom(byte_length);
    const id = randomUUID();
    const output = blobs.workPath(id);
    const how = HOW[representation](result);
    const report = await jobs
      // What has two bytes and no type in a .npy was bfloat16: nothing else of that kind gets into a round.
      .convert({ ...how, input, output, void16: 'bfloat16' }, { signal: this.#stop })
      .catch((error: unknown) => {
        if (!(error instanceof FormatError) || error.code !== 'convert-format') throw error;
        throw new Refusal(
          'unacceptable',
          'format-unavailable',
          `the aggregation cannot be had in this format: ${error.message}`,
          undefined,
          { cause: error },
        );
      });
    const { size } = await stat(output);
    await blobs.put(id, output);
    return { id, byteLength: size, sha256: report.sha256! }; // asked for
  }

  /** Whether the stored file is `[int, [arrays]]` already: no names, and a weighting without a fraction. */
  async #isPlain({ aggregation_id, total_weighting }: Result): Promise<boolean> {
    if (!Number.isSafeInteger(total_weighting)) return false;
    const { blobs, jobs } = this.#domain;
    const { layout } = await jobs.examine(blobs.path(aggregation_id), { name: aggregation_id });
    return layout.tensors.every((tensor) => tensor.name === null);
  }
}

type How = Pick<ConvertRequest, 'format' | 'weighting' | 'names'>;

const HOW: Readonly<Record<Representation, (result: Result) => How>> = {
  npy: () => ({ format: 'npy-object' }),
  npz: () => ({ format: 'npz' }),
  safetensors: () => ({ format: 'safetensors' }),
  // Their validator takes nothing but an int, and no client looks at it.
  'branchkey-npy': ({ total_weighting }) => ({
    format: 'npy-object',
    weighting: Math.max(1, Math.round(total_weighting)),
    names: 'drop',
  }),
  // Their recipe takes every array for a layer, so there must not be a weighting among them.
  'branchkey-npz': () => ({ format: 'npz', weighting: null, names: 'drop' }),
};
