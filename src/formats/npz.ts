/**
 * `.npz`: a zip archive with a `.npy` for each array, named after it.
 *
 * np.savez stores the members, np.savez_compressed deflates them. Both leave the arrays unaligned. Members whose names
 * do not end in `.npy` are no arrays. Two conventions are read:
 *
 *     weighting, layer_0, layer_1 …     BranchKey from 2.7 on: the weighting is an array of one number; the layers are
 *                                       positions, sorted by number (as text, layer_10 would come after layer_1).
 *                                       Aggregated files have no weighting
 *     anything else                     the names are the tensors' names, in the order of the directory; a scalar
 *                                       called `weighting` is the weighting here too
 *
 * The elements of stored members lie in the archive. Those of deflated ones have no place there: only their headers are
 * inflated to find the layout, and `unpack` puts their elements into scratch room, behind the archive's own bytes as far
 * as positions go. Checksums are looked at where the elements are read anyway: always when unpacking, and by `verify`
 * for stored members.
 */
import { type Core, openCore } from '../core/core.ts';
import { readNpyHeader } from '../core/npy.ts';
import type { TensorRecord } from '../core/records.ts';
import { UnavailableError } from '../errors.ts';
import type { ByteSource, Scratch } from '../tensor/bytes.ts';
import { dtypeOfCode } from '../tensor/dtypes.ts';
import { decodeFloat16 } from '../tensor/float16.ts';
import { elementCount, type Layout } from '../tensor/layout.ts';
import { crc32 } from './crc32.ts';
import { readExactly } from './exact.ts';
import { formatError, refusalError } from './format-error.ts';
import { type Inflate, inflate } from './inflate.ts';
import { type ReadOptions, tensorLayout } from './npy.ts';
import { unpackBehind } from './unpack.ts';
import type { UnpackOptions, VerifyOptions, Weights } from './weights.ts';
import type { ZipMember } from './zip.ts';

/** One array of an archive; the record's offset counts from the begin of the member. */
interface Member {
  readonly zip: ZipMember;
  readonly record: TensorRecord;
}

/** Bytes read at a time. */
const BLOCK = 256 << 10;

/** The same where only the begin of a member is wanted: hosts inflate several of them before anybody asks. */
const SMALL_BLOCK = 1024;

/** A header with what stands before it, for most arrays. */
const USUAL_HEADER = 128;

/** Members that are inflated at the same time. */
const PARALLEL = 4;

/** The layout of an archive whose directory was read. */
export async function openNpz(
  source: ByteSource,
  directory: readonly ZipMember[],
  options: ReadOptions,
): Promise<Weights> {
  const archive = new NpzArchive(source);
  const core = await openCore();
  let arrays: Map<string, Member>;
  let weighting: Weighting | null;
  try {
    arrays = await archive.readHeaders(directory, core);
    const member = arrays.get('weighting');
    weighting = member === undefined ? null : await archive.readWeighting(member);
  } finally {
    core.close();
  }
  const members = [...arrays.values()];
  arrays.delete('weighting');
  const ordered = archive.order(arrays);
  const layout: Layout = {
    format: 'npz',
    weighting: weighting?.value ?? null,
    weightingType: weighting?.type ?? null,
    tensors: ordered.map(([name, { zip, record }]) => ({
      ...tensorLayout(record, name, options),
      byteOffset: zip.method === 'stored' ? zip.byteOffset + record.byteOffset : null,
    })),
    byteLength: source.byteLength,
  };
  const stored = members.filter(({ zip }) => zip.method === 'stored');
  const verify =
    stored.length === 0 ? null : (verifying: VerifyOptions = {}) => archive.verify(stored, verifying);
  const packed = ordered.map(([, member]) => member);
  const unpack = packed.every(({ zip }) => zip.method === 'stored')
    ? null
    : async (unpacking: UnpackOptions): Promise<Weights> => ({
        ...(await archive.unpack(packed, layout, unpacking)),
        unpack: null,
        verify,
      });
  return { source, layout, unpack, verify };
}

interface Weighting {
  readonly value: number;
  readonly type: 'int' | 'float';
}

class NpzArchive {
  readonly #source: ByteSource;

  constructor(source: ByteSource) {
    this.#source = source;
  }

  /** The header of every array, by the array's name. */
  async readHeaders(directory: readonly ZipMember[], core: Core): Promise<Map<string, Member>> {
    const arrays = new Map<string, Member>();
    for (const zip of directory) {
      if (!zip.name.endsWith('.npy')) continue;
      const record = await this.#readHeader(zip, core);
      const end = record.byteOffset + record.byteLength;
      if (record.dtype === 0) {
        throw this.#error(
          'npy-dtype-unsupported',
          zip,
          'an array of Python objects; an .npz holds arrays of numbers',
        );
      }
      if (end > zip.byteLength) {
        throw this.#error('npy-data-truncated', zip, `${zip.byteLength} bytes, but its header means ${end}`);
      }
      if (end < zip.byteLength) {
        throw this.#error(
          'npy-data-trailing',
          zip,
          `${zip.byteLength - end} bytes follow the elements of the array`,
        );
      }
      arrays.set(zip.name.slice(0, -'.npy'.length), { zip, record });
    }
    return arrays;
  }

  async #readHeader(zip: ZipMember, core: Core): Promise<TensorRecord> {
    for (let length = USUAL_HEADER; ; ) {
      const step = readNpyHeader(core, await this.#readBegin(zip, length), zip.byteLength);
      if (step.kind === 'npy') return step.record;
      if (step.kind === 'refused') {
        const offset = zip.byteOffset + (zip.method === 'stored' ? step.offset : 0);
        throw await refusalError({ ...step, offset }, this.#source.name, zip.name);
      }
      length = step.byteLength;
    }
  }

  /** The one number of the array `weighting`. */
  async readWeighting({ zip, record }: Member): Promise<Weighting> {
    const dtype = dtypeOfCode(record.dtype);
    if (elementCount(record.shape) !== 1 || !/^(u?int|float)/.test(dtype)) {
      throw this.#error(
        'weights-form',
        zip,
        `the weighting must be one real number; this is ${dtype} of shape (${record.shape.join(', ')})`,
      );
    }
    const bytes = await this.#readBegin(zip, zip.byteLength);
    if (crc32(bytes) !== zip.crc32) throw this.#checksumError(zip);
    const element = bytes.slice(record.byteOffset);
    if (record.isBigEndian) element.reverse();
    const value = decodeNumber(dtype, new DataView(element.buffer));
    if (dtype.startsWith('float')) return { value, type: 'float' };
    if (!Number.isSafeInteger(value))
      throw this.#error('weights-form', zip, 'the weighting is beyond 2^53 - 1');
    return { value, type: 'int' };
  }

  /** Layers by number, without names; or all arrays with their names. */
  order(arrays: ReadonlyMap<string, Member>): (readonly [string | null, Member])[] {
    const numbers = [...arrays.keys()].map((name) => /^layer_(0|[1-9]\d*)$/.exec(name)?.[1]);
    if (!numbers.every((number) => number !== undefined)) return [...arrays];
    const layers = [...arrays.values()].map((member, i) => ({ number: Number(numbers[i]), member }));
    layers.sort((a, b) => a.number - b.number);
    return layers.map(({ number, member }, i) => {
      if (number !== i) throw this.#error('weights-form', member.zip, `layer_${i} is missing before it`);
      return [null, member];
    });
  }

  /** Puts the elements of deflated members into scratch room. */
  unpack(
    members: readonly Member[],
    layout: Layout,
    options: UnpackOptions,
  ): Promise<{ source: ByteSource; layout: Layout }> {
    return unpackBehind(this.#source, layout, options, {
      code: 'zip-limit',
      parallel: PARALLEL,
      fill: (tensor, scratch, place) => this.#inflateInto(scratch, place, members[tensor]!, options),
    });
  }

  /** Inflates one member and keeps what is behind its header. */
  async #inflateInto(
    scratch: Scratch,
    place: number,
    { zip, record }: Member,
    options: UnpackOptions,
  ): Promise<void> {
    const checksum = options.crc32 ?? crc32;
    let at = 0;
    let sum = 0;
    for await (const bytes of this.#inflate(zip, options.inflate ?? inflate)) {
      options.signal?.throwIfAborted();
      sum = checksum(bytes, sum);
      const skip = Math.min(bytes.byteLength, Math.max(0, record.byteOffset - at));
      const elements = bytes.subarray(skip);
      if (elements.byteLength > 0) await scratch.write(place + at + skip - record.byteOffset, elements);
      at += bytes.byteLength;
    }
    if (sum !== zip.crc32) throw this.#checksumError(zip);
  }

  /** Reads stored members whole and compares their checksums. */
  async verify(members: readonly Member[], options: VerifyOptions): Promise<void> {
    const checksum = options.crc32 ?? crc32;
    for (const { zip } of members) {
      let sum = 0;
      for await (const bytes of this.#readPacked(zip, BLOCK)) {
        options.signal?.throwIfAborted();
        sum = checksum(bytes, sum);
      }
      if (sum !== zip.crc32) throw this.#checksumError(zip);
    }
  }

  /** The first bytes of a member, fewer when it is shorter. */
  async #readBegin(zip: ZipMember, length: number): Promise<Uint8Array> {
    const begin = new Uint8Array(Math.min(length, zip.byteLength));
    if (zip.method === 'stored') {
      await this.#read(zip.byteOffset, begin);
      return begin;
    }
    let at = 0;
    for await (const bytes of this.#inflate(zip, inflate, SMALL_BLOCK)) {
      const part = bytes.subarray(0, begin.byteLength - at);
      begin.set(part, at);
      at += part.byteLength;
      if (at === begin.byteLength && (at < zip.byteLength || part.byteLength < bytes.byteLength)) break;
    }
    return begin;
  }

  /** The bytes of a deflated member: exactly as many as it declares, or an error. */
  async *#inflate(zip: ZipMember, host: Inflate, block = BLOCK): AsyncGenerator<Uint8Array> {
    let failure: unknown;
    const packed = this.#readPacked(zip, block, (error) => {
      failure = error;
    });
    const iterator = host(packed)[Symbol.asyncIterator]();
    let at = 0;
    try {
      for (;;) {
        let step: IteratorResult<Uint8Array>;
        try {
          step = await iterator.next();
        } catch (cause) {
          if (failure !== undefined) throw failure;
          if (cause instanceof UnavailableError) throw cause; // the host's fault
          throw this.#error('zip-deflate', zip, 'its data is no deflate stream', { cause });
        }
        if (step.done) break;
        at += step.value.byteLength;
        if (at > zip.byteLength) {
          throw this.#error(
            'zip-size',
            zip,
            `it inflates to more than the ${zip.byteLength} bytes it declares`,
          );
        }
        yield step.value;
      }
    } finally {
      await iterator.return?.();
    }
    if (at < zip.byteLength) {
      throw this.#error('zip-deflate', zip, `its deflate stream ends after ${at} of ${zip.byteLength} bytes`);
    }
  }

  /** The data of a member as it is stored, piece by piece; each piece is the reader's. */
  async *#readPacked(
    zip: ZipMember,
    block: number,
    onError?: (error: unknown) => void,
  ): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < zip.packedLength; at += block) {
      const bytes = new Uint8Array(Math.min(block, zip.packedLength - at));
      try {
        await this.#read(zip.byteOffset + at, bytes);
      } catch (error) {
        onError?.(error);
        throw error;
      }
      yield bytes;
    }
  }

  #read(offset: number, target: Uint8Array): Promise<void> {
    return readExactly(this.#source, offset, target, 'zip-truncated');
  }

  #checksumError(zip: ZipMember): Error {
    return this.#error(
      'zip-crc',
      zip,
      'its bytes do not have the CRC-32 that the archive says: they were damaged',
    );
  }

  #error(code: string, zip: ZipMember, sentence: string, options?: ErrorOptions): Error {
    const error = formatError(code, sentence, {
      file: this.#source.name,
      tensor: zip.name,
      offset: zip.byteOffset,
    });
    if (options !== undefined) error.cause = options.cause;
    return error;
  }
}

function decodeNumber(dtype: string, view: DataView): number {
  switch (dtype) {
    case 'int8':
      return view.getInt8(0);
    case 'uint8':
      return view.getUint8(0);
    case 'int16':
      return view.getInt16(0, true);
    case 'uint16':
      return view.getUint16(0, true);
    case 'int32':
      return view.getInt32(0, true);
    case 'uint32':
      return view.getUint32(0, true);
    case 'int64':
      return Number(view.getBigInt64(0, true));
    case 'uint64':
      return Number(view.getBigUint64(0, true));
    case 'float32':
      return view.getFloat32(0, true);
    case 'float64':
      return view.getFloat64(0, true);
    default:
      return decodeFloat16(view.getUint16(0, true));
  }
}
